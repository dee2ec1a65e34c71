"""How many tokens a sample has: what predicted speed and memory of activations depend on."""

from __future__ import annotations

from dataclasses import dataclass

from ..records import Teacher
from ..records.picture_size import Size, sides
from .spans import family_of

SIZE = 1024  # side of a picture in pixels, where the teacher does not say
TEXT = 256  # tokens of a prompt of some 200 words


@dataclass(frozen=True)
class Tokens:
    """Sequence lengths of one sample: by default 1024 x 1024 pixels at 16 pixels a token.

    image: of one frame. frames: of a video's latents; 1 for a picture.
    """

    image: int = (SIZE // 16) ** 2
    text: int = TEXT
    frames: int = 1


def tokens_of(teacher: Teacher, size: Size | None = None) -> Tokens:
    """Sequence lengths at which a teacher is sampled.

    size: of a picture, a square's side in pixels or "WIDTHxHEIGHT"; None: the teacher's own. A
    family's `token_pixels` is the side of the square that one image token covers: the VAE's stride
    times the patch. A video has as many frames as its pipeline samples by default.
    """
    height, width = sides(size or teacher.size or SIZE)
    family = family_of(teacher)
    image = (height // family.token_pixels) * (width // family.token_pixels)
    return Tokens(image, teacher.text_tokens or TEXT, family.frames)
