"""How many tokens a sample has: what predicted speed and memory of activations depend on."""

from __future__ import annotations

from dataclasses import dataclass

from ..records import Teacher
from .spans import family_of

SIZE = 1024  # side of a picture in pixels, where the teacher does not say
TEXT = 256  # tokens of a prompt of some 200 words


@dataclass(frozen=True)
class Tokens:
    """Sequence lengths of one sample: by default 1024 x 1024 pixels at 16 pixels a token."""

    image: int = (SIZE // 16) ** 2
    text: int = TEXT


def tokens_of(teacher: Teacher, size: int | None = None) -> Tokens:
    """Sequence lengths at which a teacher is sampled.

    size: side of a square picture in pixels; None: the teacher's own. A family's `token_pixels`
    is the side of the square that one image token covers: the VAE's stride times the patch. A
    video counts as one frame.
    """
    pixels = size or teacher.size or SIZE
    side = pixels // family_of(teacher).token_pixels
    return Tokens(image=side * side, text=teacher.text_tokens or TEXT)
