"""A scorer that is a command: the same numbers as in this process, and one line where it fails."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.refusals import refused
from workbench.comparison.scorers.base import score_pictures
from workbench.comparison.scorers.command import CommandScorer
from workbench.comparison.scorers.ready import PROGRAM, READY, load_scorer
from workbench.comparison.scorers.similarity import PIXEL_ERROR
from workbench.comparison.scorers.table import choose_scorers, with_files
from workbench.records import BadInput
from workbench.specs import CompareSpec
from workbench.ui.access import Access
from workbench.workspace.store import Store

RNG = np.random.default_rng(0)
PICTURES = [Image.fromarray(RNG.integers(0, 256, (8, 6, 3), dtype=np.uint8)) for _ in range(4)]
OTHERS = PICTURES[::-1]
ITEMS = [{"prompt": f"prompt {number}", "index": number} for number in range(4)]

MEAN_SQUARES = """
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
    return load_scorer(folder / "mine.yaml")


def test_a_program_of_its_own_gives_what_the_same_scorer_gives_in_this_process(tmp_path: Path):
    (tmp_path / "score.py").write_text(MEAN_SQUARES)  # found beside the scorer file
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
        ("echo '{\"scores\": [1]}' > {scores}; : {manifest}", "1 scores for 4"),
        ("echo '{\"scores\": [1, 2, 3, null]}' > {scores}; : {manifest}", "no numbers"),
        ("echo '{\"scores\": [1, 2, 3, NaN]}' > {scores}; : {manifest}", "3 of them finite"),
    ],
)
def test_a_command_that_leaves_no_scores_is_one_line(tmp_path: Path, command: str, found: str):
    mine = scorer(tmp_path, command)
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
    with refused(found="mine.yaml", expected="{manifest}"):
        scorer(tmp_path, "score everything")
    scorer(tmp_path, "run {manifest} {scores}")
    file = str(tmp_path / "mine.yaml")
    assert list(with_files({}, [file], ITEMS)) == ["mine"]
    with refused(found="scorer mine", do="rename"):
        with_files({}, [file, file], ITEMS)


def test_a_browser_names_no_scorer_file(tmp_path: Path):
    scorer(tmp_path, "run {manifest} {scores}")
    access = Access(Store(tmp_path / "workspace"), folders=(tmp_path,))
    with refused(found="scorer files from a browser", do="command line"):
        access.opened(CompareSpec, {"scorer_files": [str(tmp_path / "mine.yaml")]})


# --- ready scorers --------------------------------------------------------------------------------


def ready(folder: Path, name: str, weights: Path, **more: object) -> Path:
    lines = [f"ready: {name}", f"python: {sys.executable}", f"weights: {weights}"]
    lines += [f"{key}: {value}" for key, value in more.items()]
    file = folder / "ready.yaml"
    file.write_text("\n".join(lines) + "\n")
    return file


def test_what_a_ready_scorer_lacks_is_one_line_before_anything_is_sampled(tmp_path: Path):
    with refused(found="scorer hpsv2", expected="ready: hpsv2", do="--scorer-file"):
        choose_scorers(["hpsv2"], ITEMS)
    with refused(found="no-model.pt does not exist", expected="HPS_v2.1_compressed.pt"):
        load_scorer(ready(tmp_path, "hpsv2", tmp_path / "no-model.pt"))
    with refused(found=f"{tmp_path} has no ImageReward.pt", expected="med_config.json"):
        load_scorer(ready(tmp_path, "imagereward", tmp_path))
    with refused(found="ready hpsv9", expected="hpsv3"):
        load_scorer(ready(tmp_path, "hpsv9", tmp_path))
    with refused(found="code does not exist", expected="djghosh13/geneval"):
        load_scorer(ready(tmp_path, "geneval", tmp_path))
    scorer = load_scorer(ready(tmp_path, "vqascore", tmp_path))
    with refused(found="no module t2v_metrics", do="-m pip install t2v-metrics"):
        scorer.prepare("cpu")


def test_a_ready_scorer_for_items_that_lack_its_keys_is_refused(tmp_path: Path):
    file = ready(tmp_path, "geneval", tmp_path, code=tmp_path)
    with refused(found="scorer geneval", expected="tag, include"):
        with_files({}, [str(file)], ITEMS)


GENEVAL = """
import argparse, json
from pathlib import Path
parser = argparse.ArgumentParser()
parser.add_argument("folder")
parser.add_argument("--outfile")
parser.add_argument("--model-path")
given = parser.parse_args()
with open(given.outfile, "w") as out:
    for place in sorted(Path(given.folder).iterdir(), reverse=True):
        about = json.loads((place / "metadata.jsonl").read_text())
        row = {"filename": str(place / "samples" / "00000.png"), "correct": about["tag"] == "two"}
        out.write(json.dumps(row) + "\\n")
"""


def test_genevals_own_program_is_given_its_layout_and_its_answers_keep_their_pictures(
    tmp_path: Path,
):
    from workbench.comparison.scorers import learned

    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "evaluate_images.py").write_text(GENEVAL)
    rows = []
    for number, tag in enumerate(["one", "two", "two", "one"]):
        file = tmp_path / f"{number}.png"
        PICTURES[number].save(file)
        rows.append({"file": str(file), "prompt": "a", "tag": tag, "include": [], "index": number})
    assert learned.geneval(rows, str(tmp_path), str(tmp_path)) == [0, 1, 1, 0]


def tiny_clip(folder: Path) -> tuple[Any, Any]:
    """A CLIP of random weights with its processor, saved as transformers does."""
    transformers = pytest.importorskip("transformers")
    letters = {letter: number for number, letter in enumerate("a0123")}
    whole = {f"{letter}</w>": number + 5 for letter, number in letters.items()}
    vocabulary = {**letters, **whole, "<|startoftext|>": 10, "<|endoftext|>": 11}
    tokenizer = transformers.CLIPTokenizer(vocab=vocabulary, merges=[])
    size = {"shortest_edge": 16}
    crop = {"height": 16, "width": 16}
    images = transformers.CLIPImageProcessor(size=size, crop_size=crop)
    narrow = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    narrow["num_attention_heads"] = 2
    config = transformers.CLIPConfig(
        text_config={**narrow, "vocab_size": 12, "eos_token_id": 11, "bos_token_id": 10},
        vision_config={**narrow, "image_size": 16, "patch_size": 8},
        projection_dim=8,
    )
    model = transformers.CLIPModel(config).eval()
    processor = transformers.CLIPProcessor(image_processor=images, tokenizer=tokenizer)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model, processor


def test_clip_scores_are_those_of_transformers(tmp_path: Path):
    from workbench.comparison.scorers import learned

    model, processor = tiny_clip(tmp_path)
    rows = []
    for number, picture in enumerate(PICTURES):
        file = tmp_path / f"{number}.png"
        picture.save(file)
        rows.append({"file": str(file), "prompt": f"a {number}"})
    inputs = processor(
        text=[row["prompt"] for row in rows],
        images=PICTURES,
        padding="max_length",
        max_length=77,
        return_tensors="pt",
    )
    logits = model(**inputs).logits_per_image.diagonal().tolist()
    assert learned.pickscore(rows, str(tmp_path), "") == pytest.approx(logits, rel=1e-4)
    cosines = [logit / float(model.logit_scale.exp()) for logit in logits]
    expected = [2.5 * max(0, cosine) for cosine in cosines]
    assert learned.clipscore(rows, str(tmp_path), "") == pytest.approx(expected, rel=1e-4)


def test_the_program_of_ready_scorers_has_all_of_them_and_imports_none_of_ours():
    from workbench.comparison.scorers import learned

    assert set(learned.SCORES) == set(READY)
    assert "from workbench" not in PROGRAM.read_text() and "from .." not in PROGRAM.read_text()
