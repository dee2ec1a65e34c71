from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests import tiny
from workbench.comparison import run as module
from workbench.comparison import scorers
from workbench.comparison.run import Suite, compare
from workbench.comparison.statistics import interval, paired_difference, summary
from workbench.records import BadInput, Comparison

EVIL = '<script>alert("x")</script> & a "red" circle'
SUITE = Suite(
    "two <b>bold</b>",
    [{"prompt": EVIL, "category": "text"}, {"prompt": "a blue square", "category": "single"}],
)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("models")
    return [tiny.tiny_qwen_pipeline(root / f"m{seed}", depth=2, seed=seed) for seed in (0, 1)]


class Brightness:
    def score(self, images: list[Image.Image], items: list[dict[str, Any]]) -> dict[str, Any]:
        values = [float(np.asarray(image).mean()) for image in images]
        return {**summary(values, items), "per_image": values}


def run(folders: list[Path], out: Path, **changes: Any) -> Comparison:
    names = changes.pop("names", ["teacher", "student", "teacher again"])
    pairs = list(zip(names, [folders[0], folders[1], folders[0]], strict=False))
    options = {
        "seeds": [0, 7],
        "steps": 2,
        "guidance": 2.0,
        "size": tiny.SIZE,
        "scorers": {**scorers.named(["ssim", "psnr"]), "brightness": Brightness()},
    } | changes
    return list(compare(pairs, SUITE, out=out, **options))[-1].result


@pytest.fixture(scope="session")
def done(folders: list[Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Path]:
    out = tmp_path_factory.mktemp("comparison")
    return run(folders, out), out


def test_a_model_against_itself_shows_no_difference(done: tuple[Comparison, Path]):
    comparison, out = done
    first, student, again = comparison.models
    for a, b in zip(comparison.images[first.name], comparison.images[again.name], strict=True):
        assert (out / a).read_bytes() == (out / b).read_bytes()
    for label in ("ssim", "psnr", "brightness"):
        assert again.difference[label] | {"method": ""} == {
            "mean": 0.0,
            "low": 0.0,
            "high": 0.0,
            "method": "",
        }
        assert again.retention[label] == (1.0 if label == "brightness" else None)
    assert again.scores["ssim"]["overall"] == 1.0 and student.scores["ssim"]["overall"] < 1.0
    assert (
        student.difference["ssim"]["mean"] < 0
        and "10000 resamples" in student.difference["ssim"]["method"]
    )


def test_pictures_scores_and_costs_are_there(done: tuple[Comparison, Path]):
    comparison, out = done
    assert Comparison.load(out / "comparison.json") == comparison
    for model in comparison.models:
        assert len(comparison.images[model.name]) == 4
        assert all(
            Image.open(out / file).size == (tiny.SIZE, tiny.SIZE)
            for file in comparison.images[model.name]
        )
        assert model.ms_per_step > 0 and model.bytes == 4 * model.parameters
        assert {"overall", "low", "high", "text", "single"} <= set(model.scores["brightness"])
    images = [Image.open(out / file) for file in comparison.images["teacher"]]
    assert len({image.tobytes() for image in images}) == 4  # other prompts, other seeds


def test_the_page_asks_for_nothing_outside_and_escapes_text(done: tuple[Comparison, Path]):
    _, out = done
    text = (out / "index.html").read_text()
    assert not re.search(r"https?://|//cdn|@import|<script|<link", text)
    assert html.escape(EVIL, quote=False).split("&")[0] in text and "<b>bold" not in text
    sources = re.findall(r'<img src="([^"]+)"', text)
    assert len(sources) == 12 and all((out / source).is_file() for source in sources)


def test_an_interrupted_comparison_keeps_its_pictures(folders: list[Path], tmp_path: Path):
    steps = compare(
        [("a", folders[0])],
        SUITE,
        seeds=[0],
        steps=2,
        guidance=1,
        size=tiny.SIZE,
        scorers={},
        out=tmp_path,
        batch=1,
    )
    next(steps)
    steps.close()
    kept = next(tmp_path.glob("images/*/0000.png"))
    before = kept.stat().st_mtime_ns
    again = run(folders, tmp_path, names=["a"], seeds=[0], guidance=1, scorers={}, batch=1)
    assert kept.stat().st_mtime_ns == before and len(again.images["a"]) == 2
    run(folders, tmp_path, names=["a"], seeds=[0], guidance=1, scorers={}, batch=1, steps=3)
    assert kept.stat().st_mtime_ns != before


def test_models_of_one_name_are_refused(folders: list[Path], tmp_path: Path):
    with pytest.raises(BadInput, match="different names"):
        run(folders, tmp_path, names=["a", "a"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.jsonl", None, "does not exist"),
        ("latin.jsonl", b"caf\xe9", "not UTF-8"),
        ("empty.txt", b"\n \n", "is empty"),
        ("bad.jsonl", b'{"prompt": "a"}\n{oops\n', "line 2 is not JSON"),
        ("none.jsonl", b'{"text": 1}\n', "line 1 has no prompt"),
        ("list.jsonl", b"[1]\n", "line 1 has no prompt"),
    ],
)
def test_suites_that_cannot_be_read_say_why(
    tmp_path: Path, name: str, content: bytes | None, message: str
):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=message):
        Suite.load(tmp_path / name)


def test_suites_read_json_lines_and_plain_text(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text(
        '{"caption": "a cat", "category": "x"}\n\n{"prompt": "dog"}\n'
    )
    (tmp_path / "b.txt").write_text("one\n\ntwo\n")
    assert [item["prompt"] for item in Suite.load(tmp_path / "a.jsonl").items] == ["a cat", "dog"]
    assert Suite.load(tmp_path / "b.txt").items == [{"prompt": "one"}, {"prompt": "two"}]


def test_unknown_scorers_are_refused():
    with pytest.raises(BadInput, match="one of ssim"):
        scorers.named(["fid"])


def test_the_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(1)
    hits = [
        low <= 0.3 <= high
        for _, low, high in (interval([rng.normal(0.3, 1, 60)]) for _ in range(60))
    ]
    assert 0.86 < np.mean(hits) <= 1


def test_few_prompts_do_not_look_certain():
    assert interval([np.array([0.5])]) == (0.5, None, None)
    # one prompt in each of two categories
    mean, low, high = interval([np.array([0.0]), np.array([1.0])])
    assert low == 0.0 and mean == 0.5 and high == 1.0


def test_seeds_of_one_prompt_are_one_draw():
    items = [{"prompt": str(i // 10), "category": "c"} for i in range(40)]
    values = [float(i // 10 % 2) for i in range(40)]
    assert (
        summary(values, items)["low"] <= 0.05
        and paired_difference(values, values, items)["high"] == 0.0
    )


def test_pngs_are_written_whole(tmp_path: Path):
    module._save(Image.new("RGB", (4, 4)), tmp_path / "a.png")
    assert [f.name for f in tmp_path.iterdir()] == ["a.png"]
