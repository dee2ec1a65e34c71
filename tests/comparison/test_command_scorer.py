"""A scorer that is a command: the same numbers as in this process, and one line where it fails."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.refusals import refused
from workbench.comparison.scorers.base import score_pictures
from workbench.comparison.scorers.command import CommandScorer
from workbench.comparison.scorers.similarity import PIXEL_ERROR
from workbench.comparison.scorers.table import with_files
from workbench.records import BadInput
from workbench.specs import CompareSpec
from workbench.ui.access import Access
from workbench.workspace.store import Store

RNG = np.random.default_rng(0)
PICTURES = [Image.fromarray(RNG.integers(0, 256, (8, 6, 3), dtype=np.uint8)) for _ in range(4)]
OTHERS = PICTURES[::-1]
ITEMS = [{"prompt": f"prompt {number}", "index": number} for number in range(4)]

PROGRAM = """
import json, sys
import numpy as np
from PIL import Image

def pixels(file):
    return np.asarray(Image.open(file).convert("RGB"), dtype=float) / 255

rows = json.load(open(sys.argv[1]))["pictures"]
assert [row["prompt"] for row in rows] == [f"prompt {n}" for n in range(4)]
scores = [((pixels(r["file"]) - pixels(r["reference"])) ** 2).mean() for r in rows]
json.dump({"scores": scores}, open(sys.argv[2], "w"))
"""


def scorer(folder: Path, command: str, **more: object) -> CommandScorer:
    lines = [f"name: mine\ncommand: >-\n  {command}"]
    lines += [f"{key}: {value}" for key, value in more.items()]
    (folder / "mine.yaml").write_text("\n".join(lines) + "\n")
    return CommandScorer.load(folder / "mine.yaml")


def test_a_program_of_its_own_gives_what_the_same_scorer_gives_in_this_process(tmp_path: Path):
    (tmp_path / "score.py").write_text(PROGRAM)  # found beside the scorer file
    mine = scorer(
        tmp_path,
        f"{sys.executable} score.py {{manifest}} {{scores}}",
        needs_reference="true",
        direction="lower = more alike",
        unit="a unit",
    )
    here = score_pictures(PIXEL_ERROR, PICTURES, ITEMS, OTHERS)
    there = score_pictures(mine, PICTURES, ITEMS, OTHERS)
    assert there.per_image == pytest.approx(here.per_image, rel=1e-12)
    assert (there.unit, there.higher_is_better) == ("a unit", False)


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("echo no such model >&2; exit 3; : {manifest} {scores}", "code 3: no such model"),
        ("true {manifest} {scores}", "has left no"),
        ("cat {manifest} > {scores}", "no list of scores"),
        ("echo '{{\"scores\": [1]}}' > {scores}; : {manifest}", "1 scores for 4"),
        ("echo '{{\"scores\": [1, 2, 3, null]}}' > {scores}; : {manifest}", "no numbers"),
        ("echo '{{\"scores\": [1, 2, 3, NaN]}}' > {scores}; : {manifest}", "3 of them finite"),
    ],
)
def test_a_command_that_leaves_no_scores_is_one_line(tmp_path: Path, command: str, found: str):
    mine = scorer(tmp_path, command.replace("{{", "{").replace("}}", "}"))
    with pytest.raises(BadInput) as error:
        score_pictures(mine, PICTURES, ITEMS, OTHERS)
    assert found in error.value.found
    assert "\n" not in str(error.value)


def test_a_command_that_does_not_end_is_ended_with_what_it_started(tmp_path: Path):
    mine = scorer(tmp_path, "sleep 987 & sleep 987; : {manifest} {scores}", minutes=0.005)
    begun = time.monotonic()
    with refused(found="has not ended after 0.005 minutes", do="raise minutes"):
        mine.score(PICTURES, ITEMS, OTHERS)
    assert time.monotonic() - begun < 30
    left = subprocess.run(["pgrep", "-f", "sleep 987"], capture_output=True, text=True, check=False)
    assert [pid for pid in left.stdout.split() if int(pid) != os.getpid()] == []


def test_files_that_are_no_scorer_and_names_that_are_taken_are_refused(tmp_path: Path):
    with refused(found="mine.yaml", do="{manifest}"):
        scorer(tmp_path, "score everything")
    scorer(tmp_path, "run {manifest} {scores}")
    file = str(tmp_path / "mine.yaml")
    assert list(with_files({}, [file])) == ["mine"]
    with refused(found="scorer mine", do="rename"):
        with_files({}, [file, file])


def test_a_browser_names_no_scorer_file(tmp_path: Path):
    scorer(tmp_path, "run {manifest} {scores}")
    access = Access(Store(tmp_path / "workspace"), folders=(tmp_path,))
    with refused(found="scorer files from a browser", do="command line"):
        access.opened(CompareSpec, {"scorer_files": [str(tmp_path / "mine.yaml")]})
