"""A student block in words, for differences of plans and reasons of rules."""

from __future__ import annotations

from ..records import Span


def span_words(span: Span) -> list[str]:
    """What is done to the teacher blocks of a span, in a few words each; empty for a block alone
    and unchanged. The init of a block alone says nothing and is left out.
    """
    words: list[str] = []
    if len(span) > 1:
        words.append(f"init {span.init}")
    if span.gain != 1:
        words.append(f"gain {span.gain:g}")
    if span.stream:
        words.append(f"{span.stream}-stream")
    if span.drop:
        words.append("without " + ", ".join(span.drop))
    if span.rank:
        words.append(f"modulation rank {span.rank}")
    return words


def blocks_in_words(first: int, last: int) -> str:
    """Teacher blocks: block 3, or blocks 3-5."""
    return f"block {first}" if first == last else f"blocks {first}-{last}"
