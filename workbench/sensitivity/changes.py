"""What each edit changes in a loaded model, and in which blocks it can be made.

Edited blocks come from models.block_cache, as those of students and previews do: a score is that
of a student one can build.
"""

from __future__ import annotations

import copy

from torch import nn

from .. import plans
from ..families import FAMILIES
from ..models import describe_module
from ..models.block_cache import block_for
from ..models.blocks import Place
from ..models.replay import Change
from ..models.streaming import loaded
from ..students.int4 import int4_state, quantized
from .edits import Edit
from .scan import Scan


def drop(scan: Scan, edit: Edit, place: Place) -> list[Change]:
    """The block returns its inputs."""
    return [scan.replay.bypassed(place)]


def replace_block(scan: Scan, edit: Edit, place: Place) -> list[Change]:
    """The block of the edit's span runs instead; nothing changes where it is the model's own."""
    block = scan.edited_block(edit, place, lambda: _student_block(scan, edit, place))
    if block is scan.blocks[place].module:  # merge:first:1 leaves the block as it is
        return []
    return [scan.replay.replaced(place, block)]


def _student_block(scan: Scan, edit: Edit, place: Place) -> nn.Module:
    span = edit.span(place[1])
    if span is None:
        raise TypeError(f"edit {edit.kind} has no span, so its row needs changes of its own")
    return block_for(scan.transformer, place[0], span)


def merge(scan: Scan, edit: Edit, place: Place) -> list[Change]:
    """The merged block runs instead, and the next one returns its inputs."""
    return [*replace_block(scan, edit, place), scan.replay.bypassed(_next(place))]


def quantize(scan: Scan, edit: Edit, place: Place) -> list[Change]:
    """A copy with 4-bit weights runs instead."""
    source = scan.blocks[place].module

    def build() -> nn.Module:
        block = copy.deepcopy(source)
        with loaded(source):
            block.load_state_dict(int4_state(source), assign=True)
        return block

    return [scan.replay.replaced(place, scan.edited_block(edit, place, build))]


# --- where ----------------------------------------------------------------------------------------


def mergeable(scan: Scan, edit: Edit) -> list[Place]:
    """Blocks whose next one has the same shapes; with a gain, those whose family has gates to
    scale."""
    return [
        place
        for place, block in scan.blocks.items()
        if scan.shapes.get(_next(place)) == scan.shapes[place]
        and (edit.options.gain == 1 or block.row.gain)
    ]


def dual_blocks(scan: Scan, edit: Edit) -> list[Place]:
    """Blocks with two streams that can become one; pinned blocks and single ones cannot."""
    return [place for place in scan.blocks if _can_single(scan, place)]


def _can_single(scan: Scan, place: Place) -> bool:
    path, number = place
    row = scan.blocks[place].row
    pinned = row.pinned_in(len(scan.stack(path)))
    return row.kind == "dual" and FAMILIES[scan.family].can_single(path) and number not in pinned


def blocks_with_part(scan: Scan, edit: Edit) -> list[Place]:
    """Blocks that have the part; some parts can go in the last block of a stack only."""
    return [place for place in scan.blocks if _has_part(scan, place, edit.options.part)]


def blocks_with_modulation(scan: Scan, edit: Edit) -> list[Place]:
    """Blocks whose modulation can have the rank; pinned blocks and others cannot."""
    return [place for place in scan.blocks if _takes_rank(scan, place, edit.options.rank)]


def _takes_rank(scan: Scan, place: Place, rank: int) -> bool:
    path, number = place
    stack = describe_module(scan.transformer).stack(path)
    family = FAMILIES[scan.family]
    return plans.takes_rank(stack, family.stack(path), family, number, rank)


def _has_part(scan: Scan, place: Place, name: str) -> bool:
    part = scan.blocks[place].row.parts.get(name)
    if part is None:
        return False
    return not part.last_only or _next(place) not in scan.blocks


def quantizable(scan: Scan, edit: Edit) -> list[Place]:
    """Blocks with a Linear of whole groups of 32."""
    return [place for place, block in scan.blocks.items() if quantized(block.module)]


def _next(place: Place) -> Place:
    return place[0], place[1] + 1
