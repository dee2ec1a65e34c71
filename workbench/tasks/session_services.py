"""What the session process answers: pictures of several models, and the preview of a plan."""

from __future__ import annotations

import json
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch
from PIL import Image

from .. import models, surgery
from ..models import conditioning
from ..records.record import Record
from ..sensitivity.error import relative_change
from ..workspace.session_client import (
    GenerateRequest,
    GenerateResult,
    PreviewRequest,
    PreviewResult,
    SamplingRequest,
)
from ..workspace.store import Store
from ..workspace.worker import seconds
from .resolve import Sampling, resolve

ANSWERS_KEPT = 200  # answers whose pictures stay on the disk
REFERENCES_KEPT = 8  # teachers' halves of previews
CALLS = 4  # timesteps of the teacher's trajectory at which a preview measures its error


@dataclass(frozen=True)
class LoadedModel:
    """A pipeline in memory. sampling: as it is meant to be sampled. version: changes with the files
    that it was loaded from.
    """

    pipeline: Any  # diffusers pipelines have no common type
    path: Path
    name: str
    sampling: Sampling
    version: str


@dataclass(frozen=True)
class Reference:
    """The teacher's half of a preview."""

    calls: list[models.Call]
    predictions: list[torch.Tensor]
    pictures: list[Image.Image]


class Session:
    """Warm pipelines of one device, the least recently used let go when memory runs short."""

    def __init__(self, store: Store, device: str):
        self.store = store
        self.device = device
        self.loaded: OrderedDict[Path, LoadedModel] = OrderedDict()
        self.references: OrderedDict[str, Reference] = OrderedDict()
        self.limit = seconds("WORKBENCH_SESSION_GIB", memory(device) / 2**30 / 2) * 2**30  # bytes

    def model(self, source: str) -> LoadedModel:
        """A loaded pipeline, loaded again when its files have changed."""
        resolved = resolve(source, self.store)
        path = resolved.folder
        version = files_version(path)
        model = self.loaded.pop(path, None)
        if model is None or model.version != version:
            pipeline = models.load_pipeline(path, device=self.device)
            model = LoadedModel(pipeline, path, resolved.name, resolved.sampling, version)
        self.loaded[path] = model  # the last is the most recently used
        while len(self.loaded) > 1 and self.loaded_bytes() > self.limit:
            self.loaded.popitem(last=False)
        return model

    def loaded_bytes(self) -> int:
        return sum(weight_bytes(model.pipeline) for model in self.loaded.values())

    def report(self, request: int, message: str) -> None:
        """Say what is being done: the result of a running request holds it until there is one."""
        statement = "UPDATE request SET result = ? WHERE id = ? AND state = 'running'"
        with self.store.db() as db:
            db.execute(statement, (json.dumps({"message": message}), request))

    def folder(self, request: int) -> Path:
        """A folder for a request's pictures. Their names do not give the models away."""
        root = self.store.workspace / "previews"
        by_age = sorted(root.glob("*"), key=lambda path: path.stat().st_mtime)
        for old in by_age[:-ANSWERS_KEPT]:
            shutil.rmtree(old, ignore_errors=True)
        folder = root / str(request)
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def files_version(path: Path) -> str:
    """Names, sizes and times of all files of a model: other weights of any part change it."""
    lines = []
    for file in sorted(path.rglob("*")):
        if file.is_file():
            status = file.stat()
            lines.append(f"{file.relative_to(path)} {status.st_size} {status.st_mtime_ns}")
    return "\n".join(lines)


# --- the services ---------------------------------------------------------------------------------


def generate(session: Session, request: int, spec: GenerateRequest) -> GenerateResult:
    """One prompt and seed through several models, sampled as the first one is; one that was
    distilled on guided targets, without guidance.
    """
    how: Sampling | None = None
    first: LoadedModel | None = None
    images = []
    names = []
    times = []
    total = len(spec.models)
    for number, source in enumerate(spec.models):
        session.report(request, f"Loading model {number + 1} of {total}")
        model = session.model(source)
        session.report(request, f"Sampling model {number + 1} of {total}")
        if how is None or first is None:
            how, first = sampling_of(model, spec), model
        own = how
        if spec.guidance is None and model.sampling.guidance != first.sampling.guidance:
            own = replace(how, guidance=model.sampling.guidance)
        started = time.perf_counter()
        [picture] = sample(model, [spec.prompt], [spec.seed], own, spec.negative)
        times.append(time.perf_counter() - started)
        images.append(save(picture, session.folder(request) / f"{number}.png"))
        names.append(model.name)
    assert how is not None
    return GenerateResult(
        images=images,
        names=names,
        seconds=times,
        steps=how.steps,
        guidance=how.guidance,
        size=how.size,
        sampled_as=how.sampled_as,
    )


def preview(session: Session, request: int, spec: PreviewRequest) -> PreviewResult:
    """A plan's student before it is built: its pictures, and its error on the teacher's trajectory.

    The teacher's half is kept for the next plan. Raises BadInput where the plan does not fit.
    """
    session.report(request, "Loading the teacher")
    model = session.model(spec.teacher)
    use_conditioning(model.pipeline.transformer, spec.conditioning)
    seeds = spec.seeds or list(range(len(spec.prompts)))
    how = sampling_of(model, spec)
    reference = reference_of(session, request, model, spec, seeds, how)
    session.report(request, "Sampling the student's picture")
    started = time.perf_counter()
    errors = []
    with surgery.applied(model.pipeline, spec.plan) as student:
        for call, expected in zip(reference.calls, reference.predictions, strict=True):
            errors.append(relative_change(expected, predict(student, call)))  # (B,)
        pictures = sample(model, spec.prompts, seeds, how, spec.negative)
    folder = session.folder(request)
    return PreviewResult(
        teacher=save_all(reference.pictures, folder, "teacher"),
        student=save_all(pictures, folder, "student"),
        error=float(torch.cat(errors).mean()),
        seconds=time.perf_counter() - started,
    )


def use_conditioning(transformer: torch.nn.Module, file: str | None) -> None:
    """Factor modulation on the vectors of this file; without one, not on those of an earlier
    preview.
    """
    if file is None:
        conditioning.forget_vectors(transformer)
    else:
        conditioning.use_vectors(transformer, conditioning.load_vectors(file))


def reference_of(
    session: Session,
    request: int,
    model: LoadedModel,
    spec: PreviewRequest,
    seeds: list[int],
    how: Sampling,
) -> Reference:
    """The teacher's half of a preview, kept for as long as nothing that it depends on changes."""
    depends_on = [str(model.path), model.version, spec.prompts, seeds, spec.negative, vars(how)]
    key = json.dumps(depends_on)
    reference = session.references.pop(key, None)
    if reference is None:
        session.report(request, "Sampling the teacher's picture, kept for the next previews")
        reference = make_reference(model, spec, seeds, how)
    session.references[key] = reference
    while len(session.references) > REFERENCES_KEPT:
        session.references.popitem(last=False)
    return reference


def make_reference(
    model: LoadedModel, spec: PreviewRequest, seeds: list[int], how: Sampling
) -> Reference:
    """The teacher's pictures, its conditional calls at a few timesteps, and its predictions."""
    calls = models.trajectories(
        model.pipeline,
        spec.prompts,
        seeds=seeds,
        steps=how.steps,
        guidance=how.guidance,
        size=how.size,
        negative=spec.negative,
        timesteps=CALLS,
    )
    conditional = [call for call in calls if call.branch == "cond"]
    transformer = model.pipeline.transformer
    return Reference(
        conditional,
        [predict(transformer, call) for call in conditional],
        sample(model, spec.prompts, seeds, how, spec.negative),
    )


SERVICES: dict[str, Callable[[Session, int, Any], Record]] = {
    "generate": generate,
    "preview": preview,
}


# --- helpers --------------------------------------------------------------------------------------


def sampling_of(model: LoadedModel, spec: SamplingRequest) -> Sampling:
    """Steps, guidance and size: as requested, else as the model is meant to be sampled."""
    return model.sampling.changed(spec.steps, spec.guidance, spec.size)


@torch.no_grad()
def predict(transformer: torch.nn.Module, call: models.Call) -> torch.Tensor:
    """The prediction for a recorded call, without the variance channels of PixArt and DiT, as
    sensitivity maps measure it: (B, ...).
    """
    weight = next(transformer.parameters())
    output = transformer(**models.placed(call.kwargs, weight.device, weight.dtype))
    return models.prediction(output, transformer)


def sample(
    model: LoadedModel, prompts: list[str], seeds: list[int], how: Sampling, negative: str
) -> list[Image.Image]:
    """One picture per prompt."""
    batches = models.generate(
        model.pipeline,
        prompts,
        seeds=seeds,
        steps=how.steps,
        guidance=how.guidance,
        size=how.size,
        negative=negative,
    )
    pictures: list[Image.Image] = []
    for batch in batches:
        pictures += batch
    return pictures


def save(picture: Image.Image, path: Path) -> str:
    picture.save(path)
    return str(path)


def save_all(pictures: list[Image.Image], folder: Path, name: str) -> list[str]:
    return [save(picture, folder / f"{name}-{i}.png") for i, picture in enumerate(pictures)]


def weight_bytes(pipeline: Any) -> int:
    """Bytes of a pipeline's weights."""
    total = 0
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            total += sum(tensor.nbytes for tensor in part.state_dict().values())
    return total


def memory(device: str) -> int:
    """Bytes of memory of a device, or of the machine."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_properties(device).total_memory
    return psutil.virtual_memory().total
