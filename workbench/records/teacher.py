"""The teacher: a diffusers transformer described without its weights."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from .errors import BadInput
from .record import Record

Stream = Literal["dual", "single"]


class StackInfo(Record):
    """One ModuleList of blocks: which tensors each block holds. Most blocks share one layout."""

    what: ClassVar[str] = "stack"
    path: str
    kind: Stream
    layouts: list[dict[str, list[int]]]  # tensor name inside the block -> shape
    layout_of: list[int]  # block -> index into layouts

    @property
    def depth(self) -> int:
        return len(self.layout_of)

    def tensors(self, block: int) -> dict[str, list[int]]:
        return self.layouts[self.layout_of[block]]

    def block_parameters(self, block: int) -> int:
        return sum(numel(shape) for shape in self.tensors(block).values())


def numel(shape: list[int]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


class Teacher(Record):
    """A diffusers transformer described without its weights (config, or safetensors headers)."""

    what: ClassVar[str] = "teacher"
    name: str  # as a person gave it: demo, a folder, a Hub id[@revision]
    family: str
    class_name: str
    stacks: list[StackInfo]
    outside: int  # parameters outside the stacks
    dtype: str = "bfloat16"
    # of names, shapes and samples of the weights; empty where only a config was read
    fingerprint: str = ""
    config: dict[str, Any] = Field(default_factory=dict)  # the transformer's config.json

    @property
    def parameters(self) -> int:
        return self.outside + sum(
            s.block_parameters(b) for s in self.stacks for b in range(s.depth)
        )

    def stack(self, path: str) -> StackInfo:
        for stack in self.stacks:
            if stack.path == path:
                return stack
        known = ", ".join(s.path for s in self.stacks)
        raise BadInput(f"stack {path!r} is not in {self.name}", f"one of {known}", "rename it")
