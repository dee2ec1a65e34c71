"""The difference of two plans in words."""

from __future__ import annotations

from collections.abc import Iterator

from ..records import Plan, Span


def difference(old: Plan, new: Plan) -> list[str]:
    """What `new` does otherwise than `old`, one sentence each; empty where they make the same
    student of the same teacher.
    """
    out = [
        f"{name}: {before} -> {after}"
        for name in ("teacher", "family")
        if (before := getattr(old, name)) != (after := getattr(new, name))
    ]
    for path in dict.fromkeys((*old.stacks, *new.stacks)):
        if path not in old.stacks or path not in new.stacks:
            out.append(f"{path}: only in the {'new' if path in new.stacks else 'old'} plan")
            continue
        one, two = old.stacks[path], new.stacks[path]
        where = f"{path}: " if len({*old.stacks, *new.stacks}) > 1 else ""
        if len(one) != len(two):
            out.append(f"{where}{_count(len(one))} -> {len(two)}")
        out += [where + line for line in _runs(list(_changes(one, two)))]
    return out


def _changes(old: list[Span], new: list[Span]) -> Iterator[tuple[int, int, str]]:
    """(first, last, words) of each stretch of teacher blocks that both plans cut off alike and fill
    otherwise.
    """
    ends = {span.last for span in old} & {span.last for span in new}
    start = 0
    for end in sorted(ends):
        a, b = ([s for s in spans if start <= s.first and s.last <= end] for spans in (old, new))
        if a != b:
            if len(a) == len(b) == 1:
                yield start, end, _altered(a[0], b[0])
            else:
                yield start, end, f"were {_made(a)}, now {_made(b)}"
        start = end + 1
    if not ends:  # plans for different depths
        yield 0, max(s.last for s in [*old, *new]), f"were {_made(old)}, now {_made(new)}"


def _runs(changes: list[tuple[int, int, str]]) -> list[str]:
    """Neighbours that change alike are told together."""
    out: list[tuple[int, int, str]] = []
    for first, last, words in changes:
        if out and out[-1][2] == words and out[-1][1] == first - 1 and not words.startswith("were"):
            out[-1] = (out[-1][0], last, words)
        else:
            out.append((first, last, words))
    return [f"{_blocks(first, last)}: {words}" for first, last, words in out]


def _altered(old: Span, new: Span) -> str:
    words = [
        f"{name} {before} -> {after}"
        for name, before, after in (
            ("init", old.init, new.init),
            ("gain", f"{old.gain:g}", f"{new.gain:g}"),
            ("stream", old.stream or "as in the teacher", new.stream or "as in the teacher"),
        )
        if before != after
    ]
    gone, back = (
        [p for p in new.drop if p not in old.drop],
        [p for p in old.drop if p not in new.drop],
    )
    words += ["drops " + ", ".join(gone)] * bool(gone) + [
        "keeps " + ", ".join(back) + " again"
    ] * bool(back)
    return ", ".join(words) or "order of drop"


def _made(spans: list[Span]) -> str:
    """Student blocks in a few words."""
    if all(span.plain for span in spans):
        return f"{len(spans)} kept" if len(spans) > 1 else "kept"
    told: list[tuple[int, int, str]] = []
    for span in spans:
        # blocks on their own that are treated alike
        if told and len(span) == 1 and told[-1][2] == _how(span):
            told[-1] = (told[-1][0], span.first, told[-1][2])
        else:
            told.append((span.first, span.last, _how(span)))
    return " + ".join(str(a) + how if a == b else f"{a}-{b}{how}" for a, b, how in told)


def _how(span: Span) -> str:
    how = (
        [span.init] * (len(span) > 1)
        + [f"gain {span.gain:g}"] * (span.gain != 1)
        + [f"{span.stream}-stream"] * bool(span.stream)
    )
    how += ["without " + ", ".join(span.drop)] * bool(span.drop)
    return (" in one" if len(span) > 1 else "") + (f" ({', '.join(how)})" if how else "")


def _blocks(first: int, last: int) -> str:
    return f"block {first}" if first == last else f"blocks {first}-{last}"


def _count(number: int) -> str:
    return f"{number} block{'s' * (number != 1)}"
