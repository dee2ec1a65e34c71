"""Run a teacher's own sampler: pictures, and the transformer's inputs along the way."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..families import FAMILIES, Family
from ..records import BadInput
from ..records.picture_size import Size, sides
from .access import Pipeline, family_of
from .text_limits import note_cut

if TYPE_CHECKING:
    from PIL import Image

BRANCHES = ("cond", "uncond")  # in the order in which pipelines that call twice run them


@dataclass
class Call:
    """One forward of the transformer as the sampler made it."""

    kwargs: dict[str, Any]
    timestep: float  # scheduler units: 1000 is pure noise, 0 the finished picture
    group: int  # which batch of prompts
    samples: int
    branch: str  # cond | uncond
    # of each sample, empty where they are not known: seeds of one prompt belong together
    prompts: tuple[str, ...] = ()


def generate(
    pipe: Pipeline,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    steps: int,
    guidance: float,
    size: Size,
    negative: str = " ",
    batch: int = 8,
) -> Iterator[list[Image.Image]]:
    """Sample one picture per (prompt, seed) pair with the pipeline's own sampler; yields a list per
    batch. A video counts as its middle frame.

    Every picture has a generator of its own, seeded with its seed: batches change a picture by
    rounding only. `size` is a square's side in pixels, or "WIDTHxHEIGHT". Guidance 1 or less is
    sampled without a negative branch. Raises BadInput for a family whose sampler is not driven, and
    for impossible sizes.
    """
    note_cut(pipe, prompts)
    for group in batches(prompts, seeds, batch):
        arguments = call_arguments(pipe, group, steps, guidance, negative, size)
        yield pictures_of(pipe(**arguments, output_type="pil"))


def trajectories(
    pipe: Pipeline,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    steps: int,
    guidance: float,
    size: Size,
    negative: str = " ",
    timesteps: int | None = None,
    batch: int = 8,
    shard: tuple[int, int] = (0, 1),
) -> Iterator[Call]:
    """Sample as `generate` does, one seed per prompt, and yield the transformer's inputs at evenly
    chosen steps.

    `timesteps` steps are recorded, the first and the last among them (None: all). Within a step the
    conditional call comes first. Tensors are detached copies on the model's device. `shard` (i, n):
    only batches i, i + n, i + 2n .. are sampled.
    """
    chosen = chosen_steps(steps, timesteps)
    family = family_of(pipe.transformer)
    halves = family.batched if is_guided(family, guidance) else ()
    first, stride = shard
    note_cut(pipe, prompts)
    for number, group in enumerate(batches(prompts, seeds, batch)):
        if number % stride == first:
            arguments = call_arguments(pipe, group, steps, guidance, negative, size)
            with recorded_calls(pipe, number, len(group), chosen, halves) as calls:
                pipe(**arguments, output_type="latent")
            captions = tuple(prompt for prompt, _ in group)
            yield from (replace(call, prompts=captions) for call in calls)


def pictures_of(output: Any) -> list[Image.Image]:
    """A picture per sample of a pipeline's output: of a video its middle frame."""
    if hasattr(output, "images"):
        return list(output.images)
    return [frames[len(frames) // 2] for frames in output.frames]


def chosen_steps(steps: int, count: int | None) -> list[int]:
    """`count` of the sampler's steps, evenly, with both ends; the middle one where count is 1."""
    if count is None or count >= steps:
        return list(range(steps))
    if count < 1:
        raise BadInput(f"{count} timesteps", "at least 1", "raise --timesteps")
    if count == 1:
        return [steps // 2]
    return [round(i * (steps - 1) / (count - 1)) for i in range(count)]


def batches(
    prompts: Sequence[str], seeds: Sequence[int], size: int
) -> Iterator[list[tuple[str, int]]]:
    """(prompt, seed) pairs, `size` at a time. Raises BadInput unless each prompt has a seed."""
    if not prompts or len(prompts) != len(seeds):
        raise BadInput(
            f"{len(prompts)} prompts and {len(seeds)} seeds",
            "one seed per prompt, at least one prompt",
            "repeat the prompts for more seeds",
        )
    pairs = list(zip(prompts, seeds, strict=True))
    size = max(size, 1)
    for start in range(0, len(pairs), size):
        yield pairs[start : start + size]


def call_arguments(
    pipe: Pipeline,
    group: Sequence[tuple[str, int]],
    steps: int,
    guidance: float,
    negative: str,
    size: Size,
) -> dict[str, Any]:
    """The arguments of the pipeline's call for a batch of (prompt, seed) pairs; the name of the
    guidance argument comes from the families table.
    """
    family = family_of(pipe.transformer)
    if family.guidance is None:
        driven = ", ".join(f.name for f in FAMILIES.values() if f.guidance)
        raise BadInput(
            f"sampling with a {family.transformer}",
            f"a family whose sampler the workbench drives: {driven}",
            "record the transformer's inputs yourself (models.save_inputs)",
        )
    prompts: list[Any] = [prompt for prompt, _ in group]
    if family.is_class_conditional:
        prompts = [class_number(pipe, prompt) for prompt in prompts]
    guided = is_guided(family, guidance)
    set_guider(pipe, guidance)
    arguments: dict[str, Any] = {
        family.prompt: prompts,
        **size_arguments(pipe, steps, size),
        "num_inference_steps": steps,
        "generator": [torch.Generator().manual_seed(seed) for _, seed in group],
        family.guidance: guidance if guided or not family.negative else family.off,
        **family.arguments,
    }
    if guided and not family.is_class_conditional:
        arguments["negative_prompt"] = [negative] * len(group)
    check_arguments(pipe, arguments)
    return arguments


def check_arguments(pipe: Pipeline, arguments: dict[str, Any]) -> None:
    """Refuse a pipeline of another kind than its family's, which shows by what its call takes: SANA
    Sprint has the class of SANA's transformer and no negative prompt.
    """
    parameters = inspect.signature(type(pipe).__call__).parameters
    if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return
    unknown = [name for name in arguments if name not in parameters]
    if unknown:
        raise BadInput(
            f"a {type(pipe).__name__}, whose call takes no {', '.join(unknown)}",
            f"a pipeline that is called as {family_of(pipe.transformer).pipeline} is",
            "profile it with --inputs, recorded calls of its transformer",
        )


def size_unit(pipe: Pipeline) -> int:
    """What sides of pictures are multiples of, in pixels: the VAE's stride times a patch of two."""
    stride = getattr(pipe, "vae_scale_factor", getattr(pipe, "vae_scale_factor_spatial", 8))
    return 2 * int(stride)


def size_arguments(pipe: Pipeline, steps: int, size: Size) -> dict[str, int]:
    """Height and width for the pipeline's call; none for one whose pictures have a fixed size.

    Raises BadInput for sizes that the pipeline would round or does not have, for no steps, and for
    one where the scheduler needs two: it stretches the steps so that the last is `shift_terminal`,
    and one step alone becomes 0 / 0.
    """
    scheduler = getattr(pipe, "scheduler", None)
    if steps == 1 and scheduler is not None and scheduler.config.get("shift_terminal"):
        raise BadInput(
            f"1 step of a {type(scheduler).__name__} with shift_terminal",
            "at least 2 steps",
            "raise the number of steps",
        )
    height, width = sides(size)
    fixed = "height" not in inspect.signature(type(pipe).__call__).parameters
    unit = size_unit(pipe)
    possible = f"a multiple of {unit} pixels"
    fits = min(height, width) > 0 and height % unit == 0 and width % unit == 0
    if fixed:
        side = pipe.transformer.config.sample_size * unit // 2
        possible = f"{side} pixels, the only size of this model"
        fits = height == width == side
    if steps < 1 or not fits:
        raise BadInput(
            f"{steps} steps at {size} pixels",
            f"at least 1 step, {possible}",
            "change steps or size",
        )
    return {} if fixed else {"height": height, "width": width}


def class_number(pipe: Pipeline, text: str) -> int:
    """The class that a prompt of a class-conditional model names: its number, or its label.

    Raises BadInput for other text.
    """
    classes = int(pipe.transformer.config.num_embeds_ada_norm)
    labels = getattr(pipe, "labels", {})
    name = text.strip()
    if name in labels:
        return int(labels[name])
    if name.isdecimal() and int(name) < classes:
        return int(name)
    raise BadInput(
        f"prompt {text[:60]!r} of a class-conditional model",
        f"a class: 0 to {classes - 1}, or one of its {len(labels)} labels",
        "give a file of class numbers, one a line",
    )


def set_guider(pipe: Pipeline, guidance: float) -> None:
    """Give the scale to a pipeline whose guidance is a component of its own (HunyuanImage)."""
    for name in ("guider", "ocr_guider"):
        guider = getattr(pipe, name, None)
        if guider is not None:
            guider.guidance_scale = max(guidance, 1.0)


def is_guided(family: Family, guidance: float) -> bool:
    """Whether sampling runs two branches: classifier-free guidance."""
    return family.negative and guidance > 1


@contextmanager
def recorded_calls(
    pipe: Pipeline, group: int, samples: int, steps: Sequence[int], halves: Sequence[str]
) -> Iterator[list[Call]]:
    """Record the transformer's inputs at these steps while the pipeline samples; a call that holds
    both branches is split into `halves`.

    The scheduler's `step` ends a sampling step and knows its timestep, in every pipeline; so a call
    gets its timestep from the step that consumes it.
    """
    calls: list[Call] = []
    pending: list[dict[str, Any]] = []  # inputs of the step that runs
    count = 0
    step = pipe.scheduler.step
    names = list(inspect.signature(pipe.transformer.forward).parameters)

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if count in steps:
            pending.append(detached({**dict(zip(names, args, strict=False)), **kwargs}))

    def stepped(model_output: Any, timestep: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal count
        inputs = list(pending)
        if halves and pending:
            inputs = [half_of(pending[0], halves.index(branch), samples) for branch in BRANCHES]
        for branch_inputs, branch in zip(inputs, BRANCHES, strict=False):
            calls.append(Call(branch_inputs, float(timestep), group, samples, branch))
        pending.clear()
        count += 1
        return step(model_output, timestep, *args, **kwargs)

    handle = pipe.transformer.register_forward_pre_hook(before, with_kwargs=True)
    pipe.scheduler.step = stepped
    try:
        yield calls
    finally:
        handle.remove()
        del pipe.scheduler.step


def half_of(value: Any, which: int, samples: int) -> Any:
    """One branch of inputs that hold both: tensors and lists of 2 x `samples` are cut, the rest is
    shared.
    """
    if isinstance(value, dict):
        return {key: half_of(item, which, samples) for key, item in value.items()}
    scalar = isinstance(value, torch.Tensor) and value.ndim == 0
    if isinstance(value, torch.Tensor | list) and not scalar and len(value) == 2 * samples:
        return value[which * samples : (which + 1) * samples]
    return value


def detached(value: Any) -> Any:
    """A copy of recorded inputs that shares nothing with the sampler."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: detached(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(detached(item) for item in value)
    return value


def placed(value: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """Recorded inputs on a device, floating tensors in a dtype."""
    if isinstance(value, torch.Tensor):
        return value.to(device, dtype if value.is_floating_point() else value.dtype)
    if isinstance(value, dict):
        return {key: placed(item, device, dtype) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(placed(item, device, dtype) for item in value)
    return value


def text_hash(prompts: Sequence[str]) -> str:
    """12 hex digits of SHA-256 over a list of prompts, one a line."""
    return hashlib.sha256("\n".join(prompts).encode()).hexdigest()[:12]
