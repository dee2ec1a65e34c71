"""The client of the session process, which serves previews and samples from loaded models.

`workbench.tasks.session_server` answers. Requests and answers go through the table `request`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from ..records import BadInput, Plan, jsonfile
from ..records.picture_size import Size
from ..records.record import Record
from .devices import chosen_device
from .processes import ensure
from .store import Store

SESSION_MODULE = "workbench.tasks.session_server"


class SamplingRequest(Record):
    """How to sample; what is left out is as the first model is meant to be sampled.

    negative: the negative prompt, for models that take one.
    """

    what = "request"
    steps: int | None = Field(default=None, ge=1)
    guidance: float | None = Field(default=None, ge=0)
    size: Size | None = None  # pixels: a side, or "WIDTHxHEIGHT"
    negative: str = " "


class GenerateRequest(SamplingRequest):
    """One prompt and seed through several models."""

    models: list[str] = Field(min_length=1)
    prompt: str
    seed: int = 0


class PreviewRequest(SamplingRequest):
    """Pictures and error of a plan's student before it is built. seeds: one per prompt.
    conditioning: a file of recorded conditioning vectors, for a rank of modulation where they
    depend on more than the timestep.
    """

    teacher: str
    plan: Plan
    prompts: list[str] = Field(min_length=1)
    seeds: list[int] = Field(default_factory=list)
    conditioning: str | None = None


class GenerateResult(Record):
    """images: a PNG per model. seconds: sampling time per model. The rest: how it was sampled."""

    images: list[str]
    names: list[str]
    seconds: list[float]
    steps: int
    guidance: float
    size: Size
    sampled_as: str = ""


class PreviewResult(Record):
    """teacher, student: a PNG per prompt. error: the student's relative squared change of the
    prediction on the teacher's trajectory, the unit of sensitivity maps. seconds: of the student.
    """

    teacher: list[str]
    student: list[str]
    error: float
    seconds: float


REQUESTS: dict[str, type[SamplingRequest]] = {
    "generate": GenerateRequest,
    "preview": PreviewRequest,
}
RESULTS: dict[str, type[Record]] = {"generate": GenerateResult, "preview": PreviewResult}


class Answer(Record):
    """What has become of a request. message: what the session is doing, while it runs. error: why
    it failed. result: as in RESULTS, once it is done.
    """

    id: int
    kind: str
    state: Literal["queued", "running", "done", "failed"]
    message: str = ""
    error: str = ""
    result: Any = None


def request(
    store: Store, kind: str, spec: SamplingRequest | Mapping[str, Any], *, device: str = ""
) -> int:
    """Ask for something and see to it that a session runs. Returns the request's number.

    Raises BadInput for an unknown kind and for a spec that does not fit it (see REQUESTS).
    """
    if kind not in REQUESTS:
        raise BadInput(f"request {kind!r}", "one of " + ", ".join(REQUESTS), "ask for one of them")
    if not isinstance(spec, SamplingRequest):
        spec = REQUESTS[kind].parse(dict(spec), f"request {kind}")
    device = chosen_device(device)
    statement = (
        "INSERT INTO request (kind, spec, device, state, created) "
        "VALUES (?, ?, ?, 'queued', ?) RETURNING id"
    )
    with store.db() as db:
        row = db.execute(statement, (kind, spec.model_dump_json(), device, time.time())).fetchone()
    ensure_session(store, device)
    number: int = row["id"]
    return number


def result(store: Store, number: int) -> Answer:
    """The answer so far. Starts a session again where one was lost.

    Raises BadInput for a number that `request` did not give, or whose request was withdrawn.
    """
    with store.db(write=False) as db:
        row = db.execute("SELECT * FROM request WHERE id = ?", (number,)).fetchone()
    if row is None:
        raise BadInput(
            f"request {number} is not in {store.workspace}",
            "a number that `request` gave",
            "ask again",
        )
    answer = Answer(id=row["id"], kind=row["kind"], state=row["state"], error=row["error"] or "")
    if answer.state in ("queued", "running"):
        ensure_session(store, row["device"])
    if not row["result"]:
        return answer
    data = jsonfile.parse(row["result"])
    if answer.state == "done":
        return answer.model_copy(update={"result": RESULTS[answer.kind].model_validate(data)})
    return answer.model_copy(update={"message": data.get("message", "")})


def forget(store: Store, number: int) -> None:
    """Withdraw a request that nobody waits for any more; one being served is finished."""
    with store.db() as db:
        db.execute("DELETE FROM request WHERE id = ? AND state != 'running'", (number,))


def ensure_session(store: Store, device: str) -> bool:
    """Start the device's session unless one runs. Returns whether one was started."""
    return ensure(SESSION_MODULE, "session", store.workspace, device)
