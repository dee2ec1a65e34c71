"""The folder of a release: the student's own files, whole, with a card and without a path of this
machine.
"""

from __future__ import annotations

import inspect
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import diffusers

from ..families import FAMILIES
from ..models import is_pipeline, transformer_folder
from ..models.file_io import draft_folder, write_synced
from ..models.loading import stored_dtype
from ..models.sampling_defaults import Sampling
from ..records import BadInput, Card, DistillSpec, Plan, Progress, jsonfile
from .card import STRIP, Facts, model_card
from .evidence import Evidence
from .licence import FILES as LICENCE_FILES
from .licence import Licence
from .private import check_private, without_paths
from .single_file import SingleFile, write_single_file

WRITTEN_ANEW = ("card.json", "plan.yaml", "distill.yaml", "README.md")
CONFIGS = ("config.json", "generation_config.json", "model_index.json")
# What a student's folder may hold beside its components; everything else is somebody's own.
OF_PIPELINE = re.compile(r"model_index\.json|plan\.svg")
OF_TRANSFORMER = re.compile(
    r"config\.json|plan\.svg|modeling_hybrid_\w+\.py"
    r"|diffusion_pytorch_model.*\.safetensors(\.index\.json)?"
)


@dataclass(frozen=True)
class Release:
    """What to release. student: its folder. sampling: how it is meant to be sampled; None for a
    transformer alone. single: the one file to write for another program than diffusers, in place of
    the student's own. private: folders of this machine that no file may name.
    """

    student: Path
    card: Card
    plan: Plan
    licence: Licence
    evidence: Evidence | None
    sampling: Sampling | None
    private: tuple[Path, ...] = ()
    repo: str = ""
    single: SingleFile | None = None


def release(order: Release, out: Path) -> Iterator[Progress]:
    """Write the folder, file by file. Result: {"files": names, "bytes": of all, "left_out": names}.

    Weights are copied, not linked: what is given away must not change with the student. Raises
    BadInput where `out` is a folder with files, and where a file names something private; nothing
    is left then.
    """
    check_free(out)
    files, left_out = files_of(order.student)
    if order.single is not None:
        files = [file for file in files if file == order.student / "plan.svg"]
    with draft_folder(out) as draft:
        draft.mkdir(parents=True)
        for number, file in enumerate(files):
            name = str(file.relative_to(order.student))
            yield Progress(step=number, total=len(files), message=name)
            copy(file, draft / name)
        if order.single is not None:
            yield from write_single_file(order.single, draft)
        for file in order.licence.files:
            copy(file, draft / file.name)
        write_records(order, draft)
        check_private(draft, *order.private)
    yield Progress(step=len(files), total=len(files), message="done", result=written(out, left_out))


def is_release_of(order: Release, out: Path) -> bool:
    """Whether a folder is a release of this very student, made before for the same program."""
    file = out / "card.json"
    if order.single is not None and not (out / order.single.file_name).is_file():
        return False
    if order.single is None and not any(out.rglob("config.json")):
        return False
    return file.is_file() and Card.load(file) == public_card(order.card)


def public_card(card: Card) -> Card:
    """The card as it is given away."""
    return Card.parse(without_paths(card.model_dump(mode="json")), "card.json")


def check_free(out: Path) -> None:
    """Raises BadInput for a file, and for a folder that has files."""
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists():
        kind = "a folder with files" if out.is_dir() else "a file"
        raise BadInput(f"-o {out} is {kind}", "a new folder", "choose another, or remove it")


def files_of(student: Path) -> tuple[list[Path], list[str]]:
    """The files that belong to a student, and the names of those that are left out: whatever
    nobody but a person put there.
    """
    components = set()
    own = OF_TRANSFORMER
    if is_pipeline(student):
        own = OF_PIPELINE
        index = jsonfile.read_object(student / "model_index.json", "model index")
        components = {name for name, entry in index.items() if isinstance(entry, list)}
    files = []
    left_out = []
    for path in sorted(student.iterdir()):
        if path.is_dir() and path.name in components:
            files += [file for file in sorted(path.rglob("*")) if file.is_file()]
        elif path.is_file() and own.fullmatch(path.name):
            files.append(path)
        elif path.name not in WRITTEN_ANEW and not LICENCE_FILES.match(path.name):
            left_out.append(path.name)
    return files, left_out


def copy(source: Path, target: Path) -> None:
    """A copy of a file; a link's is that of what it leads to."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def write_records(order: Release, draft: Path) -> None:
    """The card, plan and spec without paths, the pictures and README.md."""
    card = public_card(order.card)
    card.save(draft / "card.json")
    plan = Plan.parse(without_paths(order.plan.model_dump(mode="json")), "plan.yaml")
    plan.save(draft / "plan.yaml")
    if card.spec is not None:
        DistillSpec.parse(card.spec, "card.json").save(draft / "distill.yaml")
    for name in CONFIGS:
        for config in draft.rglob(name):
            forget_origin(config)
    strip = order.evidence.strip() if order.evidence else None
    if strip is not None:
        strip.save(draft / STRIP, optimize=True)
    write_synced(draft / "README.md", model_card(facts_of(order, card, plan, draft)))


def facts_of(order: Release, card: Card, plan: Plan, draft: Path) -> Facts:
    inner = transformer_folder(order.student)
    code = [str(file.relative_to(order.student)) for file in inner.glob("modeling_hybrid_*.py")]
    return Facts(
        card=card,
        plan=plan,
        licence=order.licence,
        evidence=order.evidence,
        task=task_of(plan.family),
        pipeline=is_pipeline(order.student),
        code=code[0] if code else "",
        sampling=order.sampling,
        strip=(draft / STRIP).is_file(),
        drawing=(draft / "plan.svg").is_file(),
        dtype=stored_dtype(inner),
        repo=order.repo,
        single=order.single,
    )


def task_of(family: str) -> str:
    """The Hub's name for what a family's pipeline does."""
    row = FAMILIES[family]
    if row.is_class_conditional:
        return "unconditional-image-generation"
    pipeline = getattr(diffusers, row.pipeline)
    if "num_frames" in inspect.signature(pipeline.__call__).parameters:
        return "text-to-video"
    return "text-to-image"


def forget_origin(config: Path) -> None:
    """Drop the path that a component was loaded from, which libraries leave in its config."""
    data = jsonfile.read(config, "config")
    if isinstance(data, dict) and "_name_or_path" in data:
        del data["_name_or_path"]
        write_synced(config, json.dumps(data, indent=2) + "\n")


def written(out: Path, left_out: list[str]) -> dict[str, object]:
    """A release's files and their bytes, and what was left out of it."""
    files = [file for file in sorted(out.rglob("*")) if file.is_file()]
    return {
        "files": [str(file.relative_to(out)) for file in files],
        "bytes": sum(file.stat().st_size for file in files),
        "left_out": left_out,
    }
