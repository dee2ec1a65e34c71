"""A scorer that is a command: a program in an environment of its own.

Packages of learned scores (HPSv2, ImageReward, VQAScore ..) pin versions that do not install beside
each other, nor beside ours. Such a program gets a manifest of the pictures and leaves their scores:

    {"pictures": [{"file": "/tmp/x/pictures/0000.png", "prompt": "a red circle", "index": 0}, ..]}
    {"scores": [0.271, ..]}

A picture has the fields of its prompt in the suite, and index, the prompt's number. The scores are
in the order of the pictures.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator

from ...records import BadInput, jsonfile
from ...records.record import Record
from .base import Images, Item, Scorer

MANIFEST, SCORES = "{manifest}", "{scores}"


class ScorerFile(Record):
    """A scorer as a YAML file describes it."""

    what: ClassVar[str] = "scorer file"
    name: str = Field(min_length=1, max_length=60, description="As it is called in a comparison.")
    command: str = Field(
        description="A shell line. {manifest} and {scores} stand for the file to read and the file "
        "to write; it runs in the folder of the scorer file."
    )
    unit: str = Field(default="", description="Of a score.")
    direction: str = Field(default="higher = better", pattern=r"^(higher|lower)\b")
    source: str = Field(default="", description="The paper or package that it follows.")
    needs_reference: bool = Field(
        default=False, description="Give each picture the first model's picture, as `reference`."
    )
    passes: bool = Field(default=False, description="Scores are 0 and 1.")
    least_seeds: int = Field(default=1, ge=1, description="Pictures of a prompt that it needs.")
    minutes: float = Field(default=60, gt=0, description="Longest time of one model's pictures.")

    @field_validator("command")
    @classmethod
    def _has_both(cls, value: str) -> str:
        if MANIFEST not in value or SCORES not in value:
            raise ValueError(f"names {MANIFEST} and {SCORES}, the files to read and to write")
        return value


class CommandScorer(Scorer):
    """Runs the command of a scorer file once for each model."""

    def __init__(self, about: ScorerFile, folder: Path) -> None:
        self.about = about
        self.folder = folder
        # of this scorer, where other scorers have them as a class
        self.name = about.name  # type: ignore[misc]
        self.unit = about.unit  # type: ignore[misc]
        self.direction = about.direction  # type: ignore[misc]
        self.source = about.source  # type: ignore[misc]
        self.needs_reference = about.needs_reference  # type: ignore[misc]
        self.passes = about.passes  # type: ignore[misc]
        self.least_seeds = about.least_seeds  # type: ignore[misc]

    def score(self, images: Images, items: Sequence[Item], reference: Images) -> list[float]:
        """Raises BadInput where the command fails, takes too long, or leaves no scores."""
        with tempfile.TemporaryDirectory(prefix="scorer-") as name:
            folder = Path(name)
            manifest, scores = folder / "manifest.json", folder / "scores.json"
            pictures = self.pictures(folder, images, items, reference)
            manifest.write_text(json.dumps({"pictures": pictures}), encoding="utf-8")
            self.run(manifest, scores)
            return self.read(scores, len(images))

    def pictures(
        self, folder: Path, images: Images, items: Sequence[Item], reference: Images
    ) -> list[dict[str, Any]]:
        """The manifest's rows; the pictures are written, lossless."""
        rows = []
        for number, (image, item) in enumerate(zip(images, items, strict=True)):
            row: dict[str, Any] = {**item, "file": write(image, folder / "pictures", number)}
            if self.needs_reference:
                row["reference"] = write(reference[number], folder / "references", number)
            rows.append(row)
        return rows

    def run(self, manifest: Path, scores: Path) -> None:
        """The command, with all processes that it starts."""
        line = self.about.command.replace(MANIFEST, shlex.quote(str(manifest)))
        line = line.replace(SCORES, shlex.quote(str(scores)))
        log = manifest.with_name("log.txt")
        with open(log, "wb") as out:
            process = subprocess.Popen(
                line,
                shell=True,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        try:
            code = process.wait(60 * self.about.minutes)
        except subprocess.TimeoutExpired:
            raise BadInput(
                f"scorer {self.name} has not ended after {self.about.minutes:g} minutes",
                "scores",
                "raise minutes in its file, or leave it out",
            ) from None
        finally:
            end_group(process)
        if code != 0:
            raise BadInput(
                f"scorer {self.name} ended with exit code {code}: {last_line(log)}",
                "a command that writes scores",
                f"run it by hand: {self.about.command}",
            )

    def read(self, scores: Path, count: int) -> list[float]:
        """What the command has left."""
        if not scores.is_file():
            raise self.unfit(f"has left no {SCORES} file")
        given = jsonfile.read_object(scores, f"scores of {self.name}").get("scores")
        if not isinstance(given, list) or len(given) != count:
            found = len(given) if isinstance(given, list) else "no list of"
            raise self.unfit(f"has left {found} scores for {count} pictures")
        if not all(type(value) in (int, float, bool) for value in given):
            raise self.unfit("has left scores that are no numbers")
        return [float(value) for value in given]

    def unfit(self, what: str) -> BadInput:
        return BadInput(
            f"scorer {self.name} {what}",
            'a JSON object {"scores": [number, ..]}, one number per picture',
            "fix the command, or leave it out",
        )


def write(image: Any, folder: Path, number: int) -> str:
    """Save a picture; its path."""
    folder.mkdir(exist_ok=True)
    file = folder / f"{number:04d}.png"
    image.save(file)
    return str(file)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a command with whatever it has started and left."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "no output"
