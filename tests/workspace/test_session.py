"""Interactive requests: the client asks through the database, the resident session answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.tiny import tiny_qwen_pipeline
from tests.tiny_pipelines import tiny_pipeline
from workbench import models, plans, surgery, tasks
from workbench.models import conditioning
from workbench.records import BadInput, Plan
from workbench.tasks import session_server, session_services
from workbench.workspace import devices, jobs, processes, session_client
from workbench.workspace.processes import lock_path, try_lock
from workbench.workspace.session_client import PreviewRequest
from workbench.workspace.store import Store

SMALL = {"steps": 2, "size": 32, "guidance": 1.0}


@pytest.fixture
def started(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Starts of sessions that the client asked for; this test's process serves instead."""
    devices: list[str] = []

    def ensure(module: str, role: str, workspace: Path, device: str) -> bool:
        devices.append(device)
        return True

    monkeypatch.setattr(session_client, "ensure", ensure)
    monkeypatch.setenv("WORKBENCH_SESSION_IDLE", "0.2")
    return devices


def a_plan(store: Store, teacher: str, folder: Path) -> Plan:
    spec = {"teacher": teacher, "keep": 1, "out": str(folder / "plan.yaml")}
    return Plan.load(tasks.run("plan", spec, store.workspace)["plan"])


def answers(store: Store, *requests: tuple[str, dict[str, Any]]) -> list[session_client.Answer]:
    """Ask all, serve all, and read what came."""
    numbers = [session_client.request(store, kind, spec) for kind, spec in requests]
    assert session_server.serve(store, "cpu")
    return [session_client.result(store, number) for number in numbers]


def test_generate_and_preview(store: Store, started: list[str], tmp_path: Path):
    teacher = str(tiny_qwen_pipeline(tmp_path / "teacher", depth=4))
    plan = a_plan(store, teacher, tmp_path)
    same = {"teacher": teacher, "prompts": ["a red circle"], "seeds": [3], **SMALL}
    other = plan.model_copy(update={"family": "other"})
    pair, preview, bad = answers(
        store,
        ("generate", {"models": [teacher] * 2, "prompt": "a red circle", "seed": 3, **SMALL}),
        ("preview", {**same, "plan": plan.as_yaml()}),
        ("preview", {**same, "plan": other.as_yaml()}),
    )
    assert set(started) == {"cpu"}
    first, second = (np.asarray(Image.open(path)) for path in pair.result.images)
    assert (first == second).all(), "the same model, prompt and seed"
    assert (pair.result.steps, pair.result.size) == (2, 32)
    assert preview.state == "done"
    assert preview.result.error > 0
    assert (np.asarray(Image.open(preview.result.teacher[0])) == first).all()
    assert bad.state == "failed"
    assert "family other" in bad.error


@pytest.mark.parametrize(
    ("kind", "spec"),
    [("dance", {}), ("generate", {"models": [], "prompt": "x"}), ("preview", {"teacher": "demo"})],
)
def test_a_request_is_checked_before_it_is_sent(
    store: Store, started: list[str], kind: str, spec: dict[str, Any]
):
    with pytest.raises(BadInput) as error:
        session_client.request(store, kind, spec)
    assert kind in error.value.found
    assert started == []


def test_the_kept_reference_is_the_one_that_was_asked_for(
    store: Store, started: list[str], tmp_path: Path
):
    """Another negative prompt, or other weights of any part, and the teacher is sampled again."""
    folder = tiny_qwen_pipeline(tmp_path / "teacher", depth=2)
    plan = a_plan(store, str(folder), tmp_path)
    spec = PreviewRequest(teacher=str(folder), plan=plan, prompts=["x"], **SMALL | {"guidance": 3})
    served = session_services.Session(store, "cpu")

    def teacher_picture(request: PreviewRequest) -> np.ndarray:
        return np.asarray(Image.open(session_services.preview(served, 1, request).teacher[0]))

    first = teacher_picture(spec)
    assert (teacher_picture(spec) == first).all()
    assert len(served.references) == 1
    negative = spec.model_copy(update={"negative": "a blue square, noise, text"})
    assert (teacher_picture(negative) != first).any()
    [vae] = (folder / "vae").glob("*.safetensors")
    weights = {name: tensor * 1.5 for name, tensor in load_file(vae).items()}
    save_file(weights, vae, metadata={"format": "pt"})
    assert (teacher_picture(spec) != first).any()


def test_the_error_leaves_out_the_variance_channels(
    store: Store, started: list[str], tmp_path: Path
):
    """Against the same number computed from the raw outputs."""
    folder = tiny_pipeline("pixart", tmp_path / "teacher")
    plan = a_plan(store, str(folder), tmp_path)
    spec = PreviewRequest(teacher=str(folder), plan=plan, prompts=["x"], **SMALL)
    served = session_services.Session(store, "cpu")
    error = session_services.preview(served, 1, spec).error
    transformer = served.model(str(folder)).pipeline.transformer
    channels = transformer.config.in_channels
    assert transformer.config.out_channels == 2 * channels
    [reference] = served.references.values()
    expected = []
    with torch.no_grad():
        teacher = [transformer(**call.kwargs)[0][:, :channels] for call in reference.calls]
        with surgery.applied(served.model(str(folder)).pipeline, plan) as student:
            for call, v in zip(reference.calls, teacher, strict=True):
                change = student(**call.kwargs)[0][:, :channels] - v
                expected.append(float(change.square().sum() / v.square().sum()))
    assert error == pytest.approx(np.mean(expected), rel=1e-5)


def test_a_preview_factors_modulation_on_the_recorded_vectors_of_its_file(
    store: Store, started: list[str], tmp_path: Path
):
    """FLUX.1: refused without a file, and another file gives another student; against a student in
    memory that was given the same vectors.
    """
    folder = tiny_pipeline("flux", tmp_path / "teacher")
    teacher = models.describe(folder, "tiny")
    plan = plans.with_modulation(plans.identity(teacher), teacher, 3)
    served = session_services.Session(store, "cpu")
    transformer = served.model(str(folder)).pipeline.transformer
    spec = PreviewRequest(teacher=str(folder), plan=plan, prompts=["x"], **SMALL)
    with pytest.raises(BadInput) as error:
        session_services.preview(served, 1, spec)
    assert "--conditioning" in error.value.do
    width = conditioning.first_modulation(transformer).in_features
    errors = []
    for seed in (0, 1, 0):
        vectors = torch.randn(12, width, generator=torch.Generator().manual_seed(seed))
        file = conditioning.save_vectors(vectors, tmp_path / f"{seed}.safetensors")
        with_file = spec.model_copy(update={"conditioning": str(file)})
        errors.append(session_services.preview(served, 1, with_file).error)
    assert errors[0] == errors[2] != errors[1]
    [reference] = served.references.values()
    conditioning.use_vectors(transformer, vectors)
    student = surgery.student_transformer(transformer, plan)
    pairs = zip(reference.calls, reference.predictions, strict=True)
    expected = []
    for call, prediction in pairs:
        change = session_services.predict(student, call) - prediction
        expected.append(float(change.square().sum() / prediction.square().sum()))
    assert errors[2] == pytest.approx(np.mean(expected), rel=1e-5)
    with pytest.raises(BadInput):  # those of an earlier preview are not used
        session_services.preview(served, 1, spec)


def test_a_request_that_was_being_served_when_the_session_died_fails(
    store: Store, started: list[str]
):
    number = session_client.request(store, "generate", {"models": ["demo"], "prompt": "x"})
    assert session_server.take(store, "cpu") is not None
    session_server.serve(store, "cpu")
    assert "ask again" in session_client.result(store, number).error


def test_a_session_on_a_gpu_leaves_when_a_job_needs_it(
    store: Store, started: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WORKBENCH_SESSION_IDLE", "60")
    monkeypatch.setattr(session_services, "memory", lambda device: 1)
    monkeypatch.setattr(devices, "gpu_count", lambda: 10)
    jobs.submit(store, "count", {"steps": 1}, device="cuda:9", start=False)
    assert session_server.serve(store, "cuda:9")
    assert try_lock(lock_path(store.workspace, "device", "cuda:9")) is not None
    with store.db() as db:
        db.execute("DELETE FROM job")


def test_one_session_a_device(store: Store, started: list[str]):
    lock = try_lock(lock_path(store.workspace, "session", "cpu"))
    assert lock is not None
    assert not session_server.serve(store, "cpu")


def test_many_looks_start_one_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its imports take seconds, in which every look would start another one."""
    monkeypatch.setenv("WORKBENCH_SESSION_IDLE", "0")  # it leaves at once
    (tmp_path / "jobs").mkdir()
    module = session_client.SESSION_MODULE
    started = [processes.ensure(module, "session", tmp_path, "cpu") for _ in range(20)]
    assert started == [True] + [False] * 19
