"""The loop for metrics that score one call at a time: progress, resuming, several processes, and
ending once the order of blocks is stable or a race is decided."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from ..models.sampling import Call
from ..records import BadInput, Progress, Teacher
from .estimate import estimate
from .partial import Partial, identity
from .race import Races
from .results import CallScores, Key, Measurement, Scores, mean_rows, no_calls
from .scan import Scan
from .scan_settings import Setting
from .stability import stability
from .table import Metric, resolved


class CallLoop:
    """One scan over many calls."""

    def __init__(
        self, scan: Scan, teacher: Teacher, name: str, metric: Metric, setting: Setting
    ) -> None:
        self.scan = scan
        self.teacher = teacher
        self.metric = metric
        self.score = resolved(metric.measure)
        self.setting = setting
        edits = [edit.name for edit in scan.edits]
        self.race: Races | None = None
        how = {}
        if setting.race is not None:
            self.race = Races(scan, setting.race, setting.weighting)
            how = {"race": setting.race, "weighting": setting.weighting}
        self.partial = Partial(setting.partial, teacher.fingerprint, edits, name, **how)
        self.finished: list[CallScores] = []

    def run(self, calls: Iterator[Call]) -> Iterator[Progress]:
        """Score every call; the last Progress has the Measurement."""
        estimated = not self.scan.cached
        for call in calls:
            if self._enough(call):
                break
            scores = self._known(call)
            if scores is None:
                if not estimated:
                    yield self._estimate(call)
                    estimated = True
                scores = self.scored(call)
            self.finished.append(scores)
            yield self._progress(scores)
        if self.setting.gather is not None:
            self.finished = in_order(self.setting.gather(self.finished))
        self._check()
        yield self._result()

    def _enough(self, call: Call) -> bool:
        """Whether to end before this call: it opens a batch, and every order is stable already, or
        every block settled."""
        if not self.finished or call.group == self.finished[-1].group:
            return False
        if self.race is not None:
            self.race.look(self.finished)
            return self.race.decided
        if not self.setting.until_stable:
            return False
        found = stability(self.finished, self.setting.weighting)
        return bool(found) and all(one.stable for one in found.values())

    def scored(self, call: Call) -> CallScores:
        """Measure a call and keep its scores."""
        before = self.scan.evaluations
        scores: Scores = self.score(self.scan, call)
        evaluations = self.scan.evaluations - before
        naive = self.scan.naive_evaluations if self.scan.edits else evaluations
        if self.partial.path is not None:
            entries = [[*key, values] for key, values in scores.items()]
            result = {"scores": entries, "evaluations": evaluations, "naive_evaluations": naive}
            self.partial.put(identity(call), result)
        return CallScores(call.group, call.timestep, scores, call.prompts, evaluations, naive)

    def _known(self, call: Call) -> CallScores | None:
        """A call's scores where a stopped scan has them."""
        if self.partial.path is None:
            return None
        kept = self.partial.get(identity(call))
        if kept is None:
            return None
        scores = {Key(*fields): values for *fields, values in kept["scores"]}
        return CallScores(
            call.group,
            call.timestep,
            scores,
            call.prompts,
            kept["evaluations"],
            kept["naive_evaluations"],
        )

    def _estimate(self, call: Call) -> Progress:
        done = len(self.finished)
        rest = max(self.setting.total - done, 1)
        evaluations = None
        if not self.scan.edits:
            evaluations = self.metric.forwards * len(self.scan.blocks)
        found = estimate(
            self.scan, call, rest, evaluations=evaluations, sampling=self.setting.sampling
        )
        return Progress(
            step=done,
            total=rest + done,
            message=found.sentence,
            metrics={f"estimated_{name}": value for name, value in asdict(found).items()},
        )

    def _progress(self, call: CallScores) -> Progress:
        step = len(self.finished)
        message = f"prompts {call.group}, timestep {call.timestep:.0f}"
        metrics = {
            "timestep": call.timestep,
            "group": call.group,
            "mean_score": mean_score(call.scores),
        }
        if self.race is not None:
            metrics["undecided"] = self.race.undecided
            message += f", {self.race.undecided} blocks not settled"
        return Progress(
            step=step, total=max(self.setting.total, step), message=message, metrics=metrics
        )

    def _check(self) -> None:
        if not self.finished:
            raise no_calls()
        if not any(call.scores for call in self.finished):
            names = ", ".join(edit.name for edit in self.scan.edits)
            raise BadInput(
                f"edits {names} apply to no block of {self.teacher.name}",
                "an edit of this family",
                "correct --edits",
            )

    def _result(self) -> Progress:
        step = len(self.finished)
        sizes = {call.group: call.samples for call in self.finished}
        facts: dict[str, Any] = {"samples": sum(sizes.values())}
        if self.race is not None:
            facts["race"] = self.race.results(self.finished)
        measurement = Measurement(
            mean_rows(self.finished),
            self.finished,
            facts,
            sum(call.evaluations for call in self.finished),
            sum(call.naive_evaluations for call in self.finished),
            step,
        )
        return Progress(step=step, total=step, result=measurement)


def in_order(calls: list[CallScores]) -> list[CallScores]:
    """The order in which one process would have measured them: batch after batch, noise first."""
    return sorted(calls, key=lambda call: (call.group, -(call.timestep or 0.0)))


def mean_score(scores: Scores) -> float:
    count = sum(len(values) for values in scores.values())
    return sum(sum(values) for values in scores.values()) / max(count, 1)
