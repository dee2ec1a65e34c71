"""What the plan page shows, as values: specs, cards, tables. And the checks on what comes from the
browser.
"""

from __future__ import annotations

from html import escape
from typing import Any

from .. import charts, plans, rules
from ..charts.view import Look
from ..plans.editing.selection import runs
from ..records import BadInput, Plan, SensitivityMap, Teacher, yamlfile
from ..workspace.store import Store
from . import catalogue
from .text import card, count, figure, percent, short, size

# --- from the browser: cast, range-check, refuse --------------------------------------------------


def depth_of(teacher: Teacher) -> int:
    return sum(stack.depth for stack in teacher.stacks)


def selected(heat: Any, teacher: Teacher) -> list[int]:
    """Selected places on the block axis; what is no place is ignored."""
    places = heat.get("selected") if isinstance(heat, dict) else None
    total = depth_of(teacher)
    return (
        sorted({p for p in places if type(p) is int and 0 <= p < total})
        if isinstance(places, list)
        else []
    )


def version(heat: Any) -> int:
    value = heat.get("version") if isinstance(heat, dict) else None
    return value if type(value) is int else -1


def by_stack(teacher: Teacher, places: list[int]) -> dict[str, list[int]]:
    out: dict[str, list[int]] = {}
    for path, begin in charts.offsets(teacher).items():
        depth = teacher.stack(path).depth
        if blocks := [p - begin for p in places if begin <= p < begin + depth]:
            out[path] = blocks
    return out


def stacks_of(store: Store, key: str | None) -> list[str]:
    """Paths of the teacher's stacks; none where there is no such teacher."""
    try:
        return [stack.path for stack in catalogue.teacher(store, key).stacks]
    except BadInput:
        return []


# --- the map --------------------------------------------------------------------------------------


def about_map(sensitivity: SensitivityMap | None) -> str:
    """Under the map: metric with unit and direction, what it was measured on, whether the order of
    blocks is settled.
    """
    if sensitivity is None:
        return ""
    told = sensitivity.measured
    prompts, seeds = told.get("prompts"), told.get("seeds")
    how = [
        ("prompts", len(prompts) if isinstance(prompts, list) else prompts),
        ("seeds", len(seeds) if isinstance(seeds, list) else seeds),
        *(
            (key, told.get(key))
            for key in ("steps", "guidance", "size", "baseline", "removal", "source")
        ),
    ]
    words = ", ".join(
        f"{name} {value:g}" if charts.number(value) else f"{name} {short(str(value), 60)}"
        for name, value in how
        if value not in (None, "")
    )
    trust = trusted(sensitivity)
    flags = sum(row.flag is not None for row in sensitivity.rows)
    lines = [
        f"<b>{escape(sensitivity.metric)}</b>: {escape(sensitivity.unit)}; "
        f"{escape(sensitivity.direction)}.",
        f"Measured with {escape(words)}." if words else "",
        escape(f"{trust[:1].upper()}{trust[1:]}." if trust else ""),
        f"! marks {flags} flagged score{'s' * (flags > 1)}: point at it to read why."
        if flags
        else "",
        "Scores at or below 0 share the lowest colour of the log scale."
        if any(r.score <= 0 for r in sensitivity.rows)
        else "",
    ]
    return f"<div class='wb-about'>{' '.join(line for line in lines if line)}</div>"


def trusted(sensitivity: SensitivityMap) -> str:
    """The record's word on its stability; nothing where a record of another make tells it
    otherwise.
    """
    try:
        return sensitivity.trust
    except (KeyError, TypeError, ValueError, AttributeError):
        return ""


def place_names(teacher: Teacher) -> list[tuple[str, int]]:
    """Labels and places for the checkboxes; a stack's initial where there are several."""
    several = len(teacher.stacks) > 1
    return [
        (f"{stack.path} {block}" if several else str(block), begin + block)
        for stack, begin in zip(teacher.stacks, charts.offsets(teacher).values(), strict=True)
        for block in range(stack.depth)
    ]


# --- about the plan -------------------------------------------------------------------------------


def budget(plan: Plan, teacher: Teacher, sensitivity: SensitivityMap | None) -> str:
    """What the student costs, live."""
    info = plans.plan_info(plan, teacher, sensitivity)
    full = plans.memory(teacher.parameters)
    depth = " + ".join(str(info.depth[s.path]) for s in teacher.stacks)
    before = " + ".join(str(s.depth) for s in teacher.stacks)
    cards = [
        card(
            "parameters",
            count(info.parameters),
            f"{percent(info.ratio)} of {count(teacher.parameters)}",
            f"{info.parameters:,}",
        ),
        card("depth", depth, f"of {before} blocks"),
        *(
            card(
                name, size(info.memory[name]), f"of {size(full[name])}", "transformer weights alone"
            )
            for name in ("bf16", "int8", "int4")
        ),
        error_card(info.error),
        card(
            "predicted speed",
            f"{info.speedup:.2f}×",
            "block work saved",
            "Multiply-adds of the teacher's blocks over the student's, at the size and prompt "
            "length at which the teacher is sampled; measure it with a comparison.",
        ),
    ]
    return f'<div class="wb-cards">{"".join(cards)}</div>'


def error_card(error: plans.PredictedError | None) -> str:
    """The predicted error, or what the map does not know of the plan and how to measure it."""
    title = "predicted error"
    if error is None:
        return card(title, "–", "needs a map")
    if error.value is None:
        return card(title, "–", "no scores of " + ", ".join(error.unknown_edits), str(error))
    about = (
        "Sum of the map's scores of what each span does, uniform over timesteps: good for ranking "
        "plans, not a promise. Errors of single edits do not add up exactly."
    )
    return card(title, figure(error.value, 2), "before distilling", about)


def plan_yaml(plan: Plan) -> str:
    """The plan as it would be saved."""
    return yamlfile.dump(plan.as_yaml())


def block_table(plan: Plan, look: Look) -> str:
    """Every block in words: for screen readers, and for who likes numbers."""
    scores = {edit: look.scores(edit) for edit in look.edits if look.weights}
    weighed = f", {look.name}" if look.timed else ""
    head = "".join(
        f"<th scope='col'>{escape(name)}</th>"
        for name in (
            "stack",
            "block",
            "mark",
            "student block",
            "made of",
            *(f"{e} score{weighed}" for e in scores),
        )
    )
    body = []
    for row in charts.plan_rows(plan, look.teacher)["marks"]:
        span = plan.stacks[row["stack"]][row["student"]]
        numbers = "".join(
            f"<td>{figure(found.get((row['stack'], row['block'])))}</td>"
            for found in scores.values()
        )
        body.append(
            f"<tr><td>{escape(row['stack'])}</td><td>{row['block']}</td><td "
            f"class='{row['mark']}'>{row['mark']}</td>"
            f"<td>{row['student']}</td><td>{escape(charts.made_of(span))}</td>{numbers}</tr>"
        )
    return f"<div class='wb-scroll'><table class='wb-table'><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"


def chosen(look: Look, places: list[int]) -> str:
    """What is selected, and what dropping or merging it would score."""
    if not places:
        return (
            "<span class='wb-chosen'>Click, shift-click or drag on the map to select blocks.</span>"
        )
    stacks = by_stack(look.teacher, places)
    words = "; ".join(
        f"{path} {', '.join(ranges(blocks))}"
        if len(look.teacher.stacks) > 1
        else ", ".join(ranges(blocks))
        for path, blocks in stacks.items()
    )
    numbers = []
    for edit in ("drop", "merge"):
        scores = look.scores(edit) if edit in look.edits else {}
        found = [scores[(p, b)] for p, blocks in stacks.items() for b in blocks if (p, b) in scores]
        numbers += [f"{edit} {figure(sum(found), 2)}"] if found else []
    tail = f" · {look.name} score: {', '.join(numbers)}" if numbers else ""
    return f"<span class='wb-chosen'><b>{len(places)} selected:</b> {escape(short(words, 60))}{escape(tail)}</span>"


def ranges(blocks: list[int]) -> list[str]:
    return [str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs(blocks)]


def rule_about(rule: str) -> str:
    """One rule: what it does, and its paper."""
    row = rules.RULES.get(rule)
    if row is None:
        return ""
    name = f"arXiv {row.paper}" if row.paper and "://" not in row.paper else "paper"
    link = (
        f' <a href="{escape(row.link)}" target="_blank" rel="noopener '
        f'noreferrer">{escape(name)}</a>'
        if row.link
        else " Ours, no paper."
    )
    needs = (
        f" Needs a map{' of metric ' + escape(row.metric) if row.metric else ''}."
        if row.needs_map
        else ""
    )
    works = (
        " Measures on the teacher while it decides: it runs as a job, and its plan comes into the "
        "list of saved plans."
        if row.measures
        else ""
    )
    return f"<div class='wb-about'><b>{escape(row.title)}.</b> {escape(row.about)}{needs}{works} Starts from: {row.init}.{link}</div>"


def header(teacher: Teacher | None) -> str:
    """Name and size of the teacher."""
    if teacher is None:
        return "<div class='wb-head'><b>DiT Workbench</b></div>"
    stacks = ", ".join(f"{s.depth} {s.kind}-stream blocks" for s in teacher.stacks)
    name = f"<span class='wb-teacher' title='{escape(teacher.name)}'>{escape(short(teacher.name))}</span>"
    return (
        f"<div class='wb-head'><b>DiT Workbench</b>{name}"
        f"<span>{count(teacher.parameters)} parameters · {escape(stacks)} · "
        f"{escape(teacher.family)}</span></div>"
    )


def welcome() -> str:
    """The workspace is empty: what the first click is."""
    return (
        "<div class='wb-notice'><b>This workspace has no teacher yet.</b> Open “Add a "
        "teacher” below and name a diffusers folder "
        "or a Hub id; its structure is read from headers, no weights are loaded. Then press "
        "“Profile” to measure which blocks "
        "matter.</div>"
    )
