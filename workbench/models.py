"""Teachers as diffusers models: describe them from headers, load them, run their own sampler, record its trajectory."""

from __future__ import annotations

import inspect
import json
import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import diffusers
import torch
import transformers
from diffusers import DiffusionPipeline
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from . import checkpoints
from .families import FAMILIES, Family, by_class
from .records import BadInput, Card, StackInfo, Stream, Teacher, numel, read_text

if TYPE_CHECKING:
    from PIL import Image

Shapes = dict[str, list[int]]
Pipeline = Any  # a DiffusionPipeline: its components are attributes that no type checker sees
SHORT_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


# --- describing ----------------------------------------------------------------------------------------------------


def describe(path: Path | str, name: str) -> Teacher:
    """What a pipeline folder, a transformer folder or a lone config.json holds; no weights are loaded.

    Of a folder the safetensors headers are read and checked against the config; a config.json alone is built on the
    meta device. Raises BadInput for anything else, and for headers that the config contradicts.
    """
    path = Path(path)
    if path.is_file():
        config = read_config(path)
        return _teacher(name, config, _meta_shapes(config, path), "bfloat16", "")
    folder = transformer_folder(path)
    config = read_config(folder / "config.json")
    tensors = checkpoints.headers(folder)
    shapes = {key: list(info.shape) for key, info in tensors.items()}
    _check_depth(shapes, config, folder)
    _check_shapes(shapes, _meta_shapes(config, folder / "config.json"), folder)
    bytes_of: Counter[str] = Counter()
    for info in tensors.values():
        bytes_of[info.dtype] += info.bytes
    dtype = str(checkpoints.DTYPES[bytes_of.most_common(1)[0][0]]).removeprefix("torch.")
    return _teacher(name, config, shapes, dtype, checkpoints.fingerprint(folder))


def describe_module(transformer: nn.Module, name: str = "a loaded transformer") -> Teacher:
    """The same of a transformer in memory, without a fingerprint."""
    shapes = {key: list(tensor.shape) for key, tensor in transformer.state_dict().items()}
    config = {**config_of(transformer), "_class_name": family_of(transformer).transformer}
    return _teacher(name, config, shapes, str(next(transformer.parameters()).dtype).removeprefix("torch."), "")


def read_config(path: Path) -> dict[str, Any]:
    """A transformer's config.json, with its class name."""
    try:
        config = json.loads(read_text(path, "config"))
    except json.JSONDecodeError as error:
        raise BadInput(f"{path} is not JSON (line {error.lineno}: {error.msg})", "a diffusers config.json", "mend it") from None
    if not isinstance(config, dict) or not isinstance(config.get("_class_name"), str):
        raise BadInput(f"{path} names no _class_name", "the config.json of a diffusers transformer", "point to the transformer's config")
    return config


def transformer_folder(path: Path | str) -> Path:
    """The folder that holds the transformer's config and weights: `path/transformer` of a pipeline, or `path` itself."""
    path = Path(path)
    if not path.exists():
        raise BadInput(f"{path} does not exist", "a pipeline or transformer folder", "check the path")
    for folder, mark in ((path / "transformer", path / "model_index.json"), (path, path / "config.json")):
        if mark.is_file():
            if not (folder / "config.json").is_file():
                raise BadInput(f"{path} is a pipeline without transformer/config.json", "a diffusion transformer pipeline",
                               "use a DiT pipeline (U-Net pipelines have no stack of blocks)")
            return folder
    raise BadInput(f"{path} has neither model_index.json nor config.json", "a diffusers pipeline or transformer folder",
                   "point to the folder that has one")


def is_pipeline(path: Path | str) -> bool:
    return (Path(path) / "model_index.json").is_file()


def _meta_shapes(config: Mapping[str, Any], path: Path) -> Shapes:
    """Names and shapes of the tensors a config describes, built on the meta device: no memory."""
    family = by_class(str(config["_class_name"]))
    try:
        with torch.device("meta"), quiet():
            model = getattr(diffusers, family.transformer).from_config(dict(config))
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError, AssertionError) as error:
        raise BadInput(f"{path} does not build a {family.transformer} ({str(error)[:120]})", "a sound config", "mend it") from None
    return {key: list(tensor.shape) for key, tensor in model.state_dict().items()}


def _check_depth(shapes: Shapes, config: Mapping[str, Any], folder: Path) -> None:
    family = by_class(str(config["_class_name"]))
    defaults = inspect.signature(getattr(diffusers, family.transformer).__init__).parameters
    for row in family.stacks:
        depth = config.get(row.depth_key, defaults[row.depth_key].default)
        held = len(_blocks(shapes, row.path))
        if held != depth:
            raise BadInput(f"{folder} holds {held} blocks in {row.path}", f"{depth}, by {row.depth_key} of its config.json",
                           f"set {row.depth_key} to {held}, or copy the missing shards")


def _check_shapes(shapes: Shapes, expected: Shapes, folder: Path) -> None:
    for name, shape in expected.items():
        if name not in shapes:
            raise BadInput(f"{folder} lacks tensor {name}", "every tensor its config.json asks for", "copy the whole checkpoint")
        if shapes[name] != shape:
            raise BadInput(f"{folder}: tensor {name} is {shapes[name]}", f"{shape}, by its config.json", "use the config of these weights")


def _blocks(shapes: Shapes, path: str) -> dict[int, Shapes]:
    """Block number -> tensors inside, for names `<path>.<i>.<rest>`."""
    pattern = re.compile(re.escape(path) + r"\.(\d+)\.(.+)")
    out: dict[int, Shapes] = {}
    for name, shape in shapes.items():
        if match := pattern.fullmatch(name):
            out.setdefault(int(match[1]), {})[match[2]] = shape
    return dict(sorted(out.items()))


def _teacher(name: str, config: Mapping[str, Any], shapes: Shapes, dtype: str, fingerprint: str) -> Teacher:
    family = by_class(str(config["_class_name"]))
    stacks, inside = [], 0
    for row in family.stacks:
        layouts: list[Shapes] = []
        layout_of = []
        for tensors in _blocks(shapes, row.path).values():
            if tensors not in layouts:
                layouts.append(tensors)
            layout_of.append(layouts.index(tensors))
            inside += sum(numel(shape) for shape in tensors.values())
        stacks.append(StackInfo(path=row.path, kind=cast(Stream, row.kind), layouts=layouts, layout_of=layout_of))
    return Teacher(name=name, family=family.name, class_name=family.transformer, stacks=stacks, dtype=dtype,
                   outside=sum(numel(shape) for shape in shapes.values()) - inside, fingerprint=fingerprint, config=dict(config))


# --- loading -------------------------------------------------------------------------------------------------------


def load_pipeline(path: Path | str, *, device: str = "cpu", dtype: str | torch.dtype | None = None) -> Pipeline:
    """A pipeline folder, ready to sample, without progress bars; nothing is fetched from a network.

    One dtype for all components; None means float32 on a CPU and the transformer's stored dtype elsewhere. Custom code
    in the folder runs only where its card.json says that the workbench wrote it (`stock: false`).
    """
    path = Path(path)
    if not is_pipeline(path):
        raise BadInput(f"{path} has no model_index.json", "a pipeline folder", "point to a pipeline, not to its transformer alone")
    folder = transformer_folder(path)
    wanted = _dtype(folder, device, dtype)
    with quiet():
        pipe = DiffusionPipeline.from_pretrained(path, dtype=wanted, local_files_only=True, trust_remote_code=_ours(path))
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def load_transformer(path: Path | str, *, device: str = "cpu", dtype: str | torch.dtype | None = None) -> ModelMixin:
    """The transformer of a pipeline or transformer folder, in eval mode. `dtype` as in load_pipeline."""
    folder = transformer_folder(path)
    wanted = _dtype(folder, device, dtype)
    stock = getattr(diffusers, str(read_config(folder / "config.json")["_class_name"]), None)
    with quiet():
        if stock is None:
            trust = _ours(Path(path))
            model = diffusers.AutoModel.from_pretrained(folder, dtype=wanted, local_files_only=True, trust_remote_code=trust)
        else:
            model = stock.from_pretrained(folder, dtype=wanted, local_files_only=True)
    return model.to(device).eval()


def _dtype(folder: Path, device: str, dtype: str | torch.dtype | None) -> torch.dtype:
    """The dtype to load in. Reads the headers, so that a broken file is named before torch stumbles over it."""
    tensors = checkpoints.headers(folder)
    if dtype is not None:
        return parse_dtype(dtype)
    return torch.float32 if str(device) == "cpu" else max(tensors.values(), key=lambda info: info.bytes).torch_dtype


def parse_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """bf16, fp16, fp32, or torch's own names."""
    found = dtype if isinstance(dtype, torch.dtype) else SHORT_DTYPES.get(dtype) or getattr(torch, dtype, None)
    if not isinstance(found, torch.dtype):
        raise BadInput(f"dtype {dtype!r}", "bf16, fp16, fp32 or a torch dtype", "choose one")
    return found


def _ours(path: Path) -> bool:
    card = path / "card.json"
    return card.is_file() and not Card.load(card).stock


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no chatter from diffusers and transformers while loading."""
    bars = diffusers.utils.logging, transformers.utils.logging
    levels = [logger.get_verbosity() for logger in bars]
    shown = [logger.is_progress_bar_enabled() for logger in bars]
    for logger in bars:
        logger.disable_progress_bar()
        logger.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        for logger, level, on in zip(bars, levels, shown, strict=True):
            logger.set_verbosity(level)
            if on:
                logger.enable_progress_bar()


# --- parts of a loaded model ---------------------------------------------------------------------------------------


def transformer_of(model: Pipeline | nn.Module) -> nn.Module:
    """The transformer of a pipeline, or the transformer itself."""
    return model if isinstance(model, nn.Module) else model.transformer


def config_of(transformer: nn.Module) -> dict[str, Any]:
    """The config a loaded transformer was built from."""
    return dict(cast(Any, transformer).config)


def family_of(transformer: nn.Module) -> Family:
    """The row of the families table for a loaded transformer; subclasses count as their stock class."""
    for cls in type(transformer).__mro__:
        for family in FAMILIES.values():
            if family.transformer == cls.__name__:
                return family
    return by_class(type(transformer).__name__)  # raises, with the reason


def blocks_of(transformer: nn.Module) -> dict[str, nn.ModuleList]:
    """Stack path -> its ModuleList, in the order of the families table."""
    out = {}
    for row in family_of(transformer).stacks:
        stack = transformer.get_submodule(row.path)
        assert isinstance(stack, nn.ModuleList)
        out[row.path] = stack
    return out


def prediction(output: Any) -> torch.Tensor:
    """The tensor a transformer's forward returns, with return_dict or without."""
    value = output[0] if isinstance(output, tuple) else getattr(output, "sample", output)
    return torch.stack(list(value)) if isinstance(value, list) else value  # (B, N, D)


# --- sampling ------------------------------------------------------------------------------------------------------


@dataclass
class Call:
    """One forward of the transformer as the sampler made it."""

    kwargs: dict[str, Any]
    timestep: float  # scheduler units: 1000 is pure noise, 0 the finished picture
    group: int  # which batch of prompts
    samples: int
    branch: str  # cond | uncond


def generate(pipe: Pipeline, prompts: Sequence[str], *, seeds: Sequence[int], steps: int, guidance: float, size: int,
             negative: str = " ", batch: int = 8) -> Iterator[list[Image.Image]]:
    """Sample one picture per (prompt, seed) pair with the pipeline's own sampler; yields a list per batch.

    Every picture has a generator of its own, seeded with its seed: batches change a picture by rounding only.
    `size` is the side in pixels. Guidance 1 or less is sampled without a negative branch.
    """
    for group in _groups(prompts, seeds, batch):
        yield pipe(**_arguments(pipe, group, steps, guidance, negative, size), output_type="pil").images


def trajectories(pipe: Pipeline, prompts: Sequence[str], *, seeds: Sequence[int], steps: int, guidance: float, size: int,
                 negative: str = " ", timesteps: int | None = None, batch: int = 8) -> Iterator[Call]:
    """Sample as `generate` does, one seed per prompt, and yield the transformer's inputs at evenly chosen steps.

    `timesteps` steps are kept, the first and the last among them (None: all). Within a step the conditional call comes
    first. Tensors are detached copies on the model's device.
    """
    kept = chosen_steps(steps, timesteps)
    for number, group in enumerate(_groups(prompts, seeds, batch)):
        with _recorded(pipe, number, len(group), kept) as calls:
            pipe(**_arguments(pipe, group, steps, guidance, negative, size), output_type="latent")
        yield from calls


def chosen_steps(steps: int, count: int | None) -> list[int]:
    """`count` of the sampler's steps, evenly, with both ends; the middle one where count is 1."""
    if count is None or count >= steps:
        return list(range(steps))
    if count < 1:
        raise BadInput(f"{count} timesteps", "at least 1", "raise --timesteps")
    return [steps // 2] if count == 1 else [round(i * (steps - 1) / (count - 1)) for i in range(count)]


def _groups(prompts: Sequence[str], seeds: Sequence[int], batch: int) -> Iterator[list[tuple[str, int]]]:
    if not prompts or len(prompts) != len(seeds):
        raise BadInput(f"{len(prompts)} prompts and {len(seeds)} seeds", "one seed per prompt, at least one prompt",
                       "repeat the prompts for more seeds")
    pairs = list(zip(prompts, seeds, strict=True))
    for start in range(0, len(pairs), max(batch, 1)):
        yield pairs[start: start + max(batch, 1)]


def _arguments(pipe: Pipeline, group: list[tuple[str, int]], steps: int, guidance: float, negative: str,
               size: int) -> dict[str, Any]:
    """What to call the pipeline with; the name of the guidance argument comes from the families table."""
    family = family_of(pipe.transformer)
    unit = 2 * getattr(pipe, "vae_scale_factor", 8)
    if steps < 1 or size < 1 or size % unit:
        raise BadInput(f"{steps} steps at {size} pixels", f"at least 1 step, a multiple of {unit} pixels", "change steps or size")
    arguments: dict[str, Any] = {
        "prompt": [prompt for prompt, _ in group],
        "height": size, "width": size, "num_inference_steps": steps,
        "generator": [torch.Generator().manual_seed(seed) for _, seed in group],
        family.guidance: guidance if guidance > 1 or not family.negative else 1.0,
    }
    if family.negative and guidance > 1:
        arguments["negative_prompt"] = [negative] * len(group)
    return arguments


@contextmanager
def _recorded(pipe: Pipeline, group: int, samples: int, kept: Sequence[int]) -> Iterator[list[Call]]:
    """Record the transformer's inputs while the pipeline samples.

    The scheduler's `step` ends a sampling step and knows its timestep, in every pipeline; so a call gets its timestep
    from the step that consumes it.
    """
    calls: list[Call] = []
    pending: list[dict[str, Any]] = []
    count = 0
    step = pipe.scheduler.step

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if count in kept:
            pending.append(_detached({**dict(zip(names, args, strict=False)), **kwargs}))

    def stepped(model_output: Any, timestep: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal count
        for kwargs_of, branch in zip(pending, ("cond", "uncond"), strict=False):
            calls.append(Call(kwargs_of, float(timestep), group, samples, branch))
        pending.clear()
        count += 1
        return step(model_output, timestep, *args, **kwargs)

    names = list(inspect.signature(pipe.transformer.forward).parameters)
    handle = pipe.transformer.register_forward_pre_hook(before, with_kwargs=True)
    pipe.scheduler.step = stepped
    try:
        yield calls
    finally:
        handle.remove()
        del pipe.scheduler.step


def _detached(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _detached(item) for key, item in value.items()}
    return [_detached(item) for item in value] if isinstance(value, list) else value


def placed(value: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """Recorded inputs on a device, floating tensors in a dtype."""
    if isinstance(value, torch.Tensor):
        return value.to(device, dtype if value.is_floating_point() else value.dtype)
    if isinstance(value, dict):
        return {key: placed(item, device, dtype) for key, item in value.items()}
    return [placed(item, device, dtype) for item in value] if isinstance(value, list) else value
