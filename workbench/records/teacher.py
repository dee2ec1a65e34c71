"""The teacher: a diffusers transformer described without its weights."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from .errors import BadInput
from .record import Record

Stream = Literal["dual", "single"]


class StackInfo(Record):
    """One ModuleList of blocks: which tensors each block holds. Most blocks share one layout.

    layouts: name of a tensor inside the block -> its shape. layout_of: block -> index in layouts.
    """

    what: ClassVar[str] = "stack"
    path: str
    kind: Stream
    layouts: list[dict[str, list[int]]]
    layout_of: list[int]

    @model_validator(mode="after")
    def _layouts_exist(self) -> Self:
        for index in self.layout_of:
            if not 0 <= index < len(self.layouts):
                raise ValueError(f"a place below {len(self.layouts)} for every block in layout_of")
        return self

    @property
    def depth(self) -> int:
        return len(self.layout_of)

    def tensors(self, block: int) -> dict[str, list[int]]:
        """Name of each tensor of a block -> its shape."""
        return self.layouts[self.layout_of[block]]

    def block_parameters(self, block: int) -> int:
        """Number of parameters of one block."""
        return sum(numel(shape) for shape in self.tensors(block).values())

    def parameters(self) -> int:
        """Number of parameters of all blocks."""
        return sum(self.block_parameters(block) for block in range(self.depth))


def numel(shape: list[int]) -> int:
    """Number of elements of a tensor of that shape."""
    return math.prod(shape)


class Teacher(Record):
    """A diffusers transformer described by its config, or by the headers of its safetensors files.

    name: as the user gave it: demo, a folder, a Hub id[@revision]. outside: parameters outside the
    stacks. fingerprint: a hash of names, shapes and samples of the weights; empty where only a
    config was read. config: the transformer's config.json. size, text_tokens: how it is sampled by
    default, where that is known: side of a picture in pixels, length of a prompt.
    """

    what: ClassVar[str] = "teacher"
    name: str
    family: str
    class_name: str
    stacks: list[StackInfo]
    outside: int
    dtype: str = "bfloat16"
    fingerprint: str = ""
    config: dict[str, Any] = Field(default_factory=dict)
    size: int | None = None
    text_tokens: int | None = None

    @property
    def parameters(self) -> int:
        """Number of parameters of the transformer."""
        return self.outside + sum(stack.parameters() for stack in self.stacks)

    def stack(self, path: str) -> StackInfo:
        """The stack at a module path. Raises BadInput for an unknown one."""
        for stack in self.stacks:
            if stack.path == path:
                return stack
        known = ", ".join(stack.path for stack in self.stacks)
        raise BadInput(f"stack {path!r} of {self.name}", f"one of {known}", "rename it")
