"""Chains: jobs that are queued at once, each of which needs what the one before it writes.

A job of a chain waits until the one that it follows is done. Where that one fails, it is held; it
goes on by itself once that one has been resumed and is done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from ..records import BadInput, State
from ..records.record import Record
from ..specs import VERBS, VerbSpec, parse_spec
from . import job_inputs, jobs
from .cluster import following
from .cluster.settings import ClusterSettings
from .devices import chosen_device
from .store import Store

Written = dict[str, str]  # verb of an earlier link -> what it writes; "teacher" -> the teacher


@dataclass(frozen=True)
class Link:
    """What a verb can be in a chain. kind, suffix: of the record that it writes. takes: its field
    -> the verb of the link that it is filled by, where the file does not say otherwise.
    """

    kind: str
    suffix: str
    takes: Mapping[str, str]


LINKS: dict[str, Link] = {
    "profile": Link("map", ".json", {"teacher": "teacher"}),
    "plan": Link("plan", ".yaml", {"teacher": "teacher", "sensitivity": "profile"}),
    "build": Link("student", "", {"plan": "plan"}),
    "distill": Link("student", "", {"student": "build", "sensitivity": "profile"}),
    "compare": Link("comparison", "", {}),
}


class ChainFile(Record):
    """A chain: the verbs that are its links, each with the fields of its spec that the others do not
    fill. name: what its records are called.
    """

    what: ClassVar[str] = "chain"

    name: str = Field(default="chain", pattern=r"^[\w.-]+$")
    teacher: str = "demo"
    profile: dict[str, Any] | None = None
    plan: dict[str, Any] | None = None
    build: dict[str, Any] | None = None
    distill: dict[str, Any] | None = None
    compare: dict[str, Any] | None = None


def specs_of(chain: ChainFile, store: Store, folder: Path) -> list[VerbSpec]:
    """The specs of the links, with their outputs and with what they take from each other.

    folder: what relative paths are relative to. Raises BadInput for a value that does not fit, and
    where a link lacks what it needs.
    """
    written: Written = {"teacher": chain.teacher}
    specs = []
    for verb, link in LINKS.items():
        if verb not in chain.model_fields_set:
            continue
        data = {**taken(verb, link, written), **(getattr(chain, verb) or {})}
        if not data.get("out"):
            name = f"{chain.name}-built" if verb == "build" else chain.name
            data["out"] = str(store.out(link.kind, name, link.suffix))
        job_inputs.load_plugins(data.get("plugins") or [])
        spec = parse_spec(verb, data, f"{verb} of the chain").located(folder)
        written[verb] = str(spec.model_dump()["out"])
        specs.append(spec)
    if len(specs) < 2:
        raise BadInput(
            f"a chain of {len(specs)} links", "two at least", f"name some of {', '.join(LINKS)}"
        )
    return specs


def taken(verb: str, link: Link, written: Written) -> dict[str, Any]:
    """What a link's spec takes from the links before it."""
    if verb == "compare":
        students = [written[name] for name in ("distill", "build") if name in written]
        return {"models": [written["teacher"], *students[:1]]}
    return {field: written[name] for field, name in link.takes.items() if name in written}


def submit(
    store: Store,
    specs: list[VerbSpec],
    *,
    device: str = "",
    title: str = "",
    start: bool = True,
    on: ClusterSettings | None = None,
) -> list[jobs.Job]:
    """Queue a chain's jobs, or send them to an engine; each reserves its output now.

    Raises BadInput before any is queued where one cannot be, but for what another one queues in that
    moment, and for what the engine refuses: then those that were sent are cancelled.
    """
    if on is None:
        device = chosen_device(device)
    else:
        following.client_of(on.engine).check()
        device = "cpu" if device == "cpu" or not on.gpus else "cuda"
    outputs: list[str] = []
    for spec in specs:
        job_inputs.input_files(spec, but=outputs)
        outputs += jobs.check_outputs(store, spec)
        if on is not None:
            following.check_nodes(settings_of_link(spec, on), spec.verb, spec, device)
    made: list[jobs.Job] = []
    later: list[str] = []
    try:
        for spec in specs:
            place = jobs.ChainPlace(
                chain=made[0].chain if made else "",
                follows=made[-1].id if made else "",
                later=list(later),
            )
            typed = job_inputs.with_loaded_plugins(spec)
            settings = settings_of_link(spec, on) if on is not None else None
            made.append(
                jobs.create(store, spec.verb, typed, device, title, on=settings, link=place)
            )
            later += jobs.check_outputs(store, spec, but=made[-1].id)
        if on is not None:
            jobs.send(store, made[0])  # and with it those that follow
    except BaseException:
        for job in reversed(made):
            jobs.cancel(store, job.id)
        raise
    if start and on is None:
        jobs.ensure_worker(store.workspace, device)
    return [jobs.show(store, job.id) for job in made]


def settings_of_link(spec: VerbSpec, settings: ClusterSettings) -> ClusterSettings:
    """What a link asks of a cluster: several nodes only where its processes can meet across them."""
    if VERBS[spec.verb].part or not hasattr(spec, "processes"):
        return settings.model_copy(update={"nodes": 1})
    return settings


# --- looking and changing ------------------------------------------------------------------------


class Chain(Record):
    """A chain as it is now. state: of the link that matters most: a failed one, else one that runs,
    else "queued", else "done". step, total: links that are done, and all.
    """

    id: str
    title: str
    state: State
    step: int
    total: int
    error: str = ""
    created: float
    jobs: list[jobs.Job]


def chains_of(listed: list[jobs.Job]) -> dict[str, Chain]:
    """Chain id -> the chain, of jobs in any order."""
    links: dict[str, list[jobs.Job]] = {}
    for job in sorted(listed, key=lambda job: job.created):
        if job.chain:
            links.setdefault(job.chain, []).append(job)
    return {name: summary(name, found) for name, found in links.items()}


IMPORTANT: tuple[State, ...] = (
    "damaged",
    "lost",
    "failed",
    "cancelled",
    "paused",
    "stopping",
    "running",
    "queued",
    "done",
)


def summary(name: str, links: list[jobs.Job]) -> Chain:
    worst = min(links, key=lambda job: IMPORTANT.index(job.state))
    done = [job for job in links if job.state == "done"]
    error = ""
    if worst.state != "done":
        error = f"{worst.id}: {worst.error or worst.message or worst.state}"
    return Chain(
        id=name,
        title=" > ".join(job.kind for job in links),
        state=worst.state,
        step=len(done),
        total=len(links),
        error=error,
        created=links[0].created,
        jobs=links,
    )


def find(store: Store, name: str) -> Chain:
    """A chain by its id. Raises BadInput where there is none."""
    chains = chains_of(jobs.list_jobs(store))
    if name not in chains:
        raise BadInput(
            f"chain {name!r} is not in {store.workspace}", "its id", "see `workbench jobs`"
        )
    return chains[name]


ACTIONS: dict[str, tuple[Callable[[Store, str], jobs.Job], tuple[State, ...]]] = {
    "cancel": (jobs.cancel, ("queued", "paused", "running", "stopping")),
    "pause": (jobs.pause, ("queued", "running")),
    "resume": (jobs.resume, ("paused", "failed", "cancelled", "lost")),
}


def apply(store: Store, name: str, action: str) -> Chain:
    """Pause, resume or cancel the links that this can be done to, the last one first."""
    chain = find(store, name)
    change, states = ACTIONS[action]
    for job in reversed(chain.jobs):
        if job.state in states:
            change(store, job.id)
    return find(store, name)
