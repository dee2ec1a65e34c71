"""The command line (DESIGN section 9). Each verb turns its flags into a spec; `tasks` does the work, here or as a job.

Exit codes: 0 done; 2 bad input, with one line on stderr; 130 stopped by Ctrl-C, to be resumed; 1 a fault of the program.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from . import console, jobs
from .records import BadInput
from .store import Store, default_workspace

UsageError: type[Any] = typer.BadParameter.__mro__[2]  # the base of all complaints about arguments; typer keeps its click private

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
                  context_settings={"help_option_names": ["-h", "--help"]},
                  help="Makes large diffusion transformers small. TEACHER is demo, demo-12, a folder or a Hub id[@revision].")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, nothing else.")]
Workspace = Annotated[Path | None, typer.Option(help="Workspace folder [$WORKBENCH_WORKSPACE or ./workspace].")]
Background = Annotated[bool, typer.Option("--background", help="Run as a job: print its id and return.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1 .. [the first GPU, else cpu].")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Where the result goes [the workspace].")]
Teacher = Annotated[str, typer.Argument(metavar="TEACHER")]
Prompts = Annotated[Path | None, typer.Option(help="Calibration prompts, one a line.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Sampling steps.")]
Guidance = Annotated[float | None, typer.Option(help="Classifier-free guidance.")]
Size = Annotated[int | None, typer.Option(min=1, help="Side of the pictures in pixels.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where a stopped run with the same -o ended.")]
Sensitivity = Annotated[str | None, typer.Option(help="A sensitivity map: a file, or its id in the workspace.")]


@app.command()
def info(teacher: Teacher, as_json: Json = False, workspace: Workspace = None, background: Background = False, device: Device = "") -> None:
    """Family, stacks, parameters per block and part, memory by precision. TEACHER may be a config.json alone."""
    go("info", {"teacher": source(teacher)}, as_json, workspace, background, device,
       lambda r: console.page({**r, "parts": [{"part": k, "parameters": v} for k, v in r["parts"].items()],
                               "stacks": [{k: v for k, v in s.items() if k != "blocks"} for s in r["stacks"]]},
                              {"stacks": [], "parts": []}, hide=("fingerprint",)))


@app.command()
def profile(
    teacher: Teacher, out: Out = None,
    edits: Annotated[str, typer.Option(help="Which edits to score: drop, merge[:init[:gain]], drop:PART; with commas.")] = "drop,merge",
    metric: Annotated[str, typer.Option(help="prediction: relative squared change of the model's prediction.")] = "prediction",
    timesteps: Annotated[int, typer.Option(min=1, help="At how many of the sampling steps.")] = 8,
    prompts: Prompts = None, seeds: Annotated[int, typer.Option(min=1, help="Pictures per prompt.")] = 1,
    steps: Steps = None, guidance: Guidance = None, size: Size = None,
    dtype: Annotated[str | None, typer.Option(help="bf16, fp16 or fp32 [fp32 on a CPU, else as stored].")] = None,
    resume: Resume = False, as_json: Json = False, workspace: Workspace = None, background: Background = False, device: Device = "",
) -> None:
    """Measure how much each block matters at each timestep. Writes a sensitivity map; higher = keep."""
    spec = {"teacher": source(teacher), "out": at(out), "edits": listed(edits), "metric": metric, "timesteps": timesteps,
            "prompts": at(prompts), "seeds": seeds, "steps": steps, "guidance": guidance, "size": size, "dtype": dtype, "resume": resume}
    go("profile", spec, as_json, workspace, background, device, lambda r: console.page({**r, "rows": len(r["rows"])}))


@app.command()
def plan(
    teacher: Teacher, out: Out = None,
    rule: Annotated[str | None, typer.Option(help="uniform, amber, ..: which rule proposes [uniform].")] = None,
    recipe: Annotated[str | None, typer.Option(help="A recipe: its rule and how much it keeps.")] = None,
    sensitivity: Sensitivity = None,
    keep: Annotated[str | None, typer.Option(help="N, or STACK=N,..: blocks of the student.")] = None,
    budget: Annotated[str | None, typer.Option(help="params=0.5: at most this share of the parameters.")] = None,
    init: Annotated[str | None, typer.Option(help="first, last, middle or mean: what a span's block starts as [the rule's].")] = None,
    gain: Annotated[str | None, typer.Option(help="Scale of a merged block's residual step: a number, or length.")] = None,
    single_from: Annotated[int | None, typer.Option(help="Student blocks from this one on are single-stream.")] = None,
    protect: Annotated[str | None, typer.Option(help="Blocks that stay alone: 0,1,23.")] = None,
    timestep_weight: Annotated[str | None, typer.Option(help="normalised, uniform, high-noise or low-noise [the rule's].")] = None,
    show: Annotated[bool, typer.Option("--print", help="Print every span with its reason.")] = False,
    as_json: Json = False, workspace: Workspace = None, background: Background = False, device: Device = "",
) -> None:
    """Decide what each student block is made of. Writes a plan that a person may edit."""
    spec = {"teacher": source(teacher), "out": at(out), "rule": rule, "recipe": found(recipe), "sensitivity": found(sensitivity),
            "keep": kept(keep), "budget": share(budget), "init": init, "gain": factor(gain), "single_from": single_from,
            "protect": numbers(protect, "--protect"), "timestep_weight": timestep_weight}
    go("plan", spec, as_json, workspace, background, device,
       lambda r: console.page({**r, "spans": [{**s, "blocks": str(s["blocks"])} for s in r["spans"]]},
                              {"spans": ["stack", "block", "blocks", "reason"]} if show else {}, hide=() if show else ("spans",)))


@app.command("plan-info")
def plan_info(
    plan: Annotated[Path, typer.Argument(metavar="PLAN")],
    teacher: Annotated[str | None, typer.Option(help="Teacher, where the plan's is elsewhere.")] = None,
    sensitivity: Sensitivity = None,
    as_json: Json = False, workspace: Workspace = None, background: Background = False, device: Device = "",
) -> None:
    """What a plan costs: parameters, memory by precision, predicted speed and error."""
    spec = {"plan": at(plan), "teacher": teacher and source(teacher), "sensitivity": found(sensitivity)}
    go("plan-info", spec, as_json, workspace, background, device, console.page)


@app.command()
def build(
    plan: Annotated[Path, typer.Argument(metavar="PLAN")], out: Out = None,
    teacher: Annotated[str | None, typer.Option(help="Teacher, where the plan's is elsewhere.")] = None,
    dtype: Annotated[str | None, typer.Option(help="bf16, fp16 or fp32 [as stored].")] = None,
    as_json: Json = False, workspace: Workspace = None, background: Background = False, device: Device = "",
) -> None:
    """Write the student of a plan as a diffusers folder, tensor by tensor."""
    spec = {"plan": at(plan), "out": at(out), "teacher": teacher and source(teacher), "dtype": dtype}
    go("build", spec, as_json, workspace, background, device, console.page)


@app.command()
def distill(
    student: Annotated[str, typer.Argument(metavar="STUDENT")], out: Out = None,
    recipe: Annotated[str | None, typer.Option(help="A recipe's distillation spec, by name.")] = None,
    spec: Annotated[Path | None, typer.Option(help="A distillation spec (distill.yaml).")] = None,
    steps: Annotated[int | None, typer.Option(min=0, help="Steps in all, shared among the stages as the spec has them.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="Stop after so many minutes.")] = None,
    data: Annotated[Path | None, typer.Option(help="An image folder with captions, or a file of prompts.")] = None,
    sensitivity: Sensitivity = None, resume: Resume = False,
    estimate: Annotated[bool, typer.Option("--estimate", help="Only say how long and how much memory it would take.")] = False,
    as_json: Json = False, workspace: Workspace = None, background: Background = False, device: Device = "",
) -> None:
    """Train a student to answer as its teacher does."""
    wanted = {"student": source(student), "out": at(out), "recipe": recipe, "spec": at(spec), "steps": steps, "minutes": minutes,
              "data": at(data), "sensitivity": found(sensitivity), "resume": resume, "estimate": estimate}
    go("distill", wanted, as_json, workspace, background, device, console.page)


@app.command()
def compare(
    models: Annotated[list[str], typer.Argument(metavar="TEACHER STUDENT...")], out: Out = None,
    suite: Annotated[str | None, typer.Option(help="scenes, or FILE.jsonl with a prompt a line [scenes for demo teachers].")] = None,
    prompts: Annotated[int | None, typer.Option(min=1, help="Prompts per category of the scenes [40].")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Pictures per prompt.")] = 1,
    steps: Steps = None, guidance: Guidance = None, size: Size = None,
    scorers: Annotated[str | None, typer.Option(help="Scorers, with commas [all that fit the suite].")] = None,
    as_json: Json = False, workspace: Workspace = None, background: Background = False, device: Device = "",
) -> None:
    """Sample the same prompts and seeds with several models, score them and write a page. The first is the reference."""
    spec = {"models": [source(m) for m in models], "out": at(out), "suite": found(suite), "prompts_per_category": prompts,
            "seeds": seeds, "steps": steps, "guidance": guidance, "size": size, "scorers": listed(scorers) if scorers else None}
    go("compare", spec, as_json, workspace, background, device, compared)


@app.command()
def demo(
    out: Out = None, minutes: Annotated[float | None, typer.Option(min=0, help="How long to distill [7].")] = None,
    as_json: Json = False, workspace: Workspace = None, background: Background = False, device: Device = "",
) -> None:
    """The whole way on the bundled teacher, in minutes, ending with a comparison page."""
    go("demo", {"minutes": minutes, "out": at(out)}, as_json, workspace, background, device, compared)


@app.command("jobs")
def jobs_(
    action: Annotated[str, typer.Argument(help="list, show, log, cancel, pause, resume or move.")] = "list",
    job: Annotated[str | None, typer.Argument(metavar="ID", help="A job's id or number.")] = None,
    place: Annotated[int, typer.Argument(metavar="PLACE", help="Where to move it in the queue; 0 is next.")] = 0,
    lines: Annotated[int, typer.Option(min=1, help="How much of the log.")] = 50,
    as_json: Json = False, workspace: Workspace = None,
) -> None:
    """Look after jobs: list, show, log, cancel, pause, resume, move."""
    store = Store(workspace)
    jobs.wake(store)
    if action == "list":
        listing = [summary(entry) for entry in jobs.list_jobs(store)]
        emit({"jobs": listing}, as_json, lambda r: console.table(
            [{**row, "error": (row["error"].splitlines() or [""])[0][:80]} for row in r["jobs"]],
            ["id", "title", "state", "step", "total", "eta", "error"]) if r["jobs"] else "no jobs")
        return
    acts: dict[str, Callable[[str], jobs.Job]] = {
        "show": lambda i: jobs.show(store, i), "cancel": lambda i: jobs.cancel(store, i), "pause": lambda i: jobs.pause(store, i),
        "resume": lambda i: jobs.resume(store, i), "move": lambda i: jobs.move(store, i, place)}
    if action not in (*acts, "log"):
        raise BadInput(f"jobs {action}", "list, show, log, cancel, pause, resume or move", "choose one")
    if job is None:
        raise BadInput(f"jobs {action} without an id", "a job's id or number", "see `workbench jobs list`")
    if action == "log":
        log = jobs.log_tail(store, job, lines)
        emit({"id": job, "log": log}, as_json, lambda r: r["log"])
        return
    found_job = acts[action](job)
    full = {**summary(found_job), "folder": str(found_job.folder), "spec": found_job.spec, "result": found_job.result}
    times = ("created", "started", "ended")
    emit(full if action == "show" else summary(found_job), as_json,
         lambda r: console.page({k: console.date(v) if k in times else v for k, v in r.items()}))


@app.command("app")
def app_(
    workspace: Workspace = None, host: str = "127.0.0.1", port: int = 7860,
    auth: Annotated[str | None, typer.Option(metavar="USER:PASS", help="Ask for this name and password.")] = None,
    auth_file: Annotated[Path | None, typer.Option(help="A file with USER:PASS lines.")] = None,
) -> None:
    """Open the workbench in a browser."""
    from .records import read_text

    lines = [auth] if auth else read_text(auth_file, "auth file").split() if auth_file else []
    for line in lines:
        if not all(line.partition(":")):
            raise BadInput("a login without a name or a password", "USER:PASS", "write both, with a colon between")
    from . import ui

    logins = [(name, word) for name, _, word in (line.partition(":") for line in lines)]
    ui.launch(workspace or default_workspace(), host, port, auth=logins or None)


# --- from flags to a spec ------------------------------------------------------------------------------------------


def at(path: Path | None) -> str | None:
    """Absolute: a job runs in another folder."""
    return str(path.expanduser().absolute()) if path else None


def found(text: str | None) -> str | None:
    """A path where there is one, else the name as it is (of something bundled, or of a record in the workspace)."""
    if text is None:
        return None
    path = Path(text).expanduser()
    return str(path.absolute()) if path.exists() or path.suffix or "/" in text else text


def source(text: str) -> str:
    """A model's folder as an absolute path; demo teachers and Hub ids as they are."""
    path = Path(text).expanduser()
    return str(path.absolute()) if text not in ("demo", "demo-12") and path.exists() else text


def listed(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def numbers(text: str | None, flag: str) -> list[int] | None:
    try:
        return [int(item) for item in listed(text)] if text is not None else None
    except ValueError:
        raise BadInput(f"{flag} {text}", "block numbers with commas", "write it like 0,1,23") from None


def kept(text: str | None) -> int | dict[str, int] | None:
    """--keep: N, or STACK=N,.."""
    try:
        if text is None or "=" not in text:
            return int(text) if text is not None else None
        return {stack.strip(): int(count) for stack, _, count in (item.partition("=") for item in listed(text))}
    except ValueError:
        raise BadInput(f"--keep {text}", "N or STACK=N,..", "write it like --keep 12") from None


def share(text: str | None) -> float | None:
    """--budget params=0.5."""
    if text is None:
        return None
    name, _, value = text.partition("=")
    try:
        if name.strip() == "params":
            return float(value)
    except ValueError:
        pass
    raise BadInput(f"--budget {text}", "params=SHARE", "write it like --budget params=0.5")


def factor(text: str | None) -> float | str | None:
    """--gain: a number, or length."""
    try:
        return text if text in (None, "length") else float(text)
    except ValueError:
        raise BadInput(f"--gain {text}", "a number, or length", "write it like --gain 2") from None


# --- running and showing -------------------------------------------------------------------------------------------


def go(kind: str, spec: dict[str, Any], as_json: bool, workspace: Path | None, background: bool, device: str,
       show: Callable[[dict[str, Any]], str]) -> None:
    """Run a verb here, or queue it; then print its result."""
    spec = {key: value for key, value in spec.items() if value is not None and value is not False}
    if background:
        job = jobs.submit(Store(workspace), kind, spec, device=device)
        emit({"job": job.id, "folder": str(job.folder)}, as_json, lambda r: r["job"])
        return
    quieten()
    from . import tasks

    bar = console.Bar(kind)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what libraries print is not our result
            result = tasks.run(kind, spec, workspace, bar, device=device)
    finally:
        bar.close()
    emit(result, as_json, show)


def quieten() -> None:
    """Keep the libraries' chatter away from stderr, where one line must be enough. $WORKBENCH_DEBUG keeps it."""
    if not os.environ.get("WORKBENCH_DEBUG"):
        warnings.simplefilter("ignore")
        for name in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY"):
            os.environ.setdefault(name, "error")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def emit(result: dict[str, Any], as_json: bool, show: Callable[[dict[str, Any]], str]) -> None:
    print(json.dumps(result) if as_json else show(result), flush=True)


def summary(job: jobs.Job) -> dict[str, Any]:
    return job.model_dump(mode="json", exclude={"spec", "folder"})


def compared(result: dict[str, Any]) -> str:
    """A comparison as a table: models down, scores across."""
    rows = []
    for model in result["models"]:
        row = {key: model.get(key) for key in ("name", "parameters", "ms_per_step")}
        for key, value in model["scores"].items():
            row |= {f"{key} {k}" if k != "overall" else key: v for k, v in value.items() if not isinstance(v, list | dict)} \
                if isinstance(value, dict) else {key: value}
        rows.append(row)
    return console.page({**result, "models": rows}, {"models": []})


def main() -> None:
    """Run the command line and leave with its exit code."""
    try:
        sys.exit(run())
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def run(arguments: list[str] | None = None) -> int:
    """The exit code; every expected error becomes one line on stderr."""
    try:
        return int(app((sys.argv[1:] if arguments is None else arguments) or ["--help"], standalone_mode=False) or 0)
    except BadInput as error:
        return fail(str(error), 2)
    except (typer.Abort, KeyboardInterrupt):
        return fail("interrupted", 130)
    except UsageError as error:
        return fail(" ".join(error.format_message().split()).rstrip(".") + "; see `workbench --help`", 2)
    except Exception as error:
        if type(error).__name__ != "Stopped":
            raise
        return fail(f"stopped; go on with `workbench jobs resume {error}`" if str(error) else "stopped", 130)


def fail(line: str, code: int) -> int:
    print(line, file=sys.stderr)
    return code
