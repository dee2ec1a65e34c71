"""The one error that a user can fix: what was found, what was expected, what to do."""

from __future__ import annotations


class BadInput(ValueError):
    """Input that the user can fix. Its message is one line made of three parts.

    found: what was given, with the name of the file, field or flag.
    expected: what would have been accepted.
    do: the next step, as an imperative.
    """

    def __init__(self, found: str, expected: str, do: str) -> None:
        self.found = one_line(found, 500)
        self.expected = one_line(expected, 1500)
        self.do = one_line(do, 500)
        super().__init__(f"{self.found}; expected {self.expected}; {self.do}")

    def __reduce__(self) -> tuple[type[BadInput], tuple[str, str, str]]:
        return type(self), (self.found, self.expected, self.do)


def one_line(text: str, longest: int) -> str:
    """The text on one terminal line: control characters become spaces, the rest is cut."""
    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    if len(plain) <= longest:
        return plain
    return plain[: longest - 1] + "…"
