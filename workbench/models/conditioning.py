"""The conditioning vectors that a model's modulation linears see (docs/modulation.md).

Where they depend on the timestep alone, the weights outside the blocks give all of them: the stock
class is built with one block a stack and no weights in it, its own forward runs on the smallest
input, and stops where the first modulation linear would run. Elsewhere they are recorded from calls.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from .. import students
from ..families import Family, by_class
from ..plugins.registry import imported
from ..records import BadInput, check_regular, draft_of
from ..students.modulation_fit import Basis
from .access import blocks_of, config_of, family_of, quiet
from .checkpoints import Reader
from .folders import CUSTOM, read_config, transformer_folder

STEPS = 1000  # of training, in every family here: timesteps 0..1000
# The last step of Qwen-Image's sampler (`shift_terminal`), where the curve turns fastest and a low
# rank cost most; a tenth of the weight there made every error measured smaller (docs/log.md).
LAST_STEP, LAST_STEP_SHARE = 20, 0.1
KEY = "conditioning"  # of the one tensor in a file of recorded vectors
NOT_ARGUMENTS = (*CUSTOM, "auto_map", "_class_name", "_name_or_path", "quantization_config")

Vectors = torch.Tensor  # (T, d)
_BASES: WeakKeyDictionary[nn.Module, Basis] = WeakKeyDictionary()
_GIVEN: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()  # digests of given vectors


class Reached(Exception):
    """The first modulation linear was reached: nothing behind it is needed."""


def needs_recording(family: Family, config: Mapping[str, Any]) -> str:
    """What the vectors depend on beside the timestep, in words; empty where on nothing."""
    assert family.conditioning is not None, family.name
    if family.conditioning.is_curve(config):
        return ""
    return ", ".join(family.conditioning.of(config)[1:])


# --- the curve of the timestep --------------------------------------------------------------------


def basis_of_folder(folder: Path | str, vectors: Path | str | None = None) -> Basis:
    """The basis of a checkpoint's conditioning vectors: those of a file, or the curve over all
    timesteps. Only weights outside the blocks are read.

    Raises BadInput where the vectors depend on more than the timestep and no file is given.
    """
    folder = transformer_folder(folder)
    config = read_config(folder / "config.json")
    family = by_class(str(config["_class_name"]))
    if vectors is not None:
        return Basis(load_vectors(vectors))
    check_curve(family, config, str(folder))
    stacks = tuple(f"{row.path}." for row in family.stacks)
    with Reader(folder) as reader:
        outside = {}
        for name in reader.tensors:
            if not name.startswith(stacks):
                outside[name] = reader.tensor(name)
    return Basis(curve(family, config, outside), curve_weights())


def basis_of_module(transformer: nn.Module) -> Basis:
    """The basis of a loaded transformer's conditioning vectors: those that `use_vectors` gave, or
    the curve over all timesteps; kept while the transformer lives.

    Raises BadInput where the vectors depend on more than the timestep and none were given.
    """
    if transformer not in _BASES:
        family = family_of(transformer)
        config = config_of(transformer)
        check_curve(family, config, type(transformer).__name__)
        stacks = tuple(f"{path}." for path in blocks_of(transformer))
        outside = {
            name: tensor.cpu()
            for name, tensor in transformer.state_dict().items()
            if not name.startswith(stacks)
        }
        _BASES[transformer] = Basis(curve(family, config, outside), curve_weights())
    return _BASES[transformer]


def use_vectors(transformer: nn.Module, vectors: torch.Tensor) -> None:
    """Factor this transformer's modulation on recorded vectors (T, d) from now on."""
    digest = hashlib.sha256(vectors.double().cpu().numpy().tobytes()).hexdigest()
    if given_vectors(transformer) != digest:
        _BASES[transformer] = Basis(vectors)
        _GIVEN[transformer] = digest


def forget_vectors(transformer: nn.Module) -> None:
    """Take back what `use_vectors` gave; the curve of a timestep alone stays."""
    if _GIVEN.pop(transformer, None) is not None:
        del _BASES[transformer]


def given_vectors(transformer: nn.Module) -> str:
    """A digest of the vectors that `use_vectors` gave; empty where none were given."""
    return _GIVEN.get(transformer, "")


def check_curve(family: Family, config: Mapping[str, Any], where: str) -> None:
    """Raises BadInput where the conditioning vectors do not depend on the timestep alone."""
    if family.conditioning is None:
        raise BadInput(
            f"the modulation of {where}",
            "a family whose blocks have modulation linears of their own",
            "leave its rank out",
        )
    more = needs_recording(family, config)
    if more:
        raise BadInput(
            f"the conditioning of {where} depends on the timestep and {more}",
            "recorded conditioning vectors",
            "run `workbench profile TEACHER` with prompts, which writes a file of them, and pass "
            "it as --conditioning FILE",
        )


def curve(
    family: Family,
    config: Mapping[str, Any],
    outside: Mapping[str, torch.Tensor],
    timesteps: torch.Tensor | None = None,
) -> torch.Tensor:
    """The conditioning vectors (T, d) in float32 at timesteps (T,) of the scheduler; None: at 0, 1,
    .. 1000.

    outside: the tensors outside the blocks.
    """
    conditioning = family.conditioning
    assert conditioning is not None
    if timesteps is None:
        timesteps = torch.arange(STEPS + 1, dtype=torch.float32)
    model = hollow_model(family, config, outside)
    arguments = imported(conditioning.arguments)(
        model.config, timesteps * (conditioning.scale / STEPS)
    )
    with seen_vectors(model, stop=True) as seen, torch.no_grad(), suppress(Reached):
        model(**arguments)
    return seen[0]


def curve_weights() -> torch.Tensor:
    """(1001,): how much each timestep counts when a basis of the curve is chosen; sum 1."""
    weights = torch.full((STEPS + 1,), (1 - LAST_STEP_SHARE) / (STEPS + 1), dtype=torch.float64)
    weights[LAST_STEP] += LAST_STEP_SHARE
    return weights


def hollow_model(
    family: Family, config: Mapping[str, Any], outside: Mapping[str, torch.Tensor]
) -> Any:
    """The stock class with one block a stack, without weights in the blocks, in float32."""
    shallow = {row.depth_key: 1 for row in family.stacks}
    per_index = {key for row in family.stacks for key in row.per_index}
    plain = {
        key: value
        for key, value in config.items()
        if key not in NOT_ARGUMENTS and key not in per_index
    }
    with init_empty_weights(include_buffers=False), quiet():
        model = students.stock_class(family).from_config(plain | shallow)
    floats = {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in outside.items()
    }
    model.load_state_dict(floats, strict=False, assign=True)
    return model.eval()


@contextmanager
def seen_vectors(transformer: nn.Module, stop: bool = False) -> Iterator[list[torch.Tensor]]:
    """What the first modulation linear takes (B, d), forward by forward, in float32 on the CPU.

    stop: end the forward there, with `Reached`.
    """
    seen: list[torch.Tensor] = []

    def before(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        seen.append(args[0].detach().float().cpu().reshape(-1, args[0].shape[-1]))
        if stop:
            raise Reached

    handle = first_modulation(transformer).register_forward_pre_hook(before)
    try:
        yield seen
    finally:
        handle.remove()


def first_modulation(transformer: nn.Module) -> nn.Module:
    """The first modulation linear that runs. All get the same vectors."""
    family = family_of(transformer)
    for row in family.stacks:
        for block in transformer.get_submodule(row.path).children():
            for linear in row.modulation:
                try:
                    return block.get_submodule(linear)
                except AttributeError:
                    continue
    raise BadInput(
        f"no modulation linear in {type(transformer).__name__}",
        "blocks with modulation linears of their own",
        "choose another teacher",
    )


# --- recorded vectors -----------------------------------------------------------------------------


def distinct(seen: Sequence[Vectors]) -> Vectors:
    """The vectors of several forwards (B, d), each once: (T, d)."""
    return torch.unique(torch.cat(list(seen)), dim=0)


def save_vectors(vectors: torch.Tensor, path: Path | str) -> Path:
    """Write conditioning vectors (T, d) as a safetensors file of one tensor."""
    path = Path(path)
    with draft_of(path) as draft:
        save_file({KEY: vectors.contiguous()}, draft)
    return path


def load_vectors(path: Path | str) -> torch.Tensor:
    """The vectors of a file that `save_vectors` wrote. Raises BadInput for any other file."""
    check_regular(Path(path), "conditioning vectors")
    try:
        with safe_open(Path(path), "pt") as file:
            vectors: torch.Tensor = file.get_tensor(KEY)
    except (OSError, SafetensorError) as error:
        raise BadInput(
            f"{path} holds no conditioning vectors ({type(error).__name__}: {str(error)[:80]})",
            "a file that `workbench profile` wrote beside a map",
            "profile the teacher again",
        ) from None
    if vectors.ndim != 2 or len(vectors) < 2 or not vectors.isfinite().all():
        raise BadInput(
            f"{path} holds a tensor of {list(vectors.shape)}",
            "at least two finite vectors (T, d)",
            "profile the teacher again",
        )
    return vectors
