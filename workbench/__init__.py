"""DiT Workbench: compress large diffusion transformers. The functions for notebooks and scripts.

    import workbench as wb
    sensitivity = wb.profile("demo")
    plan = wb.plan("demo", keep=10, rule="amber", sensitivity=sensitivity)
    result = wb.build(plan)
    job = wb.submit("distill", student=result["student"], recipe="workbench")   # in the background
    comparison = wb.compare("demo", result["student"])

Options are the fields of each verb's spec: docs/reference.md, or help(wb.specs.ProfileSpec).
`workspace=` and `device=` are as on the command line. Importing this imports no torch. Every
function raises BadInput for input that the user can fix.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .plugins import load_plugin, register, unregister

if TYPE_CHECKING:
    from .records import Comparison, Plan, Progress, SensitivityMap, Teacher
    from .specs import VerbSpec
    from .workspace.jobs import Job

__version__ = "0.1.0"
__all__ = [
    "benchmark",
    "build",
    "compare",
    "describe",
    "distill",
    "load_plugin",
    "lora",
    "plan",
    "profile",
    "quantize",
    "register",
    "release",
    "reproduce",
    "run",
    "run_demo",
    "submit",
    "unregister",
]


def run(
    verb: str,
    *,
    workspace: Path | str | None = None,
    device: str = "",
    progress: Callable[[Progress], None] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Run a verb in this process and return its result as plain data.

    progress: called with each state of the work. options: fields of the verb's spec.
    """
    from . import tasks

    result: dict[str, Any] = tasks.run(
        verb, spec_of(verb, options, workspace), workspace, progress, device=device
    )
    return result


def submit(
    verb: str,
    *,
    workspace: Path | str | None = None,
    device: str = "",
    title: str = "",
    **options: Any,
) -> Job:
    """Queue a verb as a job; it shows in the app and outlives this process.

    Raises BadInput, before there is a job, for what the verb can refuse.
    """
    from . import tasks
    from .workspace import jobs
    from .workspace.store import Store

    spec = spec_of(verb, options, workspace)
    store = Store(workspace)
    tasks.check(verb, spec, store, device)
    return jobs.submit(store, verb, spec.to_data(), device=device, title=title)


def describe(teacher: str = "demo", *, workspace: Path | str | None = None) -> Teacher:
    """A teacher's family, stacks and tensors, read from its headers without its weights."""
    from .tasks.resolve import resolve
    from .workspace.store import Store

    return resolve(str(teacher), Store(workspace), weights=False).description


def profile(teacher: Path | str = "demo", **options: Any) -> SensitivityMap:
    """Measure how much each block matters at each timestep; higher = keep."""
    from .records import SensitivityMap

    return SensitivityMap.load(run("profile", teacher=teacher, **options)["map"])


def plan(teacher: Path | str = "demo", **options: Any) -> Plan:
    """Let a rule decide what each student block is made of."""
    from .records import Plan

    return Plan.load(run("plan", teacher=teacher, **options)["plan"])


def build(plan: Plan | Path | str, **options: Any) -> dict[str, Any]:
    """Write the student of a plan; its folder is result["student"]."""
    return run("build", plan=plan, **options)


def distill(student: Path | str, **options: Any) -> dict[str, Any]:
    """Train a student to predict what its teacher predicts; its folder is result["student"]."""
    return run("distill", student=student, **options)


def compare(*models: Path | str, **options: Any) -> Comparison:
    """Sample the same prompts and seeds with several models; the first is the reference."""
    from .records import Comparison

    return Comparison.load(run("compare", models=list(models), **options)["comparison"])


def benchmark(name: str, *models: Path | str, **options: Any) -> dict[str, Any]:
    """A published benchmark's pictures, laid out for its own scorer in result["layout"]; without
    models and with results=["MODEL=PATH"], what that scorer found, as scores of the comparison.
    """
    return run("benchmark", name=name, models=list(models), **options)


def reproduce(table: str = "all", **options: Any) -> dict[str, Any]:
    """The papers' tables on the bundled teacher; the page is result["page"]."""
    return run("reproduce", table=table, **options)


def quantize(student: Path | str, to: str, **options: Any) -> dict[str, Any]:
    """A student with the linears of its blocks in fewer bits; its folder is result["student"]."""
    return run("quantize", student=student, to=to, **options)


def lora(file: Path | str, student: Path | str, **options: Any) -> dict[str, Any]:
    """A teacher's LoRA moved to its student; it is result["lora"]."""
    return run("lora", lora=file, student=student, **options)


def release(student: Path | str, **options: Any) -> dict[str, Any]:
    """A student's folder made ready for others; it is result["release"]."""
    return run("release", student=student, **options)


def run_demo(**options: Any) -> dict[str, Any]:
    """Plan, build, distill and compare a student of the bundled teacher, in minutes."""
    return run("demo", **options)


def spec_of(verb: str, options: dict[str, Any], workspace: Path | str | None = None) -> VerbSpec:
    """A verb's spec from Python values: paths, and records, which are saved in the workspace."""
    from .specs import parse_spec

    data = {}
    for name, value in options.items():
        if value is not None:
            data[name] = plain(value, workspace)
    return parse_spec(verb, data, f"workbench.{verb}()").located(Path.cwd())


def plain(value: Any, workspace: Path | str | None) -> Any:
    """A value as plain data: a record as the path of its file in the workspace, a path as text."""
    from .records import Plan, Record, SensitivityMap

    if isinstance(value, list | tuple):
        return [plain(item, workspace) for item in value]
    if isinstance(value, Plan):
        return saved(value, "plan", ".yaml", workspace)
    if isinstance(value, SensitivityMap):
        return saved(value, "map", ".json", workspace)
    if isinstance(value, Record):
        return value.model_dump(mode="json")
    return str(value) if isinstance(value, Path) else value


def saved(
    record: Plan | SensitivityMap, kind: str, suffix: str, workspace: Path | str | None
) -> str:
    """The path of a record's file in the workspace; it is written there unless it is there."""
    from .workspace.store import Store

    store = Store(workspace)
    known = store.find(kind, record.digest)
    if known is not None:
        return known.path
    return str(record.save(store.out(kind, record.digest, suffix)))


def __getattr__(name: str) -> ModuleType:
    """A room of the package (`wb.records`, `wb.charts` ..), imported when it is first used."""
    if name.startswith("_"):
        raise AttributeError(name)
    try:
        return import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if error.name == f"{__name__}.{name}":
            raise AttributeError(f"workbench has no {name!r}") from None
        raise
