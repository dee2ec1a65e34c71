"""A study from comparisons: its items, attention checks, and copies of the pictures that say nothing
about where they come from.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from random import Random

from PIL import Image, UnidentifiedImageError

from ..records import (
    DAMAGED,
    BadInput,
    Comparison,
    Progress,
    Study,
    StudyItem,
    StudyKind,
    StudyRow,
)
from .pictures import PADDING, damaged, save_plain
from .secrets import new_secret

FILE = "study.json"
PICTURES = "pictures"
MOST_CHECKS = 12  # different ones in a study


@dataclass(frozen=True)
class Design:
    """What a study shall be. models: names of the comparison; empty: all. all_pairs: students with
    each other too, not with the first model only. checks: per rater.
    """

    kind: StudyKind
    models: tuple[str, ...] = ()
    all_pairs: bool = True
    raters: int = 20
    per_rater: int | None = None
    checks: int = 3
    most_failed: int = 1
    prompts: int | None = None
    seed: int = 0
    invited_only: bool = False


@dataclass(frozen=True)
class Source:
    """A comparison and its folder."""

    folder: Path
    comparison: Comparison

    @classmethod
    def load(cls, path: Path) -> Source:
        """Read a comparison's folder, or its comparison.json. Raises BadInput."""
        folder = path.parent if path.name == "comparison.json" else path
        return cls(folder, Comparison.load(folder / "comparison.json"))


def create(sources: Sequence[Source], design: Design, out: Path) -> Iterator[Progress]:
    """Write a study's folder; the result is the Study.

    Raises BadInput, before anything is written, for comparisons of other prompts, unknown models and
    a folder that is there. A study that was interrupted leaves no folder of that name.
    """
    files = picture_files(sources)
    models = chosen_models(list(files), design)
    check_place(out)
    rows = rows_of(sources[0].comparison, models, design)
    items = items_of(design, len(rows), models)
    checks = checks_of(design, len(rows), models)
    for item in checks:
        rows[item.row].pictures[DAMAGED] = f"{item.row:05d}-damaged.png"
    draft = out.with_name(f".{out.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    (draft / PICTURES).mkdir(parents=True)
    longest = 0
    for number, row in enumerate(rows):
        yield Progress(step=number, total=len(rows), message="copying pictures")
        for model, name in row.pictures.items():
            origin = models[0] if model == DAMAGED else model
            image = read_picture(files[origin][row.number])
            if model == DAMAGED:
                image = damaged(image, Random(f"{design.seed} damage of row {number}"))
            longest = max(longest, save_plain(image, draft / PICTURES / name))
    study = Study(
        kind=design.kind,
        models=models,
        rows=rows,
        items=items,
        checks=checks,
        per_rater=design.per_rater,
        checks_per_rater=min(design.checks, len(checks)),
        most_failed=design.most_failed,
        raters=design.raters,
        seed=design.seed,
        picture_bytes=longest + PADDING,
        invited_only=design.invited_only,
        show_prompt=design.kind != "abx",
        comparisons=[str(source.folder) for source in sources],
    )
    study.save(draft / FILE)
    new_secret(draft)
    draft.rename(out)
    yield Progress(step=len(rows), total=len(rows), message="done", result=study)


def check_place(out: Path) -> None:
    """Raises BadInput where a study would replace something."""
    if out.exists():
        raise BadInput(f"{out} is there", "a new folder for the study", "choose another -o")
    out.parent.mkdir(parents=True, exist_ok=True)


def picture_files(sources: Sequence[Source]) -> dict[str, list[Path]]:
    """Model -> its pictures. A model that several comparisons have is taken from the first.

    Raises BadInput for comparisons of other prompts, seeds or sizes, and where a picture is missing.
    """
    first = sources[0].comparison
    files: dict[str, list[Path]] = {}
    for source in sources:
        other = source.comparison
        if (other.prompts, other.seeds, other.size) != (first.prompts, first.seeds, first.size):
            raise BadInput(
                f"{source.folder} has other prompts, seeds or sizes than {sources[0].folder}",
                "comparisons of the same prompts, seeds and size",
                "compare all models at once",
            )
        for model, names in other.images.items():
            files.setdefault(model, [source.folder / name for name in names])
    for paths in files.values():
        for path in paths:
            if not path.is_file():
                raise BadInput(f"{path} is missing", "every picture", "run the comparison again")
    return files


def chosen_models(known: Sequence[str], design: Design) -> list[str]:
    """The models of a study. Raises BadInput for an unknown one, and for one alone in pairs."""
    models = list(design.models) or list(known)
    for model in models:
        if model not in known:
            raise BadInput(f"model {model}", ", ".join(known), "name one of these")
    if len(set(models)) < (1 if design.kind == "ratings" else 2):
        raise BadInput(
            f"a study of {design.kind} with {len(models)} model", "two models", "compare two"
        )
    return list(dict.fromkeys(models))


def rows_of(comparison: Comparison, models: Sequence[str], design: Design) -> list[StudyRow]:
    """A row per prompt and seed, of as many prompts as the design asks for, evenly spread."""
    count = len(comparison.prompts)
    asked = min(design.prompts or count, count)
    chosen = [place * count // asked for place in range(asked)]
    rows: list[StudyRow] = []
    for number in chosen:
        for place, seed in enumerate(comparison.seeds):
            names = {}
            for model_number, model in enumerate(models):
                names[model] = f"{len(rows):05d}-{model_number}.png"
            rows.append(
                StudyRow(
                    prompt=comparison.prompts[number],
                    prompt_number=number,
                    number=number * len(comparison.seeds) + place,
                    seed=seed,
                    category=comparison.categories[number] if comparison.categories else "",
                    pictures=names,
                )
            )
    return rows


def items_of(design: Design, rows: int, models: Sequence[str]) -> list[StudyItem]:
    """What is judged: every row with every model, or with every pair of models."""
    items = []
    for row in range(rows):
        for group in groups_of(design, models):
            items.append(StudyItem(row=row, models=group))
    return items


def groups_of(design: Design, models: Sequence[str]) -> list[list[str]]:
    if design.kind == "ratings":
        return [[model] for model in models]
    if design.all_pairs and design.kind == "pairs":
        return [list(pair) for pair in combinations(models, 2)]
    return [[models[0], model] for model in models[1:]]


def checks_of(design: Design, rows: int, models: Sequence[str]) -> list[StudyItem]:
    """Attention checks: a picture of the first model, and the same one damaged."""
    if not design.checks:
        return []
    count = min(rows, max(design.checks, MOST_CHECKS))
    shown = [DAMAGED] if design.kind == "ratings" else [models[0], DAMAGED]
    places = [place * rows // count for place in range(count)]
    return [StudyItem(row=place, models=shown) for place in places]


def read_picture(path: Path) -> Image.Image:
    """A picture as RGB. Raises BadInput for a damaged file."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise BadInput(f"{path} cannot be read ({error})", "a picture", "sample it again") from None
