"""Blocks without some of their parts: what is gone takes no memory and, where the block allows it,
no time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn


class Rows(NamedTuple):
    """Some chunks of a linear's rows (dim 0) or columns (dim 1), out of `of` equal ones; `of` None:
    as many as the long side has of the short one."""

    linear: str
    chunks: tuple[int, ...]
    of: int | None = None
    dim: int = 0


class Part(NamedTuple):
    """A removable piece of a block: modules that go whole, and rows of linears it shares with other
    parts.

    `gates` are rows of a modulation that answer `open` when the modulation is gone; all its other
    rows answer 0.
    """

    modules: tuple[str, ...] = ()
    rows: tuple[Rows, ...] = ()
    gates: tuple[Rows, ...] = ()
    open: float = 1.0


class Gone(nn.Module):
    """What stands where a module was removed. It has no parameters and contributes nothing.

    width: features of its answer (None: as its input has). gates, of, open: chunks of the answer
    that are `open` instead of 0. two: it answers for both streams when it is given both.
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
        self.width, self.gates, self.of, self.open, self.two = width, tuple(gates), of, open, two

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
        out = like.new_zeros(*like.shape[:-1], like.shape[-1] if self.width is None else self.width)
        for index in self.gates:
            out.chunk(self.of, dim=-1)[index].fill_(self.open)
        return out


class Padded(nn.Module):
    """Puts zeros where rows of the linear before it were removed: chunks of `width` features, of
    which `kept` are there.
    """

    def __init__(self, kept: Sequence[int], of: int, width: int) -> None:
        super().__init__()
        self.kept, self.of, self.width = tuple(kept), of, width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        empty = x.new_zeros(*x.shape[:-1], self.width)
        pieces = dict(zip(self.kept, x.split(self.width, dim=-1), strict=False))
        return torch.cat([pieces.get(index, empty) for index in range(self.of)], dim=-1)


class NarrowLinear(nn.Linear):
    """A linear that lost rows or columns inside a block that knows it whole: it takes the whole
    input and gives the whole output.
    """

    rows: Any  # Padded, or None
    columns: Any  # kept chunks and of how many, or None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.columns is not None and x.shape[-1] != self.in_features:
            kept, of = self.columns
            pieces = x.chunk(of, dim=-1)
            x = torch.cat([x[..., :0], *(pieces[index] for index in kept)], dim=-1)
        x = super().forward(x)
        return x if self.rows is None else self.rows(x)


def twin(module: nn.Module) -> nn.Module:
    """A module of the same class over the same parameters and sub-modules; what is then put into it
    stays out of the original.
    """
    copy: nn.Module = module.__class__.__new__(module.__class__)
    nn.Module.__init__(copy)
    # hooks stay with the original
    private = {*copy.__dict__, "forward", "_diffusers_hook", "_hf_hook"}
    copy.__dict__.update(
        {name: value for name, value in module.__dict__.items() if name not in private}
    )
    for name in ("_parameters", "_buffers", "_modules"):
        copy.__dict__[name] = dict(module.__dict__[name])
    copy._non_persistent_buffers_set = set(module._non_persistent_buffers_set)
    copy.training = module.training
    return copy


def without_parts(block: nn.Module, parts: Sequence[Part], two: bool) -> nn.Module:
    """A block without the parts given, over the same parameters. `two`: blocks of this stack return
    both streams.
    """
    block = twin(block)
    for part in parts:
        unread = sum(_width(block, rows) for rows in part.rows if rows.dim == 1)
        for path in part.modules:
            place = _own(block, path)
            if place is not None:
                setattr(*place, _gone(getattr(*place), path, part, unread, two))
    lost: dict[str, list[Rows]] = {}
    for rows in (rows for part in parts for rows in part.rows):
        lost.setdefault(rows.linear, []).append(rows)
    for path, rows_of in lost.items():
        place = _own(block, path)
        if place is not None and isinstance(getattr(*place), nn.Linear):
            _narrow(*place, rows_of)
    return block


def _own(block: nn.Module, path: str) -> tuple[nn.Module, str] | None:
    """The module that holds `path`, and the last name in it; modules on the way become the block's
    own. None where there is none.
    """
    *way, name = path.split(".")
    for step in way:
        child = block._modules.get(step)
        if child is None:
            return None
        block._modules[step] = block = twin(child)
    return (block, name) if block._modules.get(name) is not None else None


def _width(block: nn.Module, rows: Rows) -> int:
    """How many features the rows or columns are."""
    weight: Any = block.get_submodule(rows.linear).weight
    of = rows.of or weight.shape[rows.dim] // weight.shape[1 - rows.dim]
    return weight.shape[rows.dim] // max(of, 1) * sum(chunk < of for chunk in rows.chunks)


def _gone(module: nn.Module, path: str, part: Part, unread: int, two: bool) -> nn.Module:
    """What takes a module's place. `unread`: features that nothing reads any more, so that none
    need be made.
    """
    # an output projection and its dropout, a modulation and its activation
    if isinstance(module, nn.ModuleList | nn.Sequential):
        inner = [
            _gone(child, f"{path}.{index}", part, unread, two)
            if list(child.parameters())
            else child
            for index, child in enumerate(module)
        ]
        return nn.ModuleList(inner) if isinstance(module, nn.ModuleList) else nn.Sequential(*inner)
    if isinstance(module, nn.Linear):
        [gates] = [rows for rows in part.gates if rows.linear == path] or [Rows(path, ())]
        of = gates.of or max(module.out_features // module.in_features, 1)
        width = 0 if module.out_features == unread else module.out_features
        return Gone(width, [chunk for chunk in gates.chunks if chunk < of], of, part.open)
    return Gone(0 if unread and hasattr(module, "to_q") else None, two=two)


def _narrow(parent: nn.Module, name: str, lost: Sequence[Rows]) -> None:
    """Put a linear without the rows and columns in `lost` in the place of `parent`'s."""
    linear: Any = getattr(parent, name)
    weight, bias, kept = linear.weight, linear.bias, {}
    for dim in (0, 1):
        mine = [rows for rows in lost if rows.dim == dim]
        of = (mine[0].of or linear.weight.shape[dim] // linear.weight.shape[1 - dim]) if mine else 1
        kept[dim] = (
            tuple(index for index in range(of) if not any(index in rows.chunks for rows in mine)),
            of,
        )
        weight = _chosen(weight, *kept[dim], dim)
        bias = _chosen(bias, *kept[dim], 0) if dim == 0 and bias is not None else bias
    inside = (
        isinstance(parent, nn.Sequential)
        and name == str(len(parent) - 1)
        and not any(rows.dim == 1 for rows in lost)
    )
    narrow: Any = (nn.Linear if inside else NarrowLinear).__new__(
        nn.Linear if inside else NarrowLinear
    )
    nn.Module.__init__(narrow)
    narrow.weight = nn.Parameter(weight.detach(), weight.requires_grad)
    narrow.bias = None if bias is None else nn.Parameter(bias.detach(), bias.requires_grad)
    narrow.out_features, narrow.in_features = weight.shape
    padded = (
        Padded(*kept[0], linear.out_features // max(kept[0][1], 1))
        if any(rows.dim == 0 for rows in lost)
        else None
    )
    setattr(parent, name, narrow)
    if isinstance(parent, nn.Sequential) and inside and padded is not None:
        parent.append(padded)
    else:
        narrow.rows = padded
        narrow.columns = kept[1] if any(rows.dim == 1 for rows in lost) else None


def _chosen(tensor: torch.Tensor, kept: Sequence[int], of: int, dim: int) -> torch.Tensor:
    """The chunks kept, as a view where they lie together."""
    width = tensor.shape[dim] // of
    if list(kept) == list(range(of)):
        return tensor
    if kept and list(kept) == list(range(kept[0], kept[-1] + 1)):
        return tensor.narrow(dim, kept[0] * width, len(kept) * width)
    return torch.cat(
        [tensor.narrow(dim, index * width, width) for index in kept] or [tensor.narrow(dim, 0, 0)],
        dim,
    )


def remove_parts(
    model: nn.Module,
    removed: Mapping[str, Sequence[str]],
    tables: Mapping[str, Mapping[str, Part]],
    single: Sequence[int],
    two: Mapping[str, bool],
) -> None:
    """Take parts out of a model's blocks. `removed`: "<stack>.<block>" -> parts; `tables`: stack ->
    part -> what it is.
    """
    for place, names in removed.items():
        stack, index = place.rsplit(".", 1)
        table = tables[
            f"{stack} single" if int(index) in single and f"{stack} single" in tables else stack
        ]
        blocks: Any = model.get_submodule(stack)
        gone = [table[name] for name in names]
        blocks[int(index)] = without_parts(blocks[int(index)], gone, two[stack])
