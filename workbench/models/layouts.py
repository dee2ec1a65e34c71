"""The tensors that a config describes, made without memory, and whether a checkpoint has them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .. import students
from ..families import Family, StackRow, by_class, is_hybrid
from ..records import BadInput
from .access import quiet
from .folders import check_class

Shapes = dict[str, list[int]]
MOST_BLOCKS = 2000

# What diffusers and torch raise for a config with a value that they cannot use. Only their code
# runs where these are caught.
LIBRARY_ERRORS = (
    TypeError,
    ValueError,
    RuntimeError,
    ArithmeticError,
    AssertionError,
    LookupError,
    AttributeError,
)


@dataclass(frozen=True)
class TensorLayout:
    """The shapes of a model's tensors. Buffers (SD3's position table) are not parameters, though a
    checkpoint has them.
    """

    shapes: Shapes
    buffers: frozenset[str]


def module_layout(model: nn.Module) -> TensorLayout:
    shapes = {key: list(tensor.shape) for key, tensor in model.state_dict().items()}
    return TensorLayout(shapes, frozenset(name for name, _ in model.named_buffers()))


def config_layout(config: Mapping[str, Any], where: str) -> TensorLayout:
    """The tensors a config describes, from its class built on the meta device: no memory.

    `where` names the config in errors. Raises BadInput for an unknown class, for a config that the
    class refuses, and for changes of blocks that do not fit the family.
    """
    name = str(config["_class_name"])
    family = by_class(name)
    check_class(config, where)
    check_size(config, family, where)
    stock = students.stock_class(family)
    with torch.device("meta"), quiet():
        try:
            model = stock.from_config(dict(config))
        except LIBRARY_ERRORS as error:
            raise BadInput(
                f"{where} does not build a {family.transformer} ({str(error)[:120]})",
                "a config that its class accepts",
                "fix the value",
            ) from None
        check_not_empty(module_layout(model), where)  # removed parts of a student may be empty
        if is_hybrid(name):
            check_changes(config, family, where)
            model = students.student_class(family.name).from_config(dict(config))
    return module_layout(model)


def check_not_empty(layout: TensorLayout, where: str) -> None:
    """Refuse a config without heads, channels and the like: its class builds weights of no number."""
    for name, shape in layout.shapes.items():
        if 0 in shape and name not in layout.buffers:
            raise BadInput(
                f"{where}: its config makes tensor {name} {shape}",
                "at least one number: no heads, width or channels of 0",
                "fix the value",
            )


def check_size(config: Mapping[str, Any], family: Family, where: str) -> None:
    """Refuse a config of more blocks than any model has, before they are built, or of fewer than
    none.
    """
    for row in family.stacks:
        depth = config.get(row.depth_key)
        if isinstance(depth, int) and depth > MOST_BLOCKS:
            raise BadInput(
                f"{where}: {row.depth_key} is {depth}", f"at most {MOST_BLOCKS} blocks", "fix it"
            )
        if isinstance(depth, bool) or (isinstance(depth, int) and depth < 0):
            found = f"{where}: {row.depth_key} is {depth}"
            raise BadInput(found, "a number of blocks", "fix the value")


def check_changes(config: Mapping[str, Any], family: Family, where: str) -> None:
    """Refuse a student's config whose single-stream blocks or removed parts its family lacks."""
    single = config.get("single_stream_layers") or []
    removed = config.get("removed_parts") or {}
    if not isinstance(single, list | tuple) or not isinstance(removed, Mapping):
        raise changes_refused(where, "single_stream_layers or removed_parts of another type")
    if single:
        if not family.dual_stack:
            raise changes_refused(where, f"single-stream blocks, which {family.name} has not")
        depth = stack_depth(config, family.stack(family.dual_stack))
        for index in single:
            if not is_block(index, depth):
                raise changes_refused(where, f"single-stream block {index!r} of {depth}")
    for place, names in removed.items():
        check_removed(config, family, where, str(place), names)
    check_ranks(config, family, where)


def check_ranks(config: Mapping[str, Any], family: Family, where: str) -> None:
    """Refuse ranks of modulation of blocks that do not exist, or have none."""
    ranks = config.get("modulation_rank") or {}
    if not isinstance(ranks, Mapping):
        raise changes_refused(where, "modulation_rank of another type")
    for place, rank in ranks.items():
        row = row_of_block(config, family, str(place))
        if row is None or not row.modulation:
            raise changes_refused(where, f"a modulation rank of {place!r}")
        if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
            raise changes_refused(where, f"modulation rank {rank!r} of {place!r}")


def row_of_block(config: Mapping[str, Any], family: Family, place: str) -> StackRow | None:
    """The row of the stack of block "<stack>.<block>"; None where there is no such block."""
    stack, _, number = place.rpartition(".")
    rows = {row.path: row for row in family.stacks}
    if stack not in rows or not number.isascii() or not number.isdigit():
        return None
    row = rows[stack]
    return row if is_block(int(number), stack_depth(config, row)) else None


def check_removed(
    config: Mapping[str, Any], family: Family, where: str, place: str, names: Any
) -> None:
    """Refuse removed parts of a block that does not exist, or of names that the family lacks."""
    row = row_of_block(config, family, place)
    if row is None:
        raise changes_refused(where, f"removed parts of {place!r}")
    stack, _, number = place.rpartition(".")
    index = int(number)
    if stack == family.dual_stack and index in (config.get("single_stream_layers") or []):
        row = row.single
    if not isinstance(names, list | tuple):
        raise changes_refused(where, f"removed parts {names!r} of {place!r}")
    for name in names:
        if name not in row.parts:
            raise changes_refused(where, f"removed part {name!r} of {place!r}")


def is_block(index: Any, depth: int) -> bool:
    return isinstance(index, int) and not isinstance(index, bool) and 0 <= index < depth


def changes_refused(where: str, what: str) -> BadInput:
    return BadInput(
        f"{where} does not build a student: its config has {what}",
        "blocks and parts of its family",
        "use the config of these weights",
    )


def stack_depth(config: Mapping[str, Any], row: StackRow) -> int:
    """Blocks in a stack, by the config or its class's default."""
    if row.depth_key in config:
        return int(config[row.depth_key])
    stock = students.stock_class(by_class(str(config["_class_name"])))
    return int(inspect.signature(stock.__init__).parameters[row.depth_key].default)


def block_shapes(shapes: Shapes, path: str) -> dict[int, Shapes]:
    """Block number -> tensors inside, for names `<path>.<i>.<rest>`."""
    pattern = re.compile(re.escape(path) + r"\.(\d+)\.(.+)")
    blocks: dict[int, Shapes] = {}
    for name, shape in shapes.items():
        match = pattern.fullmatch(name)
        if match:
            blocks.setdefault(int(match[1]), {})[match[2]] = shape
    return dict(sorted(blocks.items()))


def check_depth(shapes: Shapes, config: Mapping[str, Any], where: str) -> None:
    """Refuse a checkpoint with another number of blocks than its config says."""
    for row in by_class(str(config["_class_name"])).stacks:
        depth = stack_depth(config, row)
        blocks = whole_blocks(block_shapes(shapes, row.path))
        count = len(blocks)
        # a block of a student may have lost everything: check_shapes decides then
        if count != depth and not config.get("removed_parts"):
            do = "copy the whole checkpoint"
            if count and list(blocks) == list(range(count)):
                do = f"set {row.depth_key} to {count}, or copy the missing shards"
            raise BadInput(
                f"{where} holds {count} blocks in {row.path}",
                f"{depth}, by {row.depth_key} of its config.json",
                do,
            )


def whole_blocks(blocks: Mapping[int, Shapes]) -> dict[int, Shapes]:
    """The blocks with at least an eighth as many tensors as the largest: a stray tensor makes none.
    The last block of SD3.5 with its modulation in factors has a third.
    """
    most = max((len(block) for block in blocks.values()), default=0)
    return {index: block for index, block in blocks.items() if 8 * len(block) >= most}


def check_shapes(shapes: Shapes, expected: Shapes, where: str) -> None:
    """Refuse a checkpoint that lacks a tensor of its config, or has one of another shape."""
    for name, shape in expected.items():
        if name not in shapes:
            raise BadInput(
                f"{where} lacks tensor {name}",
                "every tensor its config.json names",
                "copy the whole checkpoint",
            )
        if shapes[name] != shape:
            raise BadInput(
                f"{where}: tensor {name} is {shapes[name]}",
                f"{shape}, by its config.json",
                "use the config of these weights",
            )
