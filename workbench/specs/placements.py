"""How a model is held in memory while a verb works: one row per way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

AUTO = "auto"
PlacementName = Literal["auto", "whole", "text-first", "streamed"]  # what a person can ask for
# Of a streamed or packed model: one that runs, one read ahead, one that an edit made.
RESIDENT_BLOCKS = 3


@dataclass(frozen=True)
class Sizes:
    """A model's weights in bytes, in the precision it is loaded in.

    outside: the part of the transformer that is not in its blocks. others: VAE and the like.
    packed: of all blocks, where they are held in fewer bits (specs.teacher_weights).
    """

    transformer: int
    outside: int
    largest_block: int
    text_encoders: int = 0
    others: int = 0
    packed: int | None = None


@dataclass(frozen=True)
class Placement:
    """One way of holding a model.

    text_first: prompts are encoded and the text encoders freed before the transformer's weights are
    read. streamed: a block's weights are read when it runs and let go afterwards.
    """

    name: str
    about: str
    text_first: bool
    streamed: bool

    def needs(self, sizes: Sizes, beside: int = 0, interleaved: bool = False) -> int:
        """Bytes of weights that are in memory at once, at most.

        beside: of what the work loads once all prompts are encoded. interleaved: the transformer
        runs before all prompts are encoded.
        """
        transformer = sizes.transformer
        if self.streamed or sizes.packed is not None:
            transformer = sizes.outside + RESIDENT_BLOCKS * sizes.largest_block
            transformer += sizes.packed or 0
        if not self.text_first:
            return sizes.text_encoders + transformer + sizes.others + beside
        encoding = sizes.text_encoders + (transformer if interleaved else 0)
        return max(encoding, transformer + beside) + sizes.others


# In the order in which `auto` tries them: the fastest first.
PLACEMENT_ROWS = (
    Placement("whole", "Everything is held from beginning to end.", False, False),
    Placement(
        "text-first",
        "The text encoders encode every prompt and are freed before the transformer is loaded.",
        True,
        False,
    ),
    Placement(
        "streamed",
        "As text-first, and the weights of each block are read from the disk one block ahead of "
        "their use.",
        True,
        True,
    ),
)
PLACEMENTS: Mapping[str, Placement] = {row.name: row for row in PLACEMENT_ROWS}
assert get_args(PlacementName) == (AUTO, *PLACEMENTS)
