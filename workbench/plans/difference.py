"""The difference of two plans in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..records import Plan, Span
from .describe_span import blocks_in_words, span_words


@dataclass(frozen=True)
class Change:
    """A stretch of teacher blocks that two plans cut off alike and fill differently.

    settings: in words, where both plans have one span for it and the spans differ in settings
    alone; empty where other student blocks are made of it.
    """

    first: int
    last: int
    old: Sequence[Span]
    new: Sequence[Span]
    settings: str = ""

    def __str__(self) -> str:
        words = self.settings or f"were {spans_in_words(self.old)}, now {spans_in_words(self.new)}"
        return f"{blocks_in_words(self.first, self.last)}: {words}"


def difference(old: Plan, new: Plan) -> list[str]:
    """What `new` does differently from `old`, one sentence each; empty where they make the same
    student of the same teacher.
    """
    sentences = []
    if old.teacher != new.teacher:
        sentences.append(f"teacher: {old.teacher} -> {new.teacher}")
    if old.family != new.family:
        sentences.append(f"family: {old.family} -> {new.family}")
    paths = dict.fromkeys((*old.stacks, *new.stacks))
    for path in paths:
        prefix = f"{path}: " if len(paths) > 1 else ""
        if path not in old.stacks:
            sentences.append(f"{path}: only in the new plan")
        elif path not in new.stacks:
            sentences.append(f"{path}: only in the old plan")
        else:
            of_stack = _stack_difference(old.stacks[path], new.stacks[path])
            sentences += [prefix + sentence for sentence in of_stack]
    return sentences


def _stack_difference(old: list[Span], new: list[Span]) -> list[str]:
    sentences = []
    if len(old) != len(new):
        sentences.append(f"{_count(len(old))} -> {len(new)}")
    return sentences + [str(change) for change in _joined(_changes(old, new))]


def _changes(old: list[Span], new: list[Span]) -> Iterator[Change]:
    """The changes from one partition to the other, in order."""
    common_ends = {span.last for span in old} & {span.last for span in new}
    if not common_ends:  # plans for different depths
        yield Change(0, max(span.last for span in [*old, *new]), old, new)
    start = 0
    for end in sorted(common_ends):
        before = [span for span in old if start <= span.first and span.last <= end]
        after = [span for span in new if start <= span.first and span.last <= end]
        if before != after:
            settings = ""
            if len(before) == len(after) == 1:
                settings = _settings(before[0], after[0])
            yield Change(start, end, before, after, settings)
        start = end + 1


def _joined(changes: Iterator[Change]) -> list[Change]:
    """Neighbouring stretches whose settings change alike, as one."""
    out: list[Change] = []
    for change in changes:
        last = out[-1] if out else None
        if (
            last is not None
            and change.settings
            and change.settings == last.settings
            and last.last == change.first - 1
        ):
            out[-1] = Change(last.first, change.last, last.old, change.new, change.settings)
        else:
            out.append(change)
    return out


def _settings(old: Span, new: Span) -> str:
    """Which settings of a span changed, in words."""
    words = []
    if old.init != new.init:
        words.append(f"init {old.init} -> {new.init}")
    if old.gain != new.gain:
        words.append(f"gain {old.gain:g} -> {new.gain:g}")
    if old.stream != new.stream:
        teachers = "as in the teacher"
        words.append(f"stream {old.stream or teachers} -> {new.stream or teachers}")
    dropped = [part for part in new.drop if part not in old.drop]
    if dropped:
        words.append("drops " + ", ".join(dropped))
    restored = [part for part in old.drop if part not in new.drop]
    if restored:
        words.append("keeps " + ", ".join(restored) + " again")
    if old.rank != new.rank:
        words.append(f"modulation rank {old.rank or 'full'} -> {new.rank or 'full'}")
    return ", ".join(words) or "order of drop"


def spans_in_words(spans: Sequence[Span]) -> str:
    """Student blocks in a few words: 2 kept, or 0 + 1-2 (without mlp) + 3-5 in one (init mean)."""
    if all(span.plain for span in spans):
        return f"{len(spans)} kept" if len(spans) > 1 else "kept"
    runs: list[tuple[int, int, str]] = []  # first, last, what is done
    for span in spans:
        words = _in_brackets(span)
        if runs and len(span) == 1 and runs[-1][2] == words:  # blocks alone, treated alike
            runs[-1] = (runs[-1][0], span.first, words)
        else:
            runs.append((span.first, span.last, words))
    return " + ".join(f"{_numbers(first, last)}{words}" for first, last, words in runs)


def _in_brackets(span: Span) -> str:
    words = ", ".join(span_words(span))
    brackets = f" ({words})" if words else ""
    return f" in one{brackets}" if len(span) > 1 else brackets


def _numbers(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _count(number: int) -> str:
    return "1 block" if number == 1 else f"{number} blocks"
