from __future__ import annotations

import html
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests import tiny
from workbench import models
from workbench.comparison.pictures import Settings, save_png
from workbench.comparison.run import Entry, compare
from workbench.comparison.scorers.base import Scorer, score_pictures
from workbench.comparison.scorers.table import SCORERS, choose_scorers
from workbench.comparison.suite import Suite
from workbench.records import BadInput, Comparison, Score

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


class Brightness(Scorer):
    name, unit = "brightness", "mean grey level, 0 to 255"

    def score(self, images: Any, items: Any, reference: Any) -> list[float]:
        return [float(np.asarray(image).mean()) for image in images]


SETTINGS = Settings(seeds=(0, 7), steps=2, guidance=2.0, size=tiny.SIZE)


def run(
    folders: list[Path],
    out: Path,
    names: tuple[str, ...] = ("teacher", "student", "teacher again"),
    scorers: dict[str, Scorer] | None = None,
    settings: Settings = SETTINGS,
) -> Comparison:
    paths = [folders[0], folders[1], folders[0]]
    entries = [Entry(name, path) for name, path in zip(names, paths, strict=False)]
    if scorers is None:
        scorers = {**choose_scorers(["ssim", "psnr"], SUITE.items), "brightness": Brightness()}
    return list(compare(entries, SUITE, scorers, settings, out))[-1].result


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
        difference = again.difference[label]
        assert (difference.mean, difference.low, difference.high) == (0, 0, 0)
        assert not difference.significant
        assert again.retention[label] == (1.0 if label == "brightness" else None)
    assert again.guidance_gap == first.guidance_gap == 1.0
    assert again.scores["ssim"].overall == 1.0 and student.scores["ssim"].overall < 1.0
    assert student.difference["ssim"].mean < 0
    assert "10000 resamples" in student.difference["ssim"].method


def test_pictures_scores_and_costs_are_there(done: tuple[Comparison, Path]):
    comparison, out = done
    assert Comparison.load(out / "comparison.json") == comparison
    page = (out / "index.html").read_text()
    for model in comparison.models:
        assert len(comparison.images[model.name]) == 4
        assert all(
            Image.open(out / file).size == (tiny.SIZE, tiny.SIZE)
            for file in comparison.images[model.name]
        )
        assert model.ms_per_step > 0 and model.bytes == 4 * model.parameters
        assert model.forwards_per_step == 2  # guidance 2: with and without the prompt
        assert model.guidance_gap is not None and "guidance gap</th>" in page
        assert set(model.scores["brightness"].by_category) == {"text", "single"}
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
    settings = replace(SETTINGS, seeds=(0,), guidance=1.0, batch=1)
    steps = compare([Entry("a", folders[0])], SUITE, {}, settings, tmp_path)
    next(steps)
    steps.close()
    picture = next(tmp_path.glob("images/*/0000.png"))
    before = picture.stat().st_mtime_ns
    again = run(folders, tmp_path, ("a",), {}, settings)
    assert picture.stat().st_mtime_ns == before and len(again.images["a"]) == 2
    assert again.models[0].forwards_per_step == 1
    assert again.models[0].guidance_gap is None  # guidance 1: no branch without the prompt
    run(folders, tmp_path, ("a",), {}, replace(settings, steps=3))
    assert picture.stat().st_mtime_ns != before


def test_the_latent_error_is_that_of_what_each_pipeline_would_have_decoded(
    folders: list[Path], tmp_path: Path
):
    scorers = choose_scorers(["latent-error", "ssim"], SUITE.items)
    names = ("teacher", "student")
    comparison = run(folders, tmp_path, names, scorers)
    teacher, student = comparison.models
    assert teacher.scores["latent-error"].per_image == [0.0] * 4
    assert student.retention["latent-error"] is None
    latents = []
    for folder in folders:
        pipe = models.load_pipeline(folder, dtype=None, device="cpu")
        pairs = [(item["prompt"], seed) for item in SUITE.items for seed in SETTINGS.seeds]
        arguments = models.call_arguments(
            pipe, pairs, SETTINGS.steps, SETTINGS.guidance, SETTINGS.negative, SETTINGS.size
        )
        latents.append(pipe(**arguments, output_type="latent").images.float())  # (B, N, C)
    first, own = latents
    errors = (own - first).square().sum((1, 2)) / first.square().sum((1, 2))
    assert student.scores["latent-error"].per_image == pytest.approx(errors.tolist(), rel=1e-4)
    with_latents = sorted(path.name for path in tmp_path.glob("images/0-teacher/*"))
    assert with_latents.count("0000.latents.npy") == 1 and len(with_latents) == 9
    (tmp_path / "images/1-student/0002.latents.npy").unlink()
    assert run(folders, tmp_path, names, scorers).models[1].scores == student.scores


def test_models_of_one_name_are_refused(folders: list[Path], tmp_path: Path):
    with pytest.raises(BadInput) as error:
        run(folders, tmp_path, ("a", "a"))
    assert error.value.found.startswith("models a, a")
    assert not list(tmp_path.iterdir())


def test_json_has_the_categories_beside_the_overall_score(done: tuple[Comparison, Path]):
    comparison, out = done
    [teacher, *_] = json.loads((out / "comparison.json").read_text())["models"]
    score = teacher["scores"]["brightness"]
    assert set(score) == {
        *("overall", "low", "high", "intervals", "per_image", "unit", "direction"),
        *("text", "single"),
    }
    assert score["text"] == comparison.models[0].scores["brightness"].by_category["text"]
    assert Score.model_validate({"overall": 1, "n": 4, "text": 0.5}).by_category == {"text": 0.5}


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("missing.jsonl", None, "does not exist"),
        ("latin.jsonl", b"caf\xe9", "not UTF-8"),
        ("empty.txt", b"\n \n", "is empty"),
        ("bad.jsonl", b'{"prompt": "a"}\n{oops\n', "line 2 is not JSON"),
        ("none.jsonl", b'{"text": 1}\n', "line 1 has no prompt"),
        ("list.jsonl", b"[1]\n", "line 1 has no prompt"),
        ("low.jsonl", b'{"prompt": "a", "category": "low"}\n', "line 1: category low"),
    ],
)
def test_suites_that_cannot_be_read_say_why(
    tmp_path: Path, name: str, content: bytes | None, found: str
):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput) as error:
        Suite.load(tmp_path / name)
    assert found in error.value.found


def test_suites_read_json_lines_and_plain_text(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text(
        '{"caption": "a cat", "category": "x"}\n\n{"prompt": "dog"}\n'
    )
    (tmp_path / "b.txt").write_text("one\n\ntwo\n")
    assert [item["prompt"] for item in Suite.load(tmp_path / "a.jsonl").items] == ["a cat", "dog"]
    assert Suite.load(tmp_path / "b.txt").items == [{"prompt": "one"}, {"prompt": "two"}]


def test_unknown_scorers_and_scorers_that_do_not_fit_are_refused():
    with pytest.raises(BadInput) as error:
        choose_scorers(["fid"], SUITE.items)
    assert error.value.found == "scorer 'fid'" and "ssim" in error.value.expected
    with pytest.raises(BadInput) as error:
        choose_scorers(["scenes"], SUITE.items)
    assert error.value.found == "scorer scenes for a suite whose items have no scene"
    assert list(choose_scorers(None, SUITE.items)) == ["ssim", "psnr"]


@pytest.mark.parametrize("values", [[1.0], [1.0, float("nan")]])
def test_values_that_are_missing_or_not_finite_are_refused(values: list[float]):
    class Odd(Brightness):
        def score(self, images: Any, items: Any, reference: Any) -> list[float]:
            return values

    pictures = [Image.new("RGB", (4, 4))] * 2
    with pytest.raises(BadInput) as error:
        score_pictures(Odd(), pictures, SUITE.items, pictures)
    assert error.value.expected == "a finite number for each picture"


def test_psnr_is_minus_ten_log_of_the_mean_squared_error():
    rng = np.random.default_rng(0)
    one, two = rng.integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    error = np.mean((one.astype(float) - two) ** 2)
    pictures = [Image.fromarray(one), Image.fromarray(one)]
    near, equal = SCORERS["psnr"].score(pictures, [], [Image.fromarray(two), pictures[1]])
    assert near == pytest.approx(10 * np.log10(255**2 / error))
    assert equal == 100


def test_pngs_are_written_whole(tmp_path: Path):
    save_png(Image.new("RGB", (4, 4)), tmp_path / "a.png")
    assert [f.name for f in tmp_path.iterdir()] == ["a.png"]
