"""How much of the text that a picture should show was read from it, as LongText-Bench counts it."""

from __future__ import annotations

import re
from collections import Counter

CHINESE = re.compile(r"[\u4e00-\u9fa5]")
LEFT_OUT = re.compile(r"[^\u4e00-\u9fa5a-zA-Z0-9\sàâäéèêëîïôöùûüçÀÂÄÉÈÊËÎÏÔÖÙÛÜÇ]")


def recall(asked: str, read: str) -> tuple[int, int]:
    """(found, all): words of `asked` that are in `read`, in any order, each as often as it is
    there; characters where `asked` is Chinese. Case and punctuation do not count.
    """
    split = characters if CHINESE.search(asked) else words
    pieces = split(asked)
    found = Counter(pieces) & Counter(split(read))
    return found.total(), len(pieces)


def words(text: str) -> list[str]:
    return LEFT_OUT.sub("", text).lower().split()


def characters(text: str) -> list[str]:
    return list("".join(LEFT_OUT.sub("", text).split()))
