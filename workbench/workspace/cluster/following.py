"""Jobs and their engines: sending, asking how they are, having them ended.

Nothing runs here between two looks: whoever looks asks the engine, and writes its answer into the
job's folder, where the next one finds it.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ...plugins import registry
from ...records import BadInput, jsonfile, write_atomic, yamlfile
from ...specs import VERBS, VerbSpec
from .. import job_rows
from ..database import IndexUnavailable
from ..job_files import attempts_with_metrics, clear_end, read_stop
from ..job_rows import JobRow
from ..notices import notify
from . import engine_state
from .engine_files import Answer, read_answer, read_start, shard_folders, write_answer
from .settings import ClusterSettings
from .table import Client, Engine, Sending

if TYPE_CHECKING:
    from ..store import Store

FRESH = 1.5  # seconds: who looks again within them gets the last answer
SILENCE = 30.0  # seconds until an engine that did not answer is asked again
ENDING = 60.0  # seconds for the last processes of a job that has failed or stopped
OVERDUE = 120.0  # seconds after a cancel; the node itself uses force after 60


def client_of(engine: str) -> Client:
    """How to talk to an engine. Raises BadInput for one that we only print files for."""
    row: Engine = registry("engine")[engine]
    if row.client is None:
        able = [name for name, other in registry("engine").items() if other.client is not None]
        raise BadInput(
            f"--on {engine}", " or ".join(able), f"print a file for it with --print {engine}"
        )
    return row.client


# --- sending --------------------------------------------------------------------------------------


def check_nodes(settings: ClusterSettings, verb: str, spec: VerbSpec, device: str) -> None:
    """Raises BadInput where the job's processes cannot be shared between nodes and GPUs as the
    settings say.
    """
    processes = int(getattr(spec, "processes", 1) or 1)
    together = not VERBS[verb].part and hasattr(spec, "processes")
    nodes = settings.nodes
    if nodes > 1 and not together:
        raise BadInput(
            f"nodes: {nodes} for {verb}",
            "nodes: 1; only processes of one distillation meet across nodes",
            "change slurm.yaml, or send the tasks of an array with --processes",
        )
    if processes % nodes:
        raise BadInput(
            f"{processes} processes on {nodes} nodes",
            "the same number on each",
            f"--processes {nodes * -(-processes // nodes)}",
        )
    per_node = processes // nodes
    if together and device != "cpu" and per_node > settings.gpus:
        raise BadInput(
            f"{per_node} processes on a node with gpus: {settings.gpus}",
            "a GPU for each process",
            f"gpus: {per_node} in slurm.yaml",
        )


def write_settings(folder: Path, settings: ClusterSettings) -> None:
    text = yamlfile.dump(settings.model_dump(mode="json", exclude_defaults=True))
    write_atomic(folder / "cluster.yaml", text)


def settings_of_job(folder: Path) -> ClusterSettings | None:
    """What a job asked of a cluster; None for one of this machine."""
    file = folder / "cluster.yaml"
    return ClusterSettings.load(file) if file.exists() else None


def send(row: JobRow, folder: Path, after: str = "") -> str:
    """Send a job to its engine; returns its number there. after: the number of the job that must be
    done before. Raises BadInput.
    """
    settings = ClusterSettings.load(folder / "cluster.yaml")
    begun = read_start(folder)
    attempts = [row.attempt, *attempts_with_metrics(folder)]
    if begun is not None:
        attempts.append(begun.attempt)
    sending = Sending(
        folder=folder,
        title=row.id,
        settings=settings,
        device=row.device,
        attempt=max(attempts) + 1,
        tasks=tasks_of(row),
        after=after,
    )
    return client_of(settings.engine).send(sending)


def tasks_of(row: JobRow) -> int:
    """How many tasks of an array share the work; 1 where one does it all."""
    if not VERBS[row.kind].part:
        return 1
    return int(jsonfile.parse(row.spec).get("processes") or 1)


def clear(folder: Path) -> None:
    """Forget what the engine and an array's tasks said of an earlier attempt."""
    (folder / "engine.json").unlink(missing_ok=True)
    for shard in shard_folders(folder):
        clear_end(shard)


def follow(row: JobRow, after: str) -> None:
    """Have a job that waits at its engine wait for another one, by its number there. Raises BadInput
    where the engine refuses that.
    """
    if row.engine is None or row.engine_id is None:
        return
    try:
        client_of(row.engine).follow(row.engine_id, after)
    except OSError as error:
        raise BadInput(
            f"{row.engine} did not let {row.id} wait for job {after} ({error})",
            "a job that waits",
            f"cancel and resume {row.id}",
        ) from None


# --- ending ---------------------------------------------------------------------------------------


def withdraw(row: JobRow) -> None:
    """Have the engine forget a job that waits, or end one that runs; others are left alone."""
    if row.engine is not None and row.engine_id is not None and row.state == "running":
        try:
            client_of(row.engine).withdraw(row.engine_id)
        except OSError as error:
            raise BadInput(
                f"{row.engine} does not answer ({error})", "an answer", "try again later"
            ) from None


def wait_until_ended(row: JobRow) -> None:
    """Wait until the engine has nothing left of a job's last attempt, and end what still runs.

    The other tasks of a failed array, for one, may still write into its folder how they ended, which
    would then count for the next attempt. Raises BadInput where they do not end, or the engine does
    not answer.
    """
    if row.engine is None or row.engine_id is None:
        return
    client = client_of(row.engine)
    number = row.engine_id
    end = time.monotonic() + ENDING
    try:
        while client.ask([number])[number].state in ("waiting", "running"):
            client.withdraw(number)
            if time.monotonic() > end:
                found = f"{row.engine} still has job {number}, the last attempt of {row.id}"
                raise BadInput(found, "an attempt that has ended", "try again in a minute")
            time.sleep(0.3)
    except OSError as error:
        raise BadInput(
            f"{row.engine} does not answer ({error})", "an answer", "try again later"
        ) from None


# --- looking --------------------------------------------------------------------------------------


def look(store: Store) -> None:
    """Ask the engines after their jobs, write their answers down, and how the jobs have ended."""
    rows = rows_of_engines(store)
    for engine in {row.engine for row in rows if row.engine}:
        due = [row for row in rows if row.engine == engine and is_due(store, row)]
        if due:
            with suppress(BadInput):  # an engine of a plugin that is not loaded here
                ask(store, engine, due)
    for row in rows:
        settle(store, row)


def rows_of_engines(store: Store) -> list[JobRow]:
    """The jobs that engines have, as far as their rows say."""
    query = "SELECT * FROM job WHERE state = 'running' AND engine IS NOT NULL"
    try:
        with store.db(write=False) as db:
            found = db.execute(query).fetchall()
    except (IndexUnavailable, OSError):
        return []
    rows = [job_rows.parse_row(dict(row)) for row in found]
    return [row for row in rows if job_rows.folder_of(store.workspace, row.id).is_dir()]


def is_due(store: Store, row: JobRow) -> bool:
    """Whether the last answer is too old. A job that has not been sent has none."""
    answer = read_answer(job_rows.folder_of(store.workspace, row.id))
    if row.engine_id is None:
        return False
    if answer is None:
        return True
    pause = SILENCE if answer.silent else FRESH
    return not 0 <= time.time() - answer.asked < pause


def ask(store: Store, engine: str, rows: list[JobRow]) -> None:
    """Ask an engine after jobs. One that does not answer leaves its last answers, marked so."""
    numbers = [row.engine_id for row in rows if row.engine_id is not None]
    silent = ""
    answers: dict[str, Answer] = {}
    try:
        answers = client_of(engine).ask(numbers)
    except OSError as error:
        silent = f"{engine} does not answer: {error}"
    for row in rows:
        folder = job_rows.folder_of(store.workspace, row.id)
        answer = answers.get(row.engine_id or "")
        if answer is None:
            before = read_answer(folder) or Answer(state="waiting")
            answer = before.model_copy(update={"silent": silent, "asked": time.time()})
        with suppress(OSError):
            write_answer(folder, answer)
        if is_overdue(row, folder, answer):
            with suppress(BadInput):
                withdraw(row)


def is_overdue(row: JobRow, folder: Path, answer: Answer) -> bool:
    """Whether a job still runs long after somebody cancelled it."""
    if answer.state != "running" or (row.stop or read_stop(folder)) != "cancel":
        return False
    return row.stop_at is not None and time.time() - row.stop_at > OVERDUE


def settle(store: Store, row: JobRow) -> None:
    """Write down how a job ended, unless it has been sent again meanwhile."""
    folder = job_rows.folder_of(store.workspace, row.id)
    state, _ = engine_state.derive(row, folder)
    if state in ("queued", "running", "stopping"):
        return
    answer = read_answer(folder)
    left = answer is not None and answer.state in ("waiting", "running")
    if state != "done" and left and shard_folders(folder):
        with suppress(BadInput):  # the other tasks of the array
            withdraw(row)
    with suppress(IndexUnavailable, OSError), store.db() as db:
        now = job_rows.read_row(db, row.id)
        if now is None or now.state != "running" or now.engine_id != row.engine_id:
            return
        state, error = engine_state.derive(now, folder)
        values = {"state": state, "error": error, "ended": time.time()}
        begun = read_start(folder)
        if begun is not None:
            values |= {"attempt": begun.attempt, "started": begun.time}
        job_rows.update_row(db, folder, values)
    notify(folder, state)
