"""Ready scorers: learned scores whose packages need an environment of their own.

A user says in a scorer file which one, and where its environment and weights are:

    ready: hpsv2
    python: /envs/hpsv2/bin/python
    weights: /models/HPS_v2.1_compressed.pt

`learned.py` computes them there. They are the published scores;
docs/benchmarks.md says which of them have been run.
"""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from ...records import BadInput
from ...records.record import Record
from .command import MANIFEST, SCORES, CommandScorer, ScorerFile

PROGRAM = Path(__file__).with_name("learned.py")


@dataclass(frozen=True)
class Ready:
    """A row of the table. weights: what the file's `weights` must be; parts: files that it has
    where it is a folder. install: packages, by pip's names. code: the checkout that it needs.
    """

    unit: str
    source: str
    weights: str
    install: str
    parts: tuple[str, ...] = ()
    item_keys: tuple[str, ...] = ()
    passes: bool = False
    code: str = ""


READY: dict[str, Ready] = {
    "clipscore": Ready(
        unit="2.5 x cosine of CLIP's picture and prompt, 0 where negative",
        source="CLIPScore (arXiv 2104.08718), of the CLIP model given",
        weights="a folder of a CLIP model of transformers with its processor",
        install="transformers torch pillow",
        parts=("config.json",),
    ),
    "pickscore": Ready(
        unit="PickScore: logit of picture and prompt",
        source="PickScore (arXiv 2305.01569), yuvalkirstain/PickScore_v1",
        weights="a folder of yuvalkirstain/PickScore_v1 with a CLIP-H processor",
        install="transformers torch pillow",
        parts=("config.json",),
    ),
    "hpsv2": Ready(
        unit="HPSv2: cosine of picture and prompt (papers print it x 100)",
        source="HPSv2 (arXiv 2306.09341)",
        weights="HPS_v2.1_compressed.pt or HPS_v2_compressed.pt",
        install="hpsv2",
    ),
    "hpsv3": Ready(
        unit="HPSv3: mean of the predicted preference",
        source="HPSv3 (arXiv 2508.03789)",
        weights="a folder with HPSv3.safetensors, and HPSv3_7B.yaml if its own is not used",
        install="hpsv3",
        parts=("HPSv3.safetensors",),
    ),
    "imagereward": Ready(
        unit="ImageReward: standard deviations from the mean of people's preference",
        source="ImageReward (arXiv 2304.05977)",
        weights="a folder with ImageReward.pt and med_config.json",
        install="image-reward",
        parts=("ImageReward.pt", "med_config.json"),
    ),
    "vqascore": Ready(
        unit="VQAScore: probability that the picture shows the prompt",
        source="VQAScore (arXiv 2404.01291), clip-flant5-xxl",
        weights="the cache folder that has clip-flant5-xxl",
        install="t2v-metrics",
    ),
    "geneval": Ready(
        unit="share of pictures that GenEval's detector finds correct",
        source="GenEval (arXiv 2310.11513)",
        weights="the folder of the Mask2Former detector",
        install="mmdet==2.27 open_clip_torch clip-benchmark",
        item_keys=("tag", "include"),
        passes=True,
        code="a checkout of github.com/djghosh13/geneval",
    ),
}


class ReadyFile(Record):
    """A scorer file that names a ready scorer."""

    what: ClassVar[str] = "scorer file"
    ready: str = Field(description="Name of the ready scorer.")
    name: str = Field(default="", max_length=60, description="As it is called in a comparison.")
    python: str = Field(description="The Python of the environment that has its package.")
    weights: str = Field(description="Its weights.")
    code: str = Field(default="", description="Its checkout, where it needs one.")
    minutes: float = Field(default=60, gt=0, description="Longest time of one model's pictures.")


class ReadyScorer(CommandScorer):
    """A ready scorer, in the user's environment."""

    def __init__(self, given: ReadyFile, row: Ready, folder: Path) -> None:
        self.given = given
        self.row = row
        self.python = found_in(folder, given.python)
        arguments = [given.ready, "--weights", str(found_in(folder, given.weights))]
        if given.code:
            arguments += ["--code", str(found_in(folder, given.code))]
        program = shlex.join([str(self.python), str(PROGRAM), *arguments])
        about = ScorerFile(
            name=given.name or given.ready,
            command=f"{program} {MANIFEST} {SCORES}",
            unit=row.unit,
            source=row.source,
            passes=row.passes,
            minutes=given.minutes,
        )
        super().__init__(about, folder)
        self.item_keys = row.item_keys  # type: ignore[misc]

    def prepare(self, device: str) -> None:
        """Raises BadInput where the environment lacks the package."""
        command = [str(self.python), str(PROGRAM), self.given.ready, "--check"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or ["no output"]
            raise BadInput(
                f"scorer {self.name}: {self.given.python}: {lines[-1]}",
                f"an environment with {self.row.install}",
                f"run {self.given.python} -m pip install {self.row.install}",
            )


def load_scorer(file: Path) -> CommandScorer:
    """The scorer that a file describes. Raises BadInput for a file that is not a scorer file, and for a
    ready scorer whose environment or weights are not there.
    """
    folder = file.absolute().parent
    if not names_ready(file):
        return CommandScorer(ScorerFile.load(file), folder)
    given = ReadyFile.load(file)
    if given.ready not in READY:
        raise BadInput(f"{file}: ready {given.ready}", ", ".join(READY), "choose one of them")
    row = READY[given.ready]
    needs = [(given.python, "the Python of its environment"), (given.weights, row.weights)]
    if row.code:
        needs.append((given.code, row.code))
    for path, expected in needs:
        if not path or not found_in(folder, path).exists():
            found = f"{file}: scorer {given.ready}: {path or 'code'} does not exist"
            raise BadInput(found, expected, "correct the path in the file")
    for part in row.parts:
        if not (found_in(folder, given.weights) / part).is_file():
            found = f"{file}: scorer {given.ready}: {given.weights} has no {part}"
            raise BadInput(found, row.weights, "correct the path in the file")
    return ReadyScorer(given, row, folder)


def names_ready(file: Path) -> bool:
    """Whether a scorer file names a ready scorer."""
    from ...records import read_text, read_yaml, yamlfile

    text = read_text(file, ReadyFile.what, yamlfile.MOST_BYTES)
    data = read_yaml(text, str(file), ReadyFile.what)
    return isinstance(data, dict) and "ready" in data


def found_in(folder: Path, path: str) -> Path:
    """A path of a scorer file; relative ones are relative to the file."""
    return folder / Path(path).expanduser()


def wants_file(name: str) -> BadInput:
    """The error for a ready scorer that was named without its file."""
    return BadInput(
        f"scorer {name}, which runs in an environment of its own",
        f"a scorer file with ready: {name}, python and weights ({READY[name].weights})",
        "write one and add --scorer-file FILE.yaml (docs/benchmarks.md)",
    )
