"""Blocks without some of their parts: what is gone takes no memory and, where the block allows it,
no time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from .low_rank_linear import LowRankLinear


class Rows(NamedTuple):
    """Some chunks of a linear's rows (dim 0) or columns (dim 1), out of `of` equal ones; `of` None:
    as many as the long side has of the short one."""

    linear: str
    chunks: tuple[int, ...]
    of: int | None = None
    dim: int = 0


class Part(NamedTuple):
    """A removable piece of a block: whole modules, and rows of linears it shares with other parts.

    gates: rows of a modulation that give `open` when the modulation is gone; all others give 0.
    """

    modules: tuple[str, ...] = ()
    rows: tuple[Rows, ...] = ()
    gates: tuple[Rows, ...] = ()
    open: float = 1.0


class Gone(nn.Module):
    """What stands where a module was removed. It has no parameters and contributes nothing.

    width: features of its output (None: as its input has). gates, of, open: chunks of the output
    that are `open` instead of 0. two: it returns both streams when it is given both.
    """

    processor = None  # some models ask every block's attention for it

    def __init__(
        self,
        width: int | None = None,
        gates: Sequence[int] = (),
        of: int = 1,
        open: float = 1.0,
        two: bool = False,
    ) -> None:
        super().__init__()
        self.width = width
        self.gates = tuple(gates)
        self.of = of
        self.open = open
        self.two = two

    def forward(
        self,
        hidden_states: torch.Tensor,
        *args: Any,
        encoder_hidden_states: torch.Tensor | None = None,
        hidden_dtype: torch.dtype | None = None,
        **kwargs: Any,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        if hidden_dtype is not None:  # in the place of an embedding of timesteps
            return torch.zeros(
                len(hidden_states), 1, dtype=hidden_dtype, device=hidden_states.device
            )
        if self.two and encoder_hidden_states is not None:
            return self.nothing(hidden_states), self.nothing(encoder_hidden_states)
        return self.nothing(hidden_states)

    def nothing(self, like: torch.Tensor) -> torch.Tensor:
        width = like.shape[-1] if self.width is None else self.width
        out = like.new_zeros(*like.shape[:-1], width)
        for index in self.gates:
            out.chunk(self.of, dim=-1)[index].fill_(self.open)
        return out


class Kept(NamedTuple):
    """The chunks of a dimension that are still there, out of `of` equal ones."""

    chunks: tuple[int, ...]
    of: int

    def select(self, tensor: torch.Tensor, dim: int) -> torch.Tensor:
        """The tensor with these chunks alone: a view where they lie together."""
        width = tensor.shape[dim] // self.of
        if len(self.chunks) == self.of:
            return tensor
        if not self.chunks:
            return torch.cat([tensor.narrow(dim, 0, 0)], dim)
        first = self.chunks[0]
        last = self.chunks[-1]
        if last - first + 1 == len(self.chunks):
            return tensor.narrow(dim, first * width, len(self.chunks) * width)
        pieces = [tensor.narrow(dim, index * width, width) for index in self.chunks]
        return torch.cat(pieces, dim)


class Padded(nn.Module):
    """Puts zeros where rows of the linear before it were removed: chunks of `width` features, of
    which `kept` are there.
    """

    def __init__(self, kept: Kept, width: int) -> None:
        super().__init__()
        self.kept = kept
        self.width = width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        empty = x.new_zeros(*x.shape[:-1], self.width)
        pieces = dict(zip(self.kept.chunks, x.split(self.width, dim=-1), strict=False))
        return torch.cat([pieces.get(index, empty) for index in range(self.kept.of)], dim=-1)


class NarrowLinear(nn.Linear):
    """A linear that lost rows or columns, inside a block that does not know of it: it takes the
    whole input and gives the whole output.
    """

    rows: Padded | None
    columns: Kept | None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.columns is not None and x.shape[-1] != self.in_features:
            pieces = x.chunk(self.columns.of, dim=-1)
            read = [pieces[index] for index in self.columns.chunks]
            x = torch.cat([x[..., :0], *read], dim=-1)
        x = super().forward(x)
        return x if self.rows is None else self.rows(x)


class Slot(NamedTuple):
    """A module's place in the module that holds it."""

    parent: nn.Module
    name: str

    @property
    def module(self) -> nn.Module:
        module: nn.Module = getattr(self.parent, self.name)
        return module

    def put(self, module: nn.Module) -> None:
        setattr(self.parent, self.name, module)


def shallow_copy(module: nn.Module) -> nn.Module:
    """A module of the same class over the same parameters and sub-modules; what is then put into it
    stays out of the original.
    """
    copy: nn.Module = module.__class__.__new__(module.__class__)
    nn.Module.__init__(copy)
    # hooks stay with the original
    private = {*copy.__dict__, "forward", "_diffusers_hook", "_hf_hook"}
    shared = {name: value for name, value in module.__dict__.items() if name not in private}
    copy.__dict__.update(shared)
    for name in ("_parameters", "_buffers", "_modules"):
        copy.__dict__[name] = dict(module.__dict__[name])
    copy._non_persistent_buffers_set = set(module._non_persistent_buffers_set)
    copy.training = module.training
    return copy


def without_parts(block: nn.Module, parts: Sequence[Part], two: bool) -> nn.Module:
    """A block without the parts given, over the same parameters. `two`: blocks of this stack return
    both streams.
    """
    block = shallow_copy(block)
    for part in parts:
        unread = unread_features(block, part)
        for path in part.modules:
            slot = own_slot(block, path)
            if slot is not None:
                slot.put(gone(slot.module, path, part, unread, two))
    lost: dict[str, list[Rows]] = {}
    for part in parts:
        for rows in part.rows:
            lost.setdefault(rows.linear, []).append(rows)
    for path, cut in lost.items():
        slot = own_slot(block, path)
        if slot is not None and isinstance(slot.module, LowRankLinear):
            slot = own_slot(block, f"{path}.up")
        if slot is not None and isinstance(slot.module, nn.Linear):
            narrow(slot, cut)
    return block


def own_slot(block: nn.Module, path: str) -> Slot | None:
    """The place of the module at `path`; modules on the way become the block's own. None where
    there is no such module.
    """
    *way, name = path.split(".")
    for step in way:
        child = block._modules.get(step)
        if child is None:
            return None
        own = shallow_copy(child)
        block._modules[step] = own
        block = own
    return Slot(block, name) if block._modules.get(name) is not None else None


def unread_features(block: nn.Module, part: Part) -> int:
    """How many features nothing reads any more: the columns that shared linears lose."""
    features = 0
    for rows in part.rows:
        if rows.dim == 1:
            weight: Any = block.get_submodule(rows.linear).weight
            of = chunk_count(weight, rows)
            features += weight.shape[1] // max(of, 1) * sum(chunk < of for chunk in rows.chunks)
    return features


def chunk_count(weight: torch.Tensor, rows: Rows) -> int:
    """Of how many chunks the weight is made along the rows' dimension."""
    return rows.of or weight.shape[rows.dim] // weight.shape[1 - rows.dim]


def gone(module: nn.Module, path: str, part: Part, unread: int, two: bool) -> nn.Module:
    """What takes a module's place. `unread`: features that nothing reads any more, so that none
    need be made.
    """
    # an output projection and its dropout, a modulation and its activation
    if isinstance(module, nn.ModuleList | nn.Sequential):
        inner = [
            gone(child, f"{path}.{index}", part, unread, two) if list(child.parameters()) else child
            for index, child in enumerate(module)
        ]
        return nn.ModuleList(inner) if isinstance(module, nn.ModuleList) else nn.Sequential(*inner)
    if isinstance(module, nn.Linear | LowRankLinear):
        return gone_linear(module, path, part, unread)
    return Gone(0 if unread and hasattr(module, "to_q") else None, two=two)


def gone_linear(linear: nn.Linear | LowRankLinear, path: str, part: Part, unread: int) -> Gone:
    """What takes a linear's place: zeros, and `open` where the part has gates of it."""
    [gates] = [rows for rows in part.gates if rows.linear == path] or [Rows(path, ())]
    of = gates.of or max(linear.out_features // linear.in_features, 1)
    width = 0 if linear.out_features == unread else linear.out_features
    return Gone(width, [chunk for chunk in gates.chunks if chunk < of], of, part.open)


def narrow(slot: Slot, cut: Sequence[Rows]) -> None:
    """Put a linear without the rows and columns in `cut` in a linear's place."""
    linear: Any = slot.module
    rows = kept_after(cut, 0, linear.weight)
    columns = kept_after(cut, 1, linear.weight)
    weight = linear.weight
    bias = linear.bias
    if rows is not None:
        weight = rows.select(weight, 0)
        bias = None if bias is None else rows.select(bias, 0)
    if columns is not None:
        weight = columns.select(weight, 1)
    padded = None if rows is None else Padded(rows, linear.out_features // max(rows.of, 1))
    parent = slot.parent
    # at the end of a Sequential the zeros can be put back by a module of their own
    last = isinstance(parent, nn.Sequential) and slot.name == str(len(parent) - 1)
    if isinstance(parent, nn.Sequential) and last and columns is None:
        slot.put(linear_of(nn.Linear, weight, bias))
        if padded is not None:
            parent.append(padded)
        return
    narrowed = linear_of(NarrowLinear, weight, bias)
    narrowed.rows = padded
    narrowed.columns = columns
    slot.put(narrowed)


def kept_after(cut: Sequence[Rows], dim: int, weight: torch.Tensor) -> Kept | None:
    """The chunks of a weight's dimension that are not cut; None where all are there."""
    along = [rows for rows in cut if rows.dim == dim]
    if not along:
        return None
    of = chunk_count(weight, along[0])
    lost = {chunk for rows in along for chunk in rows.chunks}
    return Kept(tuple(index for index in range(of) if index not in lost), of)


def linear_of(cls: type[nn.Linear], weight: torch.Tensor, bias: torch.Tensor | None) -> Any:
    """A linear of class `cls` over this weight (out, in) and bias."""
    linear: Any = cls.__new__(cls)
    nn.Module.__init__(linear)
    linear.weight = nn.Parameter(weight.detach(), weight.requires_grad)
    linear.bias = None if bias is None else nn.Parameter(bias.detach(), bias.requires_grad)
    linear.out_features, linear.in_features = weight.shape
    return linear


def remove_parts(
    model: nn.Module,
    removed: Mapping[str, Sequence[str]],
    tables: Mapping[str, Mapping[str, Part]],
    single: Sequence[int],
    two: Mapping[str, bool],
) -> None:
    """Take parts out of a model's blocks.

    removed: "<stack>.<block>" -> names of parts. tables: stack -> part -> what it is; those of
    blocks in `single` are under "<stack> single".
    """
    for place, names in removed.items():
        stack, index = place.rsplit(".", 1)
        table = tables[stack]
        if int(index) in single and f"{stack} single" in tables:
            table = tables[f"{stack} single"]
        blocks: Any = model.get_submodule(stack)
        parts = [table[name] for name in names]
        blocks[int(index)] = without_parts(blocks[int(index)], parts, two[stack])
