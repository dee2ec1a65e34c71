"""A released folder: what is in the folder, what its card says, and what never leaves the machine."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from tests.refusals import refused
from tests.release.writable_hub import running
from tests.tiny import tiny_inputs, tiny_qwen_pipeline
from tests.tiny_teacher import plan_of
from workbench import models, surgery, tasks
from workbench.records import Card, Comparison, Difference, ModelResult, Plan, Score
from workbench.specs import ReleaseSpec
from workbench.workspace.store import Store

SPANS = ({"blocks": 0}, {"blocks": [1, 2], "init": "mean", "gain": 2}, {"blocks": 3})


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny teacher with a licence, and its student."""
    root = tmp_path_factory.mktemp("home")
    teacher = tiny_qwen_pipeline(root / "teacher", depth=4)
    # as released models are stored: what loads it in float32 alone mixes it with bfloat16
    pipe = DiffusionPipeline.from_pretrained(teacher, dtype=torch.bfloat16)
    pipe.save_pretrained(teacher)
    (teacher / "LICENSE.md").write_text("Research only.")
    (teacher / "README.md").write_text(
        "---\nlicense: other\nlicense_name: tiny-research\n---\n# A teacher\n"
    )
    description = models.describe(teacher, str(teacher))
    plan = plan_of(*SPANS).model_copy(update={"teacher": str(teacher)})
    list(surgery.build(teacher, description, plan, root / "student"))
    return teacher, root / "student"


@pytest.fixture
def student(folders: tuple[Path, Path], tmp_path: Path) -> Path:
    """A student of this test alone."""
    return Path(shutil.copytree(folders[1], tmp_path / "student"))


def release(workspace: Path, student: Path, **options: Any) -> dict[str, Any]:
    result: dict[str, Any] = tasks.run(
        "release", ReleaseSpec(student=str(student), **options), workspace
    )
    return result


def compared(folder: Path, teacher: Path, student: Path) -> Comparison:
    """A comparison of 4 prompts in 2 categories, with pictures, written to a folder."""
    scores = [
        Score(overall=0.8, low=0.7, high=0.9, by_category={"text": 0.9, "count": 0.7}),
        Score(overall=0.5, low=0.4, high=0.6, by_category={"text": 0.85, "count": 0.15}),
    ]
    results = []
    images = {}
    for number, (path, score) in enumerate(zip((teacher, student), scores, strict=True)):
        results.append(
            ModelResult(
                name=path.name,
                source=str(path),
                parameters=1000 - 400 * number,
                bytes=2000 - 800 * number,
                ms_per_step=10.0 - 4 * number,
                scores={"scenes": score},
                retention={"scenes": (1.0, 0.625)[number]},
                difference={"scenes": Difference(mean=-0.3, low=-0.4, high=-0.2)} if number else {},
            )
        )
        images[path.name] = [f"{number}-{picture}.png" for picture in range(4)]
        for file in images[path.name]:
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 8), (200 * number, 0, 90)).save(folder / file)
    comparison = Comparison(
        suite="scenes",
        prompts=["a cat", "a | b", "<b>two</b>", "a dog"],
        seeds=[0],
        steps=5,
        guidance=1.0,
        size=16,
        models=results,
        images=images,
    )
    comparison.save(folder / "comparison.json")
    return comparison


def test_a_release_loads_like_its_student_and_shares_no_file_with_it(
    student: Path, tmp_path: Path
) -> None:
    result = release(tmp_path / "workspace", student, out=str(tmp_path / "out"))
    out = Path(result["release"])
    inputs = tiny_inputs()
    loaded = []
    for folder in (student, out):
        pipe = DiffusionPipeline.from_pretrained(folder)
        with torch.no_grad():
            loaded.append(pipe.transformer(**inputs)[0])
    assert torch.equal(*loaded)
    for name in result["files"]:
        if (student / name).is_file():
            assert not os.path.samefile(student / name, out / name)
    total = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    assert result["bytes"] == total


def test_the_code_on_the_card_draws_a_picture(
    student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    for readme in (student / "README.md", None):
        if readme is None:
            release(tmp_path / "workspace", student, out=str(out), push="anna/small")
            readme = out / "README.md"
        [code] = re.findall(r"```python\n(.*?)```", readme.read_text(), re.S)
        code = re.sub(r"(width|height)=\d+", r"\1=32", code)
        code = re.sub(r"num_inference_steps=\d+", "num_inference_steps=2", code)
        names: dict[str, Any] = {}
        exec(re.sub("anna/small|FOLDER_OR_HUB_ID", str(readme.parent), code), names)
        assert names["model"].transformer.dtype == torch.bfloat16
    assert names["image"].size == (32, 32)


def test_no_path_of_this_machine_is_in_it(
    folders: tuple[Path, Path], student: Path, tmp_path: Path
) -> None:
    card = Card.load(student / "card.json")
    chain = [{"teacher": str(folders[0]), "plan": "C:\\Users\\anna\\plan.yaml"}]
    card.model_copy(update={"chain": chain}).save(student / "card.json")
    result = release(tmp_path / "workspace", student, out=str(tmp_path / "out"))
    for name in result["files"]:
        data = (tmp_path / "out" / name).read_bytes()
        assert str(tmp_path.parent).encode() not in data, name
        assert b"anna" not in data, name
    assert Card.load(tmp_path / "out" / "card.json").chain[0]["teacher"] == "teacher"
    assert Plan.load(tmp_path / "out" / "plan.yaml").teacher == "teacher"


def test_a_private_path_or_token_in_any_file_is_refused_and_nothing_is_written(
    student: Path, tmp_path: Path
) -> None:
    file = student / "scheduler" / "scheduler_config.json"
    before = json.loads(file.read_text())
    for secret in ("/home/anna/lists", "/Users/anna", "C:\\Users\\anna", "hf_" + "a" * 34):
        file.write_text(json.dumps({**before, "note": secret}))
        with refused(found="scheduler_config.json"):
            release(tmp_path / "workspace", student, out=str(tmp_path / "out"))
        assert not (tmp_path / "out").exists()


def test_files_of_somebody_else_are_left_out_and_named(student: Path, tmp_path: Path) -> None:
    (student / "notes.txt").write_text("call Anna")
    (student / "checkpoints").mkdir()
    (student / "my-lora.safetensors").write_bytes(b"")
    result = release(tmp_path / "workspace", student, out=str(tmp_path / "out"))
    assert result["left_out"] == ["checkpoints", "my-lora.safetensors", "notes.txt"]
    assert not (tmp_path / "out" / "notes.txt").exists()


def test_a_folder_with_files_is_never_written_to(student: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with refused(found="a folder with files"):
        release(tmp_path / "workspace", student, out=str(tmp_path / "out"))
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_what_is_no_student_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with refused(found="no card.json", expected="workbench build"):
        release(tmp_path / "workspace", folders[0], out=str(tmp_path / "out"))


def test_the_teachers_licence_is_carried_over_with_its_file(student: Path, tmp_path: Path) -> None:
    result = release(tmp_path / "workspace", student, out=str(tmp_path / "out"))
    assert result["license"] == "tiny-research"
    assert (tmp_path / "out" / "LICENSE.md").read_text() == "Research only."
    readme = (tmp_path / "out" / "README.md").read_text()
    assert 'license_name: "tiny-research"' in readme and "[LICENSE.md](LICENSE.md)" in readme


def test_a_licence_that_is_not_known_is_said_and_one_given_is_taken(
    student: Path, tmp_path: Path
) -> None:
    (student / "LICENSE.md").unlink()
    card = Card.load(student / "card.json")
    gone = {"teacher": str(tmp_path / "gone"), "original": str(tmp_path / "gone")}
    card.model_copy(update=gone).save(student / "card.json")
    result = release(tmp_path / "workspace", student, out=str(tmp_path / "one"))
    assert result["license"] is None
    assert "was not found" in (tmp_path / "one" / "README.md").read_text()
    given = release(tmp_path / "workspace", student, out=str(tmp_path / "two"), license="mit")
    assert given["license"] == "mit"


def test_the_card_has_the_figures_of_the_comparison(
    folders: tuple[Path, Path], student: Path, tmp_path: Path
) -> None:
    comparison = compared(tmp_path / "comparison", folders[0], student)
    result = release(
        tmp_path / "workspace",
        student,
        out=str(tmp_path / "out"),
        comparison=str(tmp_path / "comparison"),
    )
    readme = (tmp_path / "out" / "README.md").read_text()
    lines = readme.splitlines()
    assert "| scenes (higher = better) | 0.800 (0.700 to 0.900) | 0.500 (0.400 to 0.600) |" in lines
    assert "| scenes, of the teacher's | 100 % | 62.5 % |" in lines
    assert "| time per step, measured side by side | 1 | 0.60 |" in lines
    lost = [line.split("|")[1].strip() for line in lines if re.match(r"\| (text|count) ", line)]
    assert lost == ["count", "text"]  # what lost most comes first
    assert "worse than the teacher" in readme
    assert "2. a \\| b" in readme and "<b>" not in readme  # prompts are text
    strip = Image.open(tmp_path / "out" / "pictures.png").convert("RGB")
    colours = {colour for _, colour in strip.getcolors() or []}
    assert {(0, 0, 90), (200, 0, 90)} <= colours
    assert result["comparison"] == str(tmp_path / "comparison")
    assert len(comparison.prompts) == 4


def test_the_newest_comparison_of_the_workspace_is_taken_but_none_from_before_the_student(
    folders: tuple[Path, Path], student: Path, tmp_path: Path
) -> None:
    store = Store(tmp_path / "workspace")
    folder = store.workspace / "comparisons" / "one"
    compared(folder, folders[0], student)
    store.add("comparison", folder)
    born = (student / "card.json").stat().st_mtime
    for age, expected in ((-10, None), (10, str(folder))):
        os.utime(folder / "comparison.json", (born + age, born + age))
        result = release(tmp_path / "workspace", student, out=str(tmp_path / f"out{age}"))
        assert result["comparison"] == expected
    assert "has not been compared" in (tmp_path / "out-10" / "README.md").read_text()


def test_push_uploads_nothing_without_yes_and_every_file_with_it(
    student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(monkeypatch) as hub:
        options: dict[str, Any] = {"push": "anna/small"}
        dry = release(tmp_path / "w", student, out=str(tmp_path / "dry"), **options)
        assert dry["push"] == {
            "repository": "anna/small",
            "address": None,
            "space_address": None,
            "uploaded": False,
        }
        assert hub.repos == {}
        done = release(tmp_path / "w", student, out=str(tmp_path / "out"), yes=True, **options)
        uploaded = hub.repos["anna/small"]
        assert hub.private == {"anna/small": True}  # unless --public
        assert done["push"]["address"].endswith("/anna/small")
        assert set(uploaded) - {".gitattributes"} == set(done["files"])
        for name in done["files"]:
            assert uploaded[name] == (tmp_path / "out" / name).read_bytes()


def test_a_release_that_was_looked_at_is_uploaded_as_it_lies_there(
    student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command again with --yes; another student's folder is not taken for it."""
    options: dict[str, Any] = {"out": str(tmp_path / "out"), "push": "anna/small"}
    with running(monkeypatch) as hub:
        release(tmp_path / "w", student, **options)
        readme = tmp_path / "out" / "README.md"
        readme.write_text(readme.read_text() + "By hand.")
        with refused(found="a folder with files"):
            release(tmp_path / "w", student, **options)
        release(tmp_path / "w", student, yes=True, **options)
        assert hub.repos["anna/small"]["README.md"].endswith(b"By hand.")
        readme.write_text("see /home/anna/notes")
        with refused(found="README.md"):
            release(tmp_path / "w", student, yes=True, replace=True, **options)
        card = Card.load(student / "card.json")
        card.model_copy(update={"parameters": 7}).save(student / "card.json")
        with refused(found="a folder with files"):
            release(tmp_path / "w", student, yes=True, replace=True, **options)
    assert hub.commits == 1


def test_a_repository_with_files_is_overwritten_only_with_replace(
    student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(monkeypatch) as hub:
        hub.repos["anna/small"] = {"old.safetensors": b"old"}
        options: dict[str, Any] = {"push": "anna/small", "yes": True}
        with refused(found="anna/small has 1 files", do="--replace"):
            release(tmp_path / "w", student, out=str(tmp_path / "one"), **options)
        assert hub.commits == 0 and not (tmp_path / "one").exists()
        release(tmp_path / "w", student, out=str(tmp_path / "two"), replace=True, **options)
        assert "old.safetensors" not in hub.repos["anna/small"]
        assert "README.md" in hub.repos["anna/small"]


def test_a_hub_that_does_not_allow_it_is_one_line_and_the_folder_stays(
    student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(monkeypatch) as hub:
        hub.may_write = False
        with refused(found="does not let you write", do="hf auth login"):
            release(tmp_path / "w", student, out=str(tmp_path / "out"), push="anna/small", yes=True)
        assert (tmp_path / "out" / "README.md").is_file()
    for name in ("small", "a b/c", "a/b/c"):
        with refused(found="--push", expected="OWNER/NAME"):
            release(tmp_path / "w", student, out=str(tmp_path / "x"), push=name)
