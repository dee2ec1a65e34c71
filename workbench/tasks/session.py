"""The resident process for interactive work: keeps pipelines warm and answers rows of the table
`request`.

    python -m workbench.tasks.session --workspace DIR --device cpu

One per device. On a GPU it holds the device's lock, and leaves when a queued job needs the device;
the CPU it shares. It leaves after $WORKBENCH_SESSION_IDLE (600) seconds without a request. The
client's half, without torch, is `requests.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from .. import models, surgery
from ..records import BadInput, Plan
from ..sensitivity.error import relative_change
from ..workspace.processes import lock_path, try_lock
from ..workspace.store import Store
from ..workspace.worker import TICK, next_job, seconds
from .resolve import Sampling, locate, sampling

KEPT = 200  # answers whose pictures are kept


class Session:
    """Warm pipelines of one device, the least recently used let go when memory runs short."""

    def __init__(self, store: Store, device: str):
        self.store, self.device = store, device
        self.pipelines: OrderedDict[str, tuple[float, Any]] = OrderedDict()
        self.references: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self.limit = seconds("WORKBENCH_SESSION_GIB", memory(device) / 2**30 / 2) * 2**30

    def pipeline(self, source: str) -> tuple[Any, Path, str]:
        """A loaded pipeline, its path and its name; loaded again when its files have changed."""
        path, name = locate(source, self.store)
        changed = max(
            (f.stat().st_mtime for f in models.transformer_folder(path).iterdir()), default=0.0
        )
        held = self.pipelines.get(str(path))
        if held is None or held[0] != changed:
            self.pipelines.pop(str(path), None)
            self.pipelines[str(path)] = (changed, models.load_pipeline(path, device=self.device))
        self.pipelines.move_to_end(str(path))
        while (
            len(self.pipelines) > 1
            and sum(size(pipe) for _, pipe in self.pipelines.values()) > self.limit
        ):
            self.pipelines.popitem(last=False)
        return self.pipelines[str(path)][1], path, name

    def tell(self, request: int, message: str) -> None:
        """What is being done, for who waits: the result of a running request holds it until there
        is a real one.
        """
        with self.store.db() as db:
            db.execute(
                "UPDATE request SET result = ? WHERE id = ? AND state = 'running'",
                (json.dumps({"message": message}), request),
            )

    def folder(self, request: int) -> Path:
        """Where a request's pictures go. Their names tell nothing about the models (blind votes)."""
        root = self.store.workspace / "previews"
        for old in sorted(root.glob("*"), key=lambda p: p.stat().st_mtime)[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)
        folder = root / str(request)
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def generate(session: Session, request: int, spec: dict[str, Any]) -> dict[str, Any]:
    """One prompt and seed through several models, sampled as the first one is.

    spec: models, prompt, seed, steps, guidance, size, negative. Result: images (a path per model),
    names, seconds.
    """
    if not spec.get("models"):
        raise BadInput("no model", "at least one", "choose a model")
    how: Sampling | None = None
    images, names, times = [], [], []
    total = len(spec["models"])
    for number, source in enumerate(spec["models"]):
        session.tell(request, f"Loading model {number + 1} of {total}")
        pipe, path, name = session.pipeline(source)
        session.tell(request, f"Sampling model {number + 1} of {total}")
        how = how or sampling(path, name, spec)
        began = time.perf_counter()
        picture = pictures(pipe, [spec["prompt"]], [int(spec.get("seed") or 0)], how, spec)[0]
        times.append(time.perf_counter() - began)
        images.append(save(picture, session.folder(request) / f"{number}.png"))
        names.append(name)
    return {"images": images, "names": names, "seconds": times, **vars(how or Sampling())}


def preview(session: Session, request: int, spec: dict[str, Any]) -> dict[str, Any]:
    """A plan, before it is built: pictures of teacher and student, and the student's error on the
    teacher's trajectory.

    spec: teacher, plan (as plain data), prompts, seeds, steps, guidance, size. Result: teacher and
    student (paths), error (relative squared change of the prediction, the unit of the map),
    seconds. Teacher's half is kept for the next plan.
    """
    session.tell(request, "Loading the teacher")
    pipe, path, name = session.pipeline(spec["teacher"])
    plan, how = Plan.parse(spec["plan"], "plan"), sampling(path, name, spec)
    prompts = list(spec.get("prompts") or [])
    seeds = [int(s) for s in spec.get("seeds") or range(len(prompts))]
    key = json.dumps([str(path), prompts, seeds, vars(how)])
    held = session.references.get(key)
    if held is None:
        session.tell(request, "Sampling the teacher's picture, kept for the next previews")
        held = session.references[key] = reference(pipe, prompts, seeds, how, spec)
    while len(session.references) > 8:
        session.references.popitem(last=False)
    session.tell(request, "Sampling the student's picture")
    began = time.perf_counter()
    with surgery.applied(pipe, plan) as student:
        errors = [
            relative_change(wanted, predict(student, call))
            for call, wanted in zip(held["calls"], held["predictions"], strict=True)
        ]
        made = pictures(pipe, prompts, seeds, how, spec)
    folder = session.folder(request)
    return {
        "teacher": [save(p, folder / f"teacher-{i}.png") for i, p in enumerate(held["pictures"])],
        "student": [save(p, folder / f"student-{i}.png") for i, p in enumerate(made)],
        "error": float(torch.cat(errors).mean()),
        "seconds": time.perf_counter() - began,
    }


SERVICES: dict[str, Callable[[Session, int, dict[str, Any]], dict[str, Any]]] = {
    "generate": generate,
    "preview": preview,
}


def reference(
    pipe: Any, prompts: list[str], seeds: list[int], how: Sampling, spec: dict[str, Any]
) -> dict[str, Any]:
    """The teacher's pictures, four of its calls and what it answered."""
    calls = [
        call
        for call in models.trajectories(
            pipe,
            prompts,
            seeds=seeds,
            steps=how.steps,
            guidance=how.guidance,
            size=how.size,
            timesteps=4,
        )
        if call.branch == "cond"
    ]
    return {
        "calls": calls,
        "predictions": [predict(pipe.transformer, call) for call in calls],
        "pictures": pictures(pipe, prompts, seeds, how, spec),
    }


@torch.no_grad()
def predict(transformer: torch.nn.Module, call: models.Call) -> torch.Tensor:
    weight = next(transformer.parameters())
    return models.prediction(transformer(**models.placed(call.kwargs, weight.device, weight.dtype)))


def pictures(
    pipe: Any, prompts: list[str], seeds: list[int], how: Sampling, spec: dict[str, Any]
) -> list[Image.Image]:
    batches = models.generate(
        pipe,
        prompts,
        seeds=seeds,
        steps=how.steps,
        guidance=how.guidance,
        size=how.size,
        negative=spec.get("negative") or " ",
    )
    return [picture for batch in batches for picture in batch]


def save(picture: Image.Image, path: Path) -> str:
    picture.save(path)
    return str(path)


def size(pipe: Any) -> int:
    """Bytes of a pipeline's weights."""
    parts = (part for part in pipe.components.values() if isinstance(part, torch.nn.Module))
    return sum(tensor.nbytes for part in parts for tensor in part.state_dict().values())


def memory(device: str) -> int:
    """Bytes of memory of a device, or of the machine."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


# --- the loop -------------------------------------------------------------------------------------


def serve(store: Store, device: str) -> bool:
    """Answer requests until none comes. Returns False where another session serves the device."""
    while (lock := hold(store, device)) is not None:
        with store.db() as db:  # nobody else serves: what runs was lost with its session
            db.execute(
                "UPDATE request SET state = 'failed', error = 'the session ended while it "
                "served this; ask again' "
                "WHERE state = 'running' AND device = ?",
                (device,),
            )
        with owned(store, device):
            answer_all(store, device)
        os.close(lock)
        if next_job(store, device) is not None or not waiting(store, device):
            return True
    return False


def hold(store: Store, device: str) -> int | None:
    for _ in range(20):
        if (lock := try_lock(lock_path(store.workspace, "session", device))) is not None:
            return lock
        time.sleep(TICK)
    return None


@contextmanager
def owned(store: Store, device: str) -> Iterator[None]:
    """The device's lock, waited for; the CPU needs none."""
    lock = None
    while (
        device != "cpu" and (lock := try_lock(lock_path(store.workspace, "device", device))) is None
    ):
        time.sleep(0.5)
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


def answer_all(store: Store, device: str) -> None:
    """Answer requests in order until none came for a while, or a queued job needs the GPU."""
    session, last = Session(store, device), time.monotonic()
    while time.monotonic() - last < seconds("WORKBENCH_SESSION_IDLE", 600):
        if device != "cpu" and next_job(store, device) is not None:
            return
        row = take(store, device)
        if row is None:
            time.sleep(TICK)
            continue
        answer(session, *row)
        last = time.monotonic()


def waiting(store: Store, device: str) -> bool:
    with store.db(write=False) as db:
        return (
            db.execute(
                "SELECT 1 FROM request WHERE state = 'queued' AND device = ?", (device,)
            ).fetchone()
            is not None
        )


def take(store: Store, device: str) -> tuple[int, str, dict[str, Any]] | None:
    """Claim the oldest request. Looks before it writes: an idle session must not hold up writers."""
    if not waiting(store, device):
        return None
    with store.db() as db:
        row = db.execute(
            "UPDATE request SET state = 'running' WHERE id = (SELECT min(id) FROM "
            "request WHERE state = 'queued' "
            "AND device = ?) RETURNING id, kind, spec",
            (device,),
        ).fetchone()
    return (row["id"], row["kind"], json.loads(row["spec"])) if row else None


def answer(session: Session, request: int, kind: str, spec: dict[str, Any]) -> None:
    """Serve one request; a fault is its answer, and the session goes on."""
    result, error = None, None
    try:
        if kind not in SERVICES:
            raise BadInput(
                f"request {kind!r}", "one of " + ", ".join(SERVICES), "ask for one of them"
            )
        result = SERVICES[kind](session, request, spec)
    except BadInput as bad:
        error = str(bad)
    except Exception as fault:
        traceback.print_exc()
        error = f"{type(fault).__name__}: {fault}"
    with session.store.db() as db:
        db.execute(
            "UPDATE request SET state = ?, result = ?, error = ? WHERE id = ?",
            (
                "done" if error is None else "failed",
                json.dumps(result) if result is not None else None,
                error,
                request,
            ),
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m workbench.tasks.session")
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--device", required=True)
    arguments = parser.parse_args()
    serve(Store(arguments.workspace), arguments.device)


if __name__ == "__main__":
    main()
