"""What people ask of a job beside stopping it: a checkpoint now, pictures now, the same again with
changes, or more of it.

A request is a file in the job's folder, so that any front end can make one for any job; the job's
process takes it at its next step.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..records import BadInput, jsonfile, write_atomic
from ..specs import VERBS, VerbSpec, facts, parse_spec
from . import job_inputs, jobs
from .cluster import following
from .job_files import read_stop
from .store import Store

REQUESTS = ("save", "sample")
WORDS = {"save": "a checkpoint now", "sample": "pictures now"}


def ask(store: Store, job: str, request: str) -> jobs.Job:
    """Ask a running job for something now: "save" (a checkpoint) or "sample" (pictures).

    Raises BadInput where the job does not run, or its verb has no such thing.
    """
    known = with_plugins(jobs.show(store, job))
    if request not in VERBS[known.kind].requests:
        able = [name for name, verb in VERBS.items() if request in verb.requests]
        raise BadInput(
            f"{WORDS[request]} of job {known.id}, a {known.kind}",
            f"a job of {' or '.join(able)}",
            "choose another job",
        )
    if known.state != "running":
        raise BadInput(
            f"{WORDS[request]} of job {known.id}, which is {known.state}",
            "a running job",
            "see `workbench jobs`",
        )
    write_atomic(known.folder / f"{request}-now", "")
    return known


def take_request(folder: Path, request: str) -> bool:
    """For the job's process: whether someone asked for that since the last look."""
    if read_stop(folder) is not None:
        return False  # a stop comes first
    with suppress(OSError):
        os.unlink(folder / f"{request}-now")
        return True
    return False


def save_now(store: Store, job: str) -> jobs.Job:
    """Have a running job write a checkpoint at its next step."""
    return ask(store, job, "save")


def sample_now(store: Store, job: str) -> jobs.Job:
    """Have a running distillation sample its student at its next step, into samples/."""
    return ask(store, job, "sample")


def duplicate(
    store: Store,
    job: str,
    changes: Mapping[str, Any] | None = None,
    *,
    device: str = "",
    start: bool = True,
) -> jobs.Job:
    """Queue a job with the spec of another, some of its fields changed.

    It gets an output of its own: `<output>-2` and so on, unless one is among the changes. A job of a
    cluster is sent there again. Raises BadInput for an unknown field or a wrong value.
    """
    known = with_plugins(jobs.show(store, job))
    spec = changed_spec(store, known, dict(changes or {}))
    device = device or known.device
    return jobs.submit(
        store,
        known.kind,
        spec,
        device=device,
        title=known.title,
        start=start,
        on=following.settings_of_job(known.folder),
    )


def continue_from(
    store: Store, job: str, changes: Mapping[str, Any] | None = None, *, start: bool = True
) -> jobs.Job:
    """Queue a distillation that goes on from the student that another one has written.

    It starts from the weights alone: the optimizer's state went with the checkpoints. Raises
    BadInput for a job that is not done; one that was stopped is resumed instead.
    """
    known = jobs.show(store, job)
    if known.kind != "distill":
        raise BadInput(
            f"job {known.id} is a {known.kind}", "a distillation", "duplicate it instead"
        )
    if known.state != "done":
        raise BadInput(
            f"job {known.id} is {known.state}", "one that is done", "resume it, or duplicate it"
        )
    spec = changed_spec(store, known, {"student": known.result["student"], **(changes or {})})
    return jobs.submit(
        store,
        known.kind,
        spec,
        device=known.device,
        title=known.title,
        start=start,
        on=following.settings_of_job(known.folder),
    )


def with_plugins(job: jobs.Job) -> jobs.Job:
    """The job, once the plugin files that register its verb are loaded."""
    job_inputs.load_plugins(job.spec.get("plugins") or [])
    return job


def changed_spec(store: Store, job: jobs.Job, changes: dict[str, Any]) -> VerbSpec:
    """A job's spec with other values, and with outputs that are free."""
    spec = dict(job.spec)
    for fact in facts(VERBS[job.kind].spec):
        if fact.place == "output" and isinstance(spec.get(fact.name), str):
            spec[fact.name] = str(free_path(store, Path(spec[fact.name])))
    if "resume" in spec:
        spec["resume"] = False
    return parse_spec(job.kind, {**spec, **changes}, f"the changed spec of job {job.id}")


def free_path(store: Store, path: Path) -> Path:
    """`path` with the first number behind its name that nothing has and no unfinished job writes."""
    taken = set()
    for row in jobs.all_rows(store):
        taken.update(row.output_paths)
    base = path.stem.rstrip("0123456789")
    stem = base.removesuffix("-") if base.endswith("-") else path.stem
    count = 2
    candidate = path.with_name(f"{stem}-{count}{path.suffix}")
    while candidate.exists() or os.path.realpath(candidate) in taken:
        count += 1
        candidate = path.with_name(f"{stem}-{count}{path.suffix}")
    return candidate


def parse_changes(pairs: list[str]) -> dict[str, Any]:
    """FIELD=VALUE pairs of a command line. A value that is JSON is taken as such, another one is
    text.
    """
    changes: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise BadInput(f"--set {pair}", "FIELD=VALUE", "name a field of the job's spec")
        changes[name.replace("-", "_")] = value_of(text)
    return changes


def value_of(text: str) -> Any:
    with suppress(jsonfile.JSONError):
        return jsonfile.parse(text)
    return text
