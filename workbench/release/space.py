"""A Space (a small Gradio app for the Hub) that shows a student at work beside its teacher's
pictures. It runs without the workbench: app.py and style.css are copied as they lie in space_files/,
what differs from student to student goes to space.json.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from PIL import Image

from ..families import FAMILIES, Family
from ..models import is_pipeline, transformer_folder
from ..models.file_io import draft_folder, write_synced
from ..models.loading import stored_dtype
from ..records import BadInput
from ..records.picture_size import sides
from .card import short_name, table, terms, verdicts
from .evidence import Evidence
from .folder import Release, check_free, task_of
from .private import check_private

EXAMPLES, SEEDS = 12, 3  # at most so many prompts, with so many seeds each
COPIED = ("app.py", "style.css")
# Versions of torch that ZeroGPU has (August 2026) end here; other packages are pinned as installed.
TORCH = "2.11.0"
PYTHON = "3.12"  # ZeroGPU's newer one
PACKAGES = ("diffusers", "transformers", "accelerate", "safetensors")
# Tokenizers of these files are read with packages that transformers does not bring.
FOR_FILES = {"*.model": ("sentencepiece", "protobuf")}
OLDEST = {"sentencepiece": "0.2.0", "protobuf": "5.29.0"}  # where they are not installed here


@dataclass(frozen=True)
class Example:
    """A prompt of the comparison, with the files of both models' pictures by seed."""

    prompt: str
    pictures: dict[str, tuple[Path, Path]]


def space_folder(out: Path) -> Path:
    """Where the Space of a release goes: beside it, for on the Hub it is another repository."""
    return out.with_name(f"{out.name}-space")


def check_space(order: Release, out: Path | None) -> None:
    """Raises BadInput for a student whose Space would have nothing to show or would not run."""
    family = FAMILIES[order.plan.family]
    task = task_of(order.plan.family)
    if task != "text-to-image" or family.guidance is None or not is_pipeline(order.student):
        what = "a transformer without its pipeline" if not is_pipeline(order.student) else task
        raise BadInput(
            f"--space for {order.student.name}, {what}",
            "a text-to-image pipeline",
            "leave --space out",
        )
    if order.evidence is None:
        raise BadInput(
            f"--space for {order.student.name}, which has not been compared with its teacher",
            "a comparison, whose pictures of the teacher the Space shows",
            "run `workbench compare TEACHER STUDENT`, or name one with --comparison",
        )
    if not examples_of(order.evidence):
        raise BadInput(
            f"no pictures in {order.evidence.folder}",
            "the comparison's pictures of both models",
            "compare them again",
        )
    if out is not None:
        check_free(out)


def write_space(order: Release, release: Path, out: Path) -> None:
    """Write the Space of a student that has been released to `release`. Raises BadInput where `out`
    is a folder with files, and where a file names something private; nothing is left then.
    """
    check_space(order, out)
    assert order.evidence is not None
    with draft_folder(out) as draft:
        (draft / "pictures").mkdir(parents=True)
        for name in COPIED:
            shutil.copyfile(str(resources.files(__package__) / "space_files" / name), draft / name)
        examples = list(copy_pictures(examples_of(order.evidence), draft))
        data = space_data(order, release, examples)
        write_synced(draft / "space.json", json.dumps(data, indent=1, ensure_ascii=False) + "\n")
        write_synced(draft / "requirements.txt", requirements(release))
        write_synced(draft / "README.md", readme(order, data))
        check_private(draft, *order.private)


def examples_of(evidence: Evidence) -> list[Example]:
    """Prompts spread evenly over the comparison, so that nobody has chosen them by their pictures;
    those whose pictures are gone are left out.
    """
    comparison = evidence.comparison
    seeds = comparison.seeds
    count = len(comparison.prompts)
    shown = min(EXAMPLES, count)
    examples = []
    for number in [index * count // shown for index in range(shown)]:
        pictures = {}
        for place, seed in enumerate(seeds[:SEEDS]):
            both = pair_of(evidence, number * len(seeds) + place)
            if both is not None:
                pictures[str(seed)] = both
        if len(pictures) == len(seeds[:SEEDS]):
            examples.append(Example(comparison.prompts[number], pictures))
    return examples


def pair_of(evidence: Evidence, picture: int) -> tuple[Path, Path] | None:
    """The teacher's and the student's picture of one prompt and seed."""
    files = []
    for model in (evidence.teacher, evidence.student):
        names = evidence.comparison.images.get(model.name, [])
        if picture >= len(names) or not (evidence.folder / names[picture]).is_file():
            return None
        files.append(evidence.folder / names[picture])
    return files[0], files[1]


def copy_pictures(examples: list[Example], draft: Path) -> Iterator[dict[str, Any]]:
    """Each example as space.json has it; its pictures are written, lossless."""
    for number, example in enumerate(examples):
        names: dict[str, list[str]] = {}
        for seed, files in example.pictures.items():
            names[seed] = []
            for who, file in zip(("teacher", "student"), files, strict=True):
                name = f"pictures/{number:02d}-{seed}-{who}.webp"
                with Image.open(file) as picture:
                    picture.convert("RGB").save(draft / name, lossless=True)
                names[seed].append(name)
        yield {"prompt": example.prompt, "pictures": names}


def space_data(order: Release, release: Path, examples: list[dict[str, Any]]) -> dict[str, Any]:
    """What app.py reads."""
    evidence = order.evidence
    assert evidence is not None
    comparison = evidence.comparison
    family = FAMILIES[order.plan.family]
    height, width = sides(comparison.size)
    return {
        "title": order.repo.split("/")[-1] or release.name,
        "sentence": sentence(order),
        "model": order.repo or f"../{release.name}",
        "custom_code": not order.card.stock,
        "dtype": str(stored_dtype(transformer_folder(release))).removeprefix("torch."),
        "call": {"height": height, "width": width, **family.arguments},
        "steps": comparison.steps,
        "most_steps": max(50, comparison.steps),
        "guidance": guidance(family, evidence),
        "seeds": comparison.seeds[:SEEDS],
        "examples": examples,
        "highlights": highlights(order),
        "columns": ["teacher", "this model"],
        "table": [[row.label, row.teacher, row.student] for row in table(evidence)],
        "notes": [note.replace("`", "") for note in verdicts(evidence)],
        "about": about(order),
    }


def sentence(order: Release) -> str:
    card = order.card
    original = short_name(card.original).partition("@")[0]
    share = 100 * card.parameters / card.original_parameters
    return f"{original} with {share:.0f} % of its parameters, drawing live beside the original."


def guidance(family: Family, evidence: Evidence) -> dict[str, Any]:
    """How the student was guided in the comparison. negative_prompt: null for models that take the
    scale as a number and sample in one pass.
    """
    comparison, own = evidence.comparison, evidence.student.guidance
    return {
        "argument": family.guidance,
        "value": comparison.guidance if own is None else own,
        "off": family.off,
        "negative_prompt": comparison.negative if family.negative else None,
    }


def highlights(order: Release) -> list[dict[str, str]]:
    """The figures at the top: size, time and the share of the teacher's scores."""
    evidence, card = order.evidence, order.card
    assert evidence is not None
    before, after = evidence.teacher, evidence.student
    counts = f"{short_count(card.parameters)} of {short_count(card.original_parameters)}"
    share = 100 * card.parameters / card.original_parameters
    figures = [{"value": f"{share:.0f} %", "about": f"of the parameters: {counts}"}]
    if before.ms_per_step > 0 and after.ms_per_step > 0:
        faster = before.ms_per_step / after.ms_per_step
        figures.append({"value": f"{faster:.2f} x", "about": "the teacher's speed, step by step"})
    for scorer in evidence.scorers():
        retention = after.retention.get(scorer)
        if retention is not None and len(figures) < 4:
            about = f"of the teacher's score ({scorer})"
            figures.append({"value": f"{100 * retention:.1f} %", "about": about})
    return figures


def short_count(parameters: int) -> str:
    """12345678 -> 12.3 M."""
    for unit, letter in ((1e9, "B"), (1e6, "M")):
        if parameters >= unit:
            return f"{parameters / unit:.3g} {letter}"
    return f"{parameters:,}"


def about(order: Release) -> str:
    """The last lines of the page: where the model is, and under which terms."""
    comparison = order.evidence.comparison if order.evidence else None
    assert comparison is not None
    prompts, seeds = len(comparison.prompts), len(comparison.seeds)
    judged = (
        f"Judged on {prompts} prompts with {seeds} seed{'' if seeds == 1 else 's'} each; intervals "
        "are 95 %. What its teacher cannot do or must not be used for holds for this model too."
    )
    where = ""
    if order.repo:
        where = f"[Weights and model card](https://huggingface.co/{order.repo}). "
    return f"{where}{judged} {licence_line(order)} Made with DiT Workbench."


def licence_line(order: Release) -> str:
    """The terms in one sentence, without links to files that only the model's repository has."""
    return terms(order.licence, short_name(order.card.original)).partition(" Files:")[0]


def requirements(release: Path) -> str:
    """Pinned packages, one a line. Gradio's version is in README.md: the Hub installs it."""
    lines = [f"torch=={TORCH}"]
    lines += [f"{package}=={metadata.version(package)}" for package in PACKAGES]
    for pattern, packages in FOR_FILES.items():
        if any(release.rglob(pattern)):
            lines += [f"{package}=={installed(package)}" for package in packages]
    return "\n".join(lines) + "\n"


def installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return OLDEST[package]


def readme(order: Release, data: dict[str, Any]) -> str:
    """README.md, whose front matter the Hub reads."""
    entries: dict[str, Any] = {
        "title": data["title"],
        "emoji": "🪄",
        "colorFrom": "blue",
        "colorTo": "indigo",
        "sdk": "gradio",
        "sdk_version": metadata.version("gradio"),
        "python_version": PYTHON,
        "app_file": "app.py",
        "short_description": "A smaller model beside its teacher",  # the Hub shows 60 characters
        "startup_duration_timeout": "1h",
    }
    if order.repo:
        entries["models"] = [order.repo]
    if "license" in order.licence.entries:
        entries["license"] = order.licence.entries["license"]
    front_matter = []
    for key, value in entries.items():  # JSON is YAML, whatever the text holds
        front_matter.append(f"{key}: {json.dumps(value, ensure_ascii=False)}")
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = (resources.files(__package__) / "space_files" / "README.md.jinja").read_text("utf-8")
    text = environment.from_string(source).render(
        front_matter=front_matter,
        title=data["title"],
        gradio=entries["sdk_version"],
        sentence=data["sentence"],
        model=data["model"],
        repo=order.repo,
        terms=licence_line(order),
    )
    return text + "\n"
