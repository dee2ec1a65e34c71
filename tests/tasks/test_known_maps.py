"""Which map a verb reads: the named one, the newest that fits, the bundled one; and which vectors."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.refusals import refused
from tests.tiny_families import family_inputs, family_model
from workbench import demo, plans
from workbench.models import conditioning
from workbench.records import Modulation, Row, SensitivityMap, Teacher
from workbench.specs import BuildSpec
from workbench.tasks.build import build
from workbench.tasks.context import Context
from workbench.tasks.known_maps import bundled_map, named_map, newest_map, recorded_vectors
from workbench.tasks.resolve import resolve
from workbench.workspace.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "workspace")


def saved(store: Store, name: str, written: int, **fields: object) -> SensitivityMap:
    """A map in the workspace, written at a time in seconds."""
    about = {"teacher": "t", "fingerprint": "f", "family": "qwenimage", "metric": "prediction"}
    row = Row(stack="s", block=0, edit="drop", score=float(written))
    record = SensitivityMap(rows=[row], **{**about, **fields})
    file = record.save(store.workspace / "sensitivity" / f"{name}.json")
    os.utime(file, (written, written))
    return record


def described(name: str = "t", fingerprint: str = "f") -> Teacher:
    return Teacher(
        name=name, family="qwenimage", class_name="X", outside=0, stacks=[], fingerprint=fingerprint
    )


def anything(metric: str, edits: Sequence[str]) -> bool:
    return True


def test_a_map_is_named_by_its_file_its_name_or_its_id(store: Store) -> None:
    record = saved(store, "mine", 1)
    file = store.workspace / "sensitivity" / "mine.json"
    for name in (str(file), "mine", record.digest):
        assert named_map(name, store) == record
    with refused(found="nowhere"):
        named_map("nowhere", store)


def test_the_newest_map_that_fits_is_taken(store: Store) -> None:
    older = saved(store, "older", 1)
    newer = saved(store, "newer", 2, metric="cka")
    saved(store, "another", 3, fingerprint="g")
    assert newest_map(described(), store, anything) == newer
    assert newest_map(described(), store, lambda metric, edits: metric != "cka") == older
    assert newest_map(described(fingerprint="h"), store, anything) is None


def test_a_map_of_packed_weights_is_the_last_and_is_named(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = saved(store, "plain", 1)
    packed = saved(store, "packed", 2, metric="cka", measured={"teacher_weights": "nf4"})
    assert newest_map(described(), store, anything) == plain
    assert capsys.readouterr().err == ""
    assert newest_map(described(), store, lambda metric, edits: metric == "cka") == packed
    line = capsys.readouterr().err
    assert "packed.json" in line and "nf4" in line


def test_without_a_fingerprint_the_name_decides(store: Store) -> None:
    saved(store, "one", 1, fingerprint="", teacher="one")
    saved(store, "two", 2, fingerprint="", teacher="two")
    record = newest_map(described("one", ""), store, anything)
    assert record is not None and record.teacher == "one"


def test_a_bundled_teachers_own_map_is_the_last_resort_and_must_fit_too(store: Store) -> None:
    teacher = described("demo")
    bundled = SensitivityMap.load(demo.map_of("demo"))
    assert newest_map(teacher, store, anything) == bundled == bundled_map(teacher)
    assert newest_map(teacher, store, lambda metric, edits: metric == "cka") is None
    own = saved(store, "own", 1, teacher="demo")
    assert newest_map(teacher, store, anything) == own
    assert bundled_map(described()) is None


def test_vectors_are_those_of_the_newest_map_that_has_some(store: Store) -> None:
    """Two maps have vectors; the newest of all has none."""
    sd3 = Teacher(
        name="t", family="sd3", class_name="X", outside=0, stacks=[], fingerprint="f", config={}
    )
    assert recorded_vectors(sd3, store) is None
    for second, name in enumerate(("old", "new", "bare")):
        saved(store, name, second, family="sd3")
    folder = store.workspace / "sensitivity"
    for name in ("old", "new"):
        (folder / f"{name}.conditioning.safetensors").touch()
    assert recorded_vectors(sd3, store) == str(folder / "new.conditioning.safetensors")


def test_no_vectors_are_needed_where_they_follow_the_timestep(store: Store) -> None:
    saved(store, "map", 1)
    (store.workspace / "sensitivity" / "map.conditioning.safetensors").touch()
    assert recorded_vectors(described(), store) is None


def test_a_build_takes_the_vectors_that_were_recorded_with_the_map(store: Store) -> None:
    """Bit for bit the student that --conditioning with the same file makes."""
    model = family_model("sd3")
    folder = store.workspace / "teachers" / "sd3"
    model.save_pretrained(folder)
    teacher = resolve(str(folder), store).description
    with conditioning.seen_vectors(model) as seen, torch.no_grad():
        for seed in range(8):
            model(**family_inputs("sd3", seed=seed))
    saved(store, "map", 1, family="sd3", teacher=teacher.name, fingerprint=teacher.fingerprint)
    vectors = store.workspace / "sensitivity" / "map.conditioning.safetensors"
    conditioning.save_vectors(torch.cat(seen), vectors)
    whole = plans.identity(teacher)
    [(stack, spans)] = whole.stacks.items()
    first = spans[0].model_copy(update={"modulation": Modulation(rank=4)})
    plan = whole.model_copy(update={"stacks": {stack: [first, *spans[1:]]}})
    file = plan.save(store.workspace / "plan.yaml")

    def built(name: str, **given: str) -> dict[str, torch.Tensor]:
        out = store.workspace / name
        spec = BuildSpec(plan=str(file), teacher=str(folder), out=str(out), **given)
        assert list(build(spec, Context(store)))[-1].result is not None
        return load_file(out / "diffusion_pytorch_model.safetensors")

    found = built("found")
    named = built("named", conditioning=str(vectors))
    assert any("down.weight" in name for name in found)
    assert found.keys() == named.keys()
    assert all(torch.equal(found[name], named[name]) for name in found)
