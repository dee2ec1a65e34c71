"""DiT Workbench: makes large diffusion transformers small. The face for notebooks and scripts.

    import workbench as wb
    sensitivity = wb.profile("demo")
    plan = wb.plan("demo", keep=10, rule="amber", sensitivity=sensitivity)
    student = wb.build(plan)
    job = wb.submit("distill", student=student["student"], recipe="workbench")   # in the background
    comparison = wb.compare("demo", student["student"])

Importing it imports no torch; rooms (`wb.records`, `wb.charts`, ..) are imported when they are
first used. Flags are the command line's (`workbench profile --help`), with underscores;
`workspace=` and `device=` as there. Raises BadInput for input that a person can mend.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from .records import Comparison, Plan, SensitivityMap, Teacher
    from .workspace.jobs import Job

__version__ = "0.1.0"
__all__ = [
    "build",
    "compare",
    "demo_run",
    "describe",
    "distill",
    "plan",
    "profile",
    "run",
    "submit",
]


def run(
    kind: str,
    *,
    workspace: Path | str | None = None,
    device: str = "",
    progress: Any = None,
    **spec: Any,
) -> Any:
    """Run a verb in this process and return its result as plain data. `progress` is called with
    each Progress.
    """
    from . import tasks

    return tasks.run(kind, _plain(spec, workspace), workspace, progress, device=device)


def submit(
    kind: str,
    *,
    workspace: Path | str | None = None,
    device: str = "",
    title: str = "",
    **spec: Any,
) -> Job:
    """Queue a verb as a job; it shows in the app and outlives this process."""
    from .workspace import jobs
    from .workspace.store import Store

    return jobs.submit(Store(workspace), kind, _plain(spec, workspace), device=device, title=title)


def describe(teacher: str = "demo", *, workspace: Path | str | None = None) -> Teacher:
    """A teacher from its headers, without its weights."""
    from .tasks.info import describe
    from .workspace.store import Store

    return describe(str(teacher), Store(workspace))


def profile(teacher: str = "demo", **flags: Any) -> SensitivityMap:
    """Measure how much each block matters at each timestep."""
    from .records import SensitivityMap

    return SensitivityMap.load(run("profile", teacher=teacher, **flags)["map"])


def plan(teacher: str = "demo", **flags: Any) -> Plan:
    """Let a rule decide what each student block is made of: keep= or budget=, rule=, sensitivity=,
    init=, gain=.
    """
    from .records import Plan

    return Plan.load(run("plan", teacher=teacher, **flags)["plan"])


def build(plan: Plan | Path | str, out: Path | str | None = None, **flags: Any) -> dict[str, Any]:
    """Write the student of a plan; its folder is result["student"]."""
    return run("build", plan=plan, out=out, **flags)


def distill(student: Path | str, out: Path | str | None = None, **flags: Any) -> dict[str, Any]:
    """Train a student to answer as its teacher does; the trained folder is result["student"]."""
    return run("distill", student=student, out=out, **flags)


def compare(*models: Path | str, out: Path | str | None = None, **flags: Any) -> Comparison:
    """Sample the same prompts and seeds with several models; the first is the reference."""
    from .records import Comparison

    return Comparison.load(
        run("compare", models=[str(m) for m in models], out=out, **flags)["comparison"]
    )


def demo_run(**flags: Any) -> dict[str, Any]:
    """The whole way on the bundled teacher."""
    return run("demo", **flags)


def _plain(spec: dict[str, Any], workspace: Path | str | None) -> dict[str, Any]:
    """A spec as plain data: records become files of the workspace, paths become text."""
    from pathlib import Path

    from .records import Plan, Record, SensitivityMap
    from .workspace.store import Store

    out: dict[str, Any] = {}
    for key, value in spec.items():
        if isinstance(value, Plan | SensitivityMap):
            kind, suffix = ("plan", ".yaml") if isinstance(value, Plan) else ("map", ".json")
            known = Store(workspace).find(kind, value.digest)
            value = (
                known["path"]
                if known
                else str(value.save(Store(workspace).out(kind, value.digest, suffix)))
            )
        elif isinstance(value, Record):
            value = value.model_dump(mode="json")
        elif isinstance(value, Path):
            value = str(value.expanduser().absolute())
        if value is not None:
            out[key] = value
    return out


def __getattr__(name: str) -> ModuleType:
    """A room of the package (`wb.records`, `wb.charts`, ..), imported when it is first used."""
    if name.startswith("_"):
        raise AttributeError(name)
    try:
        return importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if error.name == f"{__name__}.{name}":
            raise AttributeError(f"workbench has no {name!r}") from None
        raise
