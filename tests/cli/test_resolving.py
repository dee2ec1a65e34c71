"""What a person's word for a model stands for, and the prompts in a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.tiny import tiny_transformer
from workbench import tasks
from workbench.records import BadInput
from workbench.tasks.prompts import read_prompts
from workbench.tasks.resolve import DEMO_SAMPLING, Sampling, resolve
from workbench.workspace.store import Store


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resolve") / "tiny"
    tiny_transformer(depth=3, heads=2).save_pretrained(folder)
    return folder.resolve()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "workspace")


def test_a_bundled_teacher(store: Store) -> None:
    model = resolve("demo", store)
    assert (model.kind, model.name, model.bundled) == ("bundled", "demo", True)
    assert model.sampling == DEMO_SAMPLING
    assert model.description.stacks[0].depth == 24


def test_a_folder(folder: Path, store: Store) -> None:
    model = resolve(str(folder), store)
    assert (model.kind, model.name, model.folder) == ("folder", str(folder), folder)
    assert not model.bundled
    assert model.sampling.steps == 50 and model.sampling.guidance == 4.0  # Qwen-Image's
    assert model.fingerprint
    # the workspace keeps the record
    [row] = store.teachers()
    assert row.fingerprint == model.fingerprint


def test_a_student_by_its_folder_and_by_its_name_in_the_workspace(
    folder: Path, store: Store, tmp_path: Path
) -> None:
    plan = tmp_path / "plan.yaml"
    tasks.run("plan", {"teacher": str(folder), "keep": 2, "out": str(plan)}, store.workspace)
    tasks.run("build", {"plan": str(plan)}, store.workspace, device="cpu")
    [row] = store.students()
    for source in (row.path, row.id):
        model = resolve(source, store)
        assert (model.kind, model.folder) == ("student", Path(row.path))
        assert model.card is not None
        assert model.card.teacher == model.original == str(folder)
        assert not model.bundled


def test_a_config_is_described_but_has_no_weights(folder: Path, store: Store) -> None:
    config = folder / "config.json"
    model = resolve(str(config), store, weights=False)
    assert (model.kind, model.has_weights, model.fingerprint) == ("config", False, "")
    assert model.description.parameters == resolve(str(folder), store).description.parameters
    with pytest.raises(BadInput) as refused:
        resolve(str(config), store)
    assert str(config) in refused.value.found


def test_a_broken_card_is_bad_input(folder: Path, store: Store, tmp_path: Path) -> None:
    student = tmp_path / "student"
    student.mkdir()
    (student / "card.json").write_text(json.dumps({"teacher": "demo"}))
    with pytest.raises(BadInput) as refused:
        resolve(str(student), store)
    assert "card.json" in refused.value.found


@pytest.mark.parametrize("source", ["nowhere", "./org/model", "/no/such/folder", "~/no-such/x"])
def test_nothing_there(source: str, store: Store) -> None:
    with pytest.raises(BadInput) as refused:
        resolve(source, store)
    assert source in refused.value.found


def test_a_fault_of_ours_in_reading_the_hub_is_a_traceback(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise TypeError("a bug")

    monkeypatch.setattr("workbench.models.hub.snapshot_download", broken)
    with pytest.raises(TypeError, match="a bug"):
        resolve("some/model", store)


def test_sampling_takes_what_is_given() -> None:
    assert Sampling().changed(steps=4) == Sampling(steps=4)
    # 0 is a value: guidance off
    assert Sampling().changed(guidance=0.0).guidance == 0.0


def test_a_number_sign_before_a_word_is_part_of_a_prompt(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    text = "\ufeff# comment\n#1 dad mug\r\n\n  a cat\u2028on a mat \n#\n#\tanother\na\x0bb\n"
    file.write_bytes(text.encode())
    assert read_prompts(file) == ["#1 dad mug", "a cat\u2028on a mat", "a\x0bb"]


def test_a_file_of_comments_has_no_prompt(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("# one\n\n# two\n")
    with pytest.raises(BadInput) as refused:
        read_prompts(file)
    assert str(file) in refused.value.found
