"""How much the teacher's prediction changes under one edit of one block at one timestep, on its own sampling trajectory.

score(edit, block, t) = mean over calibration samples of ||v - v_edit||^2 / ||v||^2, each norm over one sample's prediction.
A share of 1 (0.07 = 7 %); higher = keep. Edits: `drop` (the block returns its inputs), `merge[:init[:gain]]` (this block and
the next one as one: init mean, gain 2 unless said), `drop:<part>`.

Cost: an edit of block l leaves the blocks before l as they were. One forward caches what every block returned; the edit is then
evaluated from block l on, by the model's own forward in which the blocks before l replay. Same numbers, half the work.
"""

from __future__ import annotations

import copy
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast, get_args

import torch
from torch import nn

from . import edits as weights
from . import plans
from .blocks import Block, Forward, Place, all_blocks, as_output, bypassing, capture, forwards
from .checkpoints import raw_bytes
from .models import Call, placed, prediction
from .records import BadInput, Init, Progress, Row, SensitivityMap, Teacher, write_atomic

Scores = dict[str, list[float]]  # "stack block edit" -> one score per sample


@dataclass(frozen=True)
class Edit:
    """A parsed edit name."""

    name: str
    kind: str  # drop | merge | part
    part: str = ""
    init: Init = "mean"
    gain: float = 2.0


def parse_edit(name: str, teacher: Teacher) -> Edit:
    """`drop`, `merge`, `merge:first`, `merge:mean:1`, `drop:text.mlp`. Raises BadInput for anything else."""
    kind, _, rest = name.partition(":")
    parts = sorted({part for row in plans.family_of(teacher).stacks for part in row.parts})
    if kind == "drop" and (not rest or rest in parts):
        return Edit(name, "part" if rest else "drop", rest)
    init, _, gain = rest.partition(":")
    if kind == "merge" and init in ("", *get_args(Init)):
        try:
            factor = float(gain or 2)
        except ValueError:
            factor = 0.0
        if 0 < factor < 1e4:
            return Edit(name, "merge", init=cast(Init, init or "mean"), gain=factor)
    raise BadInput(f"edit {name!r}", f"drop, merge[:init[:gain]] or drop:<part> with a part of {', '.join(parts)}", "correct --edits")


# --- profiling -----------------------------------------------------------------------------------------------------


def profile(transformer: nn.Module, teacher: Teacher, calls: Iterable[Call], *, edits: Sequence[str] = ("drop", "merge"),
            partial: Path | None = None, measured: Mapping[str, Any] | None = None, branches: Sequence[str] = ("cond",),
            total: int | None = None) -> Iterator[Progress]:
    """Score every edit of every block over the recorded calls; the last Progress carries the SensitivityMap.

    `partial` keeps the scores of finished calls; a scan with the same weights, edits and calls resumes from it. `total`
    is the number of calls where `calls` is a generator (whose sampling then counts in the map's seconds). `measured` (prompts,
    seeds, guidance, steps) goes into the map.
    Raises BadInput for an unknown edit or a prediction that is not finite (block, edit and timestep named).
    """
    yield from _scan(transformer, teacher, calls, edits, partial, measured or {}, branches, total, cached=True)


def naive_profile(transformer: nn.Module, teacher: Teacher, calls: Iterable[Call], *, edits: Sequence[str] = ("drop", "merge"),
                  measured: Mapping[str, Any] | None = None, branches: Sequence[str] = ("cond",)) -> Iterator[Progress]:
    """The same scores by one whole forward per edit: what `profile` is checked and timed against."""
    yield from _scan(transformer, teacher, calls, edits, None, measured or {}, branches, None, cached=False)


def _scan(transformer: nn.Module, teacher: Teacher, calls: Iterable[Call], names: Sequence[str], partial: Path | None,
          measured: Mapping[str, Any], branches: Sequence[str], total: int | None, cached: bool) -> Iterator[Progress]:
    began = time.perf_counter()
    scan = Scan(transformer, [parse_edit(name, teacher) for name in dict.fromkeys(names)], cached)
    memory = _Partial(partial, teacher.fingerprint, names)
    if isinstance(calls, Sized):
        total = sum(call.branch in branches for call in cast(Iterable[Call], calls))
    results: list[tuple[float, Scores]] = []
    evaluations = naive = 0
    for call in calls:
        if call.branch not in branches:
            continue
        done = memory.get(call)
        if done is None:
            scores, count = scan.call(call)
            done = memory.put(call, {"scores": scores, "evaluations": count, "naive": scan.naive_evaluations})
        results.append((call.timestep, done["scores"]))
        evaluations, naive = evaluations + done["evaluations"], naive + done["naive"]
        yield Progress(step=len(results), total=max(total or 0, len(results)),
                       message=f"prompts {call.group}, timestep {call.timestep:.0f}",
                       metrics={"timestep": call.timestep, "group": call.group, "mean_score": _mean(done["scores"])})
    if not results:
        raise BadInput("no calls to measure on", "at least one prompt and timestep", "give prompts")
    record = SensitivityMap(teacher=teacher.name, fingerprint=teacher.fingerprint, family=teacher.family, rows=_rows(results),
                            measured=dict(measured), seconds=time.perf_counter() - began, block_evaluations=evaluations,
                            naive_block_evaluations=naive)
    yield Progress(step=len(results), total=len(results), message="done", result=record)


def _mean(scores: Scores) -> float:
    values = [score for of_edit in scores.values() for score in of_edit]
    return sum(values) / max(len(values), 1)


def _rows(results: Sequence[tuple[float, Scores]]) -> list[Row]:
    """Mean and standard error over all samples of a timestep, noise first."""
    pooled: dict[tuple[float, str], list[float]] = {}
    for timestep, scores in results:
        for key, values in scores.items():
            pooled.setdefault((round(timestep, 3), key), []).extend(values)
    rows = []
    for (timestep, key), values in sorted(pooled.items(), key=lambda item: -item[0][0]):
        stack, block, edit = key.split(" ")
        sample = torch.tensor(values, dtype=torch.float64)
        error = float(sample.std() / len(values) ** 0.5) if len(values) > 1 else None
        rows.append(Row(stack=stack, block=int(block), edit=edit, timestep=timestep, score=float(sample.mean()), stderr=error))
    return rows


# --- one call ------------------------------------------------------------------------------------------------------


class Scan:
    """Evaluates every edit of every block on one call. Counts each forward of a real block."""

    def __init__(self, transformer: nn.Module, edits: Sequence[Edit], cached: bool) -> None:
        self.transformer, self.edits, self.cached = transformer, edits, cached
        self.blocks = {block.place: replace(block, row=block.row.fitted(dict(_shapes(block.module)))) for block in all_blocks(transformer)}
        self.merges = {place: other for place in self.blocks if (other := self._next(place)) is not None}
        self.scratch: dict[str, nn.Module] = {}
        self.states: dict[tuple[str, Place], weights.Tensors] = {}
        self.evaluations = 0
        weight = next(transformer.parameters())
        self.device, self.dtype = weight.device, weight.dtype
        # Merged weights of a small teacher are kept from call to call; of a large one they would be a second copy of it.
        self.keep_states = sum(p.nbytes for p in transformer.parameters()) < 2**30

    @property
    def naive_evaluations(self) -> int:
        """Block forwards of leave-one-out with whole forwards: one reference, then one forward per edit and block."""
        depth = len(self.blocks)
        return depth + sum(depth - 1 if edit.kind in ("drop", "merge") else depth for edit in self.edits for _ in self.places(edit))

    def places(self, edit: Edit) -> list[Place]:
        """Where an edit applies."""
        if edit.kind == "merge":
            return [place for place in self.merges if edit.gain == 1 or self.blocks[place].row.gain]
        if edit.kind == "drop":
            return list(self.blocks)
        return [place for place, block in self.blocks.items() if (part := block.row.parts.get(edit.part)) is not None
                and (not part.last_only or (place[0], place[1] + 1) not in self.blocks)]

    def _next(self, place: Place) -> Block | None:
        """The next block of the stack, where it has the same shapes."""
        other = self.blocks.get((place[0], place[1] + 1))
        if other is None or _shapes(other.module) != _shapes(self.blocks[place].module):
            return None
        return other

    @torch.no_grad()
    def call(self, call: Call) -> tuple[Scores, int]:
        """Scores per "stack block edit", one a sample, and the block forwards this took."""
        self.evaluations = 0
        kwargs = placed(call.kwargs, self.device, self.dtype)
        with self._counting(), capture(self.transformer) as held:
            reference = prediction(self.transformer(**kwargs), self.transformer)  # (B, N, D)
        self._check(reference, "no edit", call)
        scores: Scores = {}
        for edit in self.edits:
            for place in self.places(edit):
                before = held.order[: held.order.index(place)] if self.cached else []
                replays = {p: as_output(self.blocks[p].row, held.outputs[p]) for p in before}
                changed = prediction(self._edited(edit, place, replays, kwargs), self.transformer)
                self._check(changed, f"{edit.name} of {place[0]} block {place[1]}", call)
                scores[f"{place[0]} {place[1]} {edit.name}"] = relative_change(reference, changed).tolist()
        return scores, self.evaluations

    def _edited(self, edit: Edit, place: Place, replays: Mapping[Place, Any], kwargs: dict[str, Any]) -> Any:
        """The model's forward with one edit; blocks in `replays` return what they returned before."""
        changes: list[tuple[nn.Module, Callable[[Forward], Forward]]] = []
        block = self.blocks[place]
        for other, output in replays.items():
            changes.append((self.blocks[other].module, _always(output)))
        if edit.kind == "drop":
            changes.append((block.module, bypassing(block.row)))
        else:
            stand_in = self._stand_in(edit, place)
            changes.append((block.module, lambda old: self._counted(stand_in.forward)))
        if edit.kind == "merge":
            changes.append((self.merges[place].module, bypassing(block.row)))
        with self._counting(), forwards(changes):
            return self.transformer(**kwargs)

    def _stand_in(self, edit: Edit, place: Place) -> nn.Module:
        """A block with the edited weights, in a scratch copy that all blocks of a stack share."""
        block = self.blocks[place]
        state = self.states.get((edit.name, place))
        if state is None:
            own = block.module.state_dict()
            if edit.kind == "merge":
                state = weights.merged_state([own, self.merges[place].module.state_dict()], edit.init, edit.gain, block.row)
            else:
                state = weights.without_parts(own, [edit.part], block.row)
            if self.keep_states:
                self.states[edit.name, place] = state
        key = f"{place[0]} {_shapes(block.module)}"
        if key not in self.scratch:
            self.scratch[key] = copy.deepcopy(block.module)
        self.scratch[key].load_state_dict(state, assign=True)
        return self.scratch[key]

    def _counting(self) -> Any:
        return forwards((block.module, self._counted) for block in self.blocks.values())

    def _counted(self, old: Forward) -> Forward:
        def new(*args: Any, **kwargs: Any) -> Any:
            self.evaluations += 1
            return old(*args, **kwargs)

        return new

    def _check(self, value: torch.Tensor, edit: str, call: Call) -> None:
        if not torch.isfinite(value).all():
            raise BadInput(f"the prediction is not finite with {edit} at timestep {call.timestep:.0f}", "finite numbers",
                           "profile in bf16 or float32, or leave this edit out")


def relative_change(reference: torch.Tensor, changed: torch.Tensor) -> torch.Tensor:
    """||v - v'||^2 / ||v||^2 per sample, in at least float32: (B, ...) -> (B,)."""
    exact = torch.promote_types(reference.dtype, torch.float32)
    v, other = reference.to(exact).flatten(1), changed.to(exact).flatten(1)  # (B, N*D)
    return (v - other).square().sum(1) / v.square().sum(1)


def _always(output: Any) -> Callable[[Forward], Forward]:
    return lambda old: lambda *args, **kwargs: output


def _shapes(module: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    return [(name, tuple(tensor.shape)) for name, tensor in module.state_dict().items()]


# --- partial results -----------------------------------------------------------------------------------------------


class _Partial:
    """Scores of finished calls in a JSON file, so that a stopped scan resumes."""

    def __init__(self, path: Path | None, fingerprint: str, edits: Sequence[str]) -> None:
        self.path = path
        self.head = {"fingerprint": fingerprint, "edits": list(edits), "metric": "prediction"}
        self.calls: dict[str, Any] = {}
        if path is not None and Path(path).exists():
            try:
                held = json.loads(Path(path).read_text(encoding="utf-8"))
                self.calls = held["calls"] if held.get("head") == self.head else {}
            except (ValueError, KeyError, AttributeError):
                self.calls = {}  # an unreadable partial result is measured again

    def get(self, call: Call) -> dict[str, Any] | None:
        return self.calls.get(identity(call)) if self.path is not None else None

    def put(self, call: Call, result: dict[str, Any]) -> dict[str, Any]:
        if self.path is not None:
            self.calls[identity(call)] = result
            write_atomic(Path(self.path), json.dumps({"head": self.head, "calls": self.calls}))
        return result


def identity(call: Call) -> str:
    """12 hex digits of SHA-256 over a call's inputs."""
    digest = hashlib.sha256(f"{call.timestep} {call.group} {call.branch}".encode())

    def feed(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            digest.update(f"{value.dtype} {tuple(value.shape)}".encode())
            digest.update(raw_bytes(value))
        elif isinstance(value, dict):
            for key in sorted(value):
                digest.update(str(key).encode())
                feed(value[key])
        elif isinstance(value, list | tuple):
            for item in value:
                feed(item)
        else:
            digest.update(repr(value).encode())

    feed(call.kwargs)
    return digest.hexdigest()[:12]
