"""What only the study's server knows: the codes in links, derived from one secret file."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from ..records import BadInput, read_text

FILE = "secret"


def new_secret(folder: Path) -> None:
    """Write a new secret that only its owner may read."""
    descriptor = os.open(folder / FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32) + "\n")


class Codes:
    """Codes of a study. They are nowhere written down and cannot be guessed from each other.

    Raises BadInput where the study's secret is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.secret = read_text(folder / FILE, "study's secret").strip()
        if len(self.secret) < 32:
            raise BadInput(
                f"{folder / FILE} has {len(self.secret)} characters",
                "the secret that the study was created with",
                "put it back, or create the study again",
            )

    def code(self, purpose: str) -> str:
        """24 letters and digits for one purpose."""
        digest = hmac.new(self.secret.encode(), purpose.encode(), hashlib.sha256)
        return digest.hexdigest()[:24]

    def open_link(self) -> str:
        """The code of the link that is the same for all raters."""
        return self.code("open link")

    def rater(self, number: int) -> str:
        """A rater's own code."""
        return self.code(f"rater {number}")
