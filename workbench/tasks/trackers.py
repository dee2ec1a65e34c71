"""Experiment trackers (trackio, tensorboard ..) that get a distillation's metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from accelerate.state import PartialState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

from ..records import BadInput
from .distill_work import DistillWork


def check_trackers(names: Iterable[str]) -> None:
    """Raises BadInput for a tracker that does not exist."""
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            known = "one of " + ", ".join(LOGGER_TYPE_TO_CLASS)
            raise BadInput(f"tracker {name!r}", known, "choose one")


@contextmanager
def opened(work: DistillWork) -> Iterator[list[GeneralTracker]]:
    """The trackers that the spec names, closed in the end.

    Raises BadInput for an unknown one, and for one that is not installed.
    """
    trackers: list[GeneralTracker] = []
    try:
        for name in work.spec.trackers:
            PartialState()  # accelerate's trackers ask it whether this is the first process
            trackers.append(opened_tracker(name, work))
        yield trackers
    finally:
        for tracker in trackers:
            close(tracker)


def opened_tracker(name: str, work: DistillWork) -> GeneralTracker:
    check_trackers([name])
    kind = LOGGER_TYPE_TO_CLASS[name]
    folder = {}
    if kind.requires_logging_directory:
        folder = {"logging_dir": str(work.out.parent / "tracking")}  # beside the student
    tracker = kind(work.out.name, **folder)
    try:
        tracker.start()
    except ImportError:
        found = f"tracker {name} is not installed"
        raise BadInput(found, f"the package {name}", f"pip install {name}") from None
    tracker.store_init_configuration(
        {
            "stages": ", ".join(stage.name for stage in work.stages.stages),
            "student": str(work.line.student.folder),
            "spec": work.stages.digest,
        }
    )
    return tracker


def close(tracker: GeneralTracker) -> None:
    """Close a tracker.

    accelerate's way leaves trackio's run the current one: it would be closed again, and say so on
    stdout, at exit.
    """
    if tracker.name == "trackio":
        import trackio

        trackio.finish()
    else:
        tracker.finish()
