"""From what a person types to a model: a bundled teacher, a folder, a student, a config, the Hub.

`resolve` answers once what a model is. Verbs ask the `Model` it returns and look at no path again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from .. import demo, models
from ..families import FAMILIES
from ..models.folders import is_pipeline
from ..models.hub import Unreachable, cached_transformer, fetch, fetch_config
from ..models.sampling_defaults import Sampling, check_negative, default_sampling
from ..models.weight_files import check_lone_file
from ..records import BadInput, Card, Teacher
from ..records.picture_size import Size
from ..workspace.store import Store, default_workspace

BUNDLED = ("demo", "demo-12")
HUB_ID = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")

# bundled: ships with the package. folder, student: here, the latter with a card.json. hub: in the
# Hub's cache, or still to be fetched. config: a config.json alone. record: the workspace's record
# of a model that is known by its published config alone (import-map writes one).
Kind = Literal["bundled", "folder", "student", "hub", "config", "record"]


DEMO_SAMPLING = Sampling(demo.DEFAULT_STEPS, demo.DEFAULT_CFG, demo.SIZE, "as demo was trained")


@dataclass(frozen=True)
class Model:
    """A model that the user named, resolved.

    name: as records have it: demo, demo-12, a Hub id[@revision] or an absolute path. path: its
    folder, or the file of a config or record; None for a Hub id whose weights are not here. card:
    where it comes from, if it is a student.
    """

    name: str
    kind: Kind
    path: Path | None
    has_weights: bool
    card: Card | None
    store: Store | None = field(repr=False, compare=False)

    @property
    def folder(self) -> Path:
        """The folder with the weights. Only for a model that was resolved with them."""
        assert self.path is not None and self.has_weights, f"{self.name} was resolved by name only"
        return self.path

    @property
    def title(self) -> str:
        """A short name, for folders and tables."""
        return Path(self.name).name

    @property
    def original(self) -> str:
        """The name of the teacher at the beginning of the chain: its own, if it is not a student."""
        return self.card.original if self.card else self.name

    @property
    def bundled(self) -> bool:
        """Whether it is a bundled teacher or comes from one."""
        return self.original in BUNDLED

    @cached_property
    def sampling(self) -> Sampling:
        """How the model is meant to be sampled. A student that learned guided targets is sampled
        without guidance: it would be guided twice.
        """
        usual = DEMO_SAMPLING
        family = FAMILIES[self.description.family]
        if not self.bundled:
            folder = self.path if self.path and is_pipeline(self.path) else None
            name = Path(self.original).name
            usual = default_sampling(family, self.description.config, name, folder)
        guided = self.card is not None and self.card.is_guided
        if guided and family.negative and usual.guidance > 1:
            words = f"guidance 1: distilled on guided targets; else {usual.sampled_as}"
            return replace(usual, guidance=1.0, sampled_as=words)
        return usual

    def sampled(
        self,
        steps: int | None,
        guidance: float | None,
        size: Size | None,
        negative: str | None,
    ) -> Sampling:
        """How it is sampled with the values that a person gives; None: as it is meant to be.

        Raises BadInput for a negative prompt that the model has no use for.
        """
        sampling = self.sampling.changed(steps, guidance, size, negative)
        if negative is not None:
            folder = self.path if self.path and is_pipeline(self.path) else None
            check_negative(FAMILIES[self.description.family], sampling.guidance, folder)
        return sampling

    @cached_property
    def description(self) -> Teacher:
        """What it is made of, from headers or a config; no weights are loaded. The workspace keeps
        the record.

        Raises BadInput for what is not a diffusion transformer, and for a Hub that does not answer.
        """
        if self.kind == "record":
            assert self.path is not None
            return Teacher.load(self.path)
        if self.path is None:
            teacher = describe_hub(self.name)
        else:
            teacher = models.describe(self.path, self.name)
        if self.bundled:  # what predicted speed depends on
            sampled = {"size": demo.SIZE, "text_tokens": demo.TEXT_TOKENS}
            teacher = teacher.model_copy(update=sampled)
        if self.store is not None:
            keep_record(teacher, self.store)
        return teacher

    @property
    def fingerprint(self) -> str:
        """Of the weights; empty where they are not here."""
        return self.description.fingerprint


def resolve(source: str, store: Store | None = None, *, weights: bool = True) -> Model:
    """What `source` stands for: a bundled teacher's name, a path, a student of the workspace, a
    config.json, or a Hub id[@revision].

    weights: they are needed, so they are fetched from the Hub, and a config alone is refused.
    Without, nothing is fetched. Raises BadInput where there is no such model.
    """
    if source in BUNDLED:
        return Model(source, "bundled", bundled_folder(source, store), True, None, store)
    path = Path(source).expanduser()
    if path.exists():
        return at_path(path.resolve(), store, weights)
    student = store.find("student", source) if store else None
    if student is not None:
        return at_path(Path(student.path), store, weights)
    if store and not weights and (record := published(source, store)):
        return Model(source, "record", record, False, None, store)
    match = HUB_ID.fullmatch(source)
    if match is None or source.startswith((".", "/", "~")):
        raise BadInput(
            f"{source} does not exist",
            "demo, demo-12, a folder, a student of the workspace or a Hub id",
            "check the path",
        )
    if not weights:
        cached = cached_transformer(match[1], match[2])
        return Model(source, "hub", cached, cached is not None, None, store)
    return Model(source, "hub", fetch(match[1], match[2]), True, None, store)


def at_path(path: Path, store: Store | None, weights: bool) -> Model:
    """The model in a folder, or a config.json. Raises BadInput for a file where weights are
    needed, and for a card.json that is none.
    """
    if not path.is_dir():
        check_lone_file(path)
        if weights:
            raise BadInput(
                f"{path} is a file without weights",
                "a model folder or a Hub id",
                "name the folder that holds the weights",
            )
        return Model(str(path), "config", path, False, None, store)
    card = path / "card.json"
    if card.is_file():
        return Model(str(path), "student", path, True, Card.load(card), store)
    return Model(str(path), "folder", path, True, None, store)


def bundled_folder(name: str, store: Store | None) -> Path:
    """The folder of a bundled teacher. Raises BadInput for an incomplete installation."""
    if not (demo.weights_folder() / "model_index.json").is_file():
        raise BadInput(
            f"the bundled teacher {name} is not in {demo.weights_folder()}",
            "a whole installation",
            "install the package again",
        )
    workspace = store.workspace if store else default_workspace()
    return Path(demo.teacher_folder(name, workspace / "cache"))


def published(name: str, store: Store) -> Path | None:
    """The workspace's record of a model that is known by its published config alone."""
    for row in store.teachers():
        if row.teacher == name and not row.fingerprint:
            return Path(row.path)
    return None


def describe_hub(name: str) -> Teacher:
    """A Hub id, from the headers of its weights; where the Hub does not answer, from its config."""
    match = HUB_ID.fullmatch(name)
    assert match is not None, name
    try:
        return models.describe_hub(match[1], match[2])
    except Unreachable:
        return models.describe(fetch_config(match[1], match[2]), name)


def keep_record(teacher: Teacher, store: Store) -> None:
    """Write a teacher's record into the workspace, unless it is there."""
    file = store.workspace / "teachers" / f"{Path(teacher.name).name}-{teacher.digest}.json"
    if not file.exists():
        teacher.save(file)
