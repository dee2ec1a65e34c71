"""Comments of a YAML file, carried over to a new text of it.

ruamel's round trip loses comments between flow-style items (0.19). Here a comment stays with the
line that it stood on or above; where that line is gone, it moves to the next line that is left.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Comments:
    """The comments of one line of code."""

    above: list[str] = field(default_factory=list)
    beside: str = ""


def carry_comments(old: str, new: str) -> str:
    """The new text with the comments of the old one."""
    new_lines = new.splitlines()
    comments, rest = comments_by_line(old, {code_of(line) for line in new_lines})
    lines = []
    for line in new_lines:
        own = comments.pop(code_of(line), Comments())
        indent = " " * (len(line) - len(line.lstrip()))
        lines += [indent + comment for comment in own.above]
        lines.append(f"{line}  {own.beside}" if own.beside else line)
    return "\n".join([*lines, *rest]) + "\n"


def comments_by_line(text: str, remaining: set[str]) -> tuple[dict[str, Comments], list[str]]:
    """Comments by the code they belong to, and those behind the last remaining line.

    remaining: the lines of code, without comments, that the new text still has.
    """
    comments: dict[str, Comments] = {}
    waiting: list[str] = []
    for line in text.splitlines():
        code = code_of(line)
        comment = line[len(code) :].strip()
        if code.strip() and code in remaining and code not in comments:
            comments[code] = Comments(waiting, comment)
            waiting = []
        elif comment:
            waiting.append(comment)
    return comments, waiting


def code_of(line: str) -> str:
    """The line without its comment; a # inside quotes or inside a word does not begin one."""
    quote = ""
    for place, letter in enumerate(line):
        if quote:
            if letter == quote:
                quote = ""
        elif letter in "'\"":
            quote = letter
        elif letter == "#" and (place == 0 or line[place - 1] in " \t"):
            return line[:place].rstrip()
    return line.rstrip()
