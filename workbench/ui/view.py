"""What the plan page shows, as values: specs, cards, tables. And the checks on what comes from the browser."""

from __future__ import annotations

from html import escape
from typing import Any

from .. import charts, plans, rules, yamlfile
from ..marks import runs
from ..records import BadInput, Init, Plan, SensitivityMap, Teacher
from .text import card, count, figure, percent, short, size

# --- from the browser: cast, range-check, refuse ---------------------------------------------------------------------


def depth_of(teacher: Teacher) -> int:
    return sum(stack.depth for stack in teacher.stacks)


def selected(heat: Any, teacher: Teacher) -> list[int]:
    """Selected places on the block axis; what is no place is ignored."""
    places = heat.get("selected") if isinstance(heat, dict) else None
    total = depth_of(teacher)
    return sorted({p for p in places if type(p) is int and 0 <= p < total}) if isinstance(places, list) else []


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


def checked_init(value: Any) -> Init | None:
    if value in (None, ""):
        return None
    if value not in ("first", "last", "middle", "mean"):
        raise BadInput(f"start from {value!r}", "first, last, middle or mean", "choose one")
    return value


def checked_gain(value: Any) -> float | str:
    if value == "length":
        return "length"
    try:
        gain = float(value)
    except (TypeError, ValueError):
        gain = 0.0
    if not 0 < gain < 1e4:
        raise BadInput(f"gain {value!r}", "a positive number, or span length", "choose one")
    return gain


def split_keep(teacher: Teacher, total: int) -> dict[str, int]:
    """So many blocks in all, over the stacks in proportion, at least one each."""
    depth = depth_of(teacher)
    if not len(teacher.stacks) <= total <= depth:
        raise BadInput(f"keep {total} blocks", f"{len(teacher.stacks)} to {depth}", "move the slider")
    out = {s.path: max(1, total * s.depth // depth) for s in teacher.stacks}
    for stack in sorted(teacher.stacks, key=lambda s: -s.depth):  # the rest goes to the deepest
        room = min(stack.depth - out[stack.path], total - sum(out.values()))
        out[stack.path] += max(room, 1 - out[stack.path])
    return out


# --- the map -----------------------------------------------------------------------------------------------------------


def map_spec(teacher: Teacher, sensitivity: SensitivityMap | None, edit: str, log: bool, weighting: str) -> dict[str, Any]:
    """The chart without its plan, which the browser fills in."""
    empty: dict[str, charts.Rows] = {"marks": [], "ribbons": [], "student": []}
    if sensitivity is None:
        return charts.sensitivity_chart(teacher, [], [], [], empty).to_dict()
    if edit not in sensitivity.edits:
        raise BadInput(f"the map has no edit {edit!r}", "one of " + ", ".join(sensitivity.edits), "choose one")
    bars = charts.block_rows(plans.block_scores(sensitivity, edit, weighting), teacher)
    weights = charts.weight_rows(plans.timestep_weights(sensitivity, edit, weighting))
    cells = charts.sensitivity_rows(sensitivity, teacher, edit)
    return charts.sensitivity_chart(teacher, cells, bars, weights, empty, edit=edit, log=log, unit=sensitivity.unit).to_dict()


def place_names(teacher: Teacher) -> list[tuple[str, int]]:
    """Labels and places for the checkboxes; a stack's initial where there are several."""
    several = len(teacher.stacks) > 1
    return [(f"{stack.path} {block}" if several else str(block), begin + block)
            for stack, begin in zip(teacher.stacks, charts.offsets(teacher).values(), strict=True) for block in range(stack.depth)]


# --- about the plan ------------------------------------------------------------------------------------------------------


def budget(plan: Plan, teacher: Teacher, sensitivity: SensitivityMap | None) -> str:
    """What the student costs, live."""
    info = plans.info(plan, teacher, sensitivity, "uniform")
    memory, full = info["memory"], plans.memory(teacher.parameters)
    depth = " + ".join(str(info["depth"][s.path]) for s in teacher.stacks)
    before = " + ".join(str(s.depth) for s in teacher.stacks)
    error, speed = info["predicted_error"], plans.predicted_speedup(plan, teacher)
    cards = [
        card("parameters", count(info["parameters"]), f"{percent(info['ratio'])} of {count(teacher.parameters)}",
             f"{info['parameters']:,}"),
        card("depth", depth, f"of {before} blocks"),
        *(card(name, size(memory[name]), f"of {size(full[name])}", "transformer weights alone") for name in ("bf16", "int8", "int4")),
        card("predicted error", figure(error, 2) if error is not None else "–", "before distilling" if error is not None else "needs a map",
             "Sum of single-edit scores, uniform over timesteps: good for ranking plans, not a promise. "
             "Errors of neighbouring edits do not add up."),
        card("predicted speed", f"{speed:.2f}×", "block work saved",
             "Teacher's block parameters over the student's; measure it with a comparison."),
    ]
    return f'<div class="wb-cards">{"".join(cards)}</div>'


def plan_yaml(plan: Plan) -> str:
    """The plan as it would be saved."""
    return yamlfile.dump(plan.as_yaml())


def block_table(plan: Plan, teacher: Teacher, sensitivity: SensitivityMap | None, weighting: str) -> str:
    """Every block in words: for screen readers, and for who likes numbers."""
    edits = [e for e in ("drop", "merge") if sensitivity and e in sensitivity.edits]
    scores = {e: plans.block_scores(sensitivity, e, weighting) for e in edits} if sensitivity else {}
    head = "".join(f"<th scope='col'>{escape(name)}</th>" for name in
                   ("stack", "block", "mark", "student block", "made of", *(f"{e} score, {weighting}" for e in edits)))
    body = []
    for row in charts.plan_rows(plan, teacher)["marks"]:
        span = plan.stacks[row["stack"]][row["student"]]
        numbers = "".join(f"<td>{figure(scores[e].get((row['stack'], row['block'])))}</td>" for e in edits)
        body.append(f"<tr><td>{escape(row['stack'])}</td><td>{row['block']}</td><td class='{row['mark']}'>{row['mark']}</td>"
                    f"<td>{row['student']}</td><td>{escape(charts.made_of(span))}</td>{numbers}</tr>")
    return f"<div class='wb-scroll'><table class='wb-table'><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"


def chosen(teacher: Teacher, sensitivity: SensitivityMap | None, weighting: str, places: list[int]) -> str:
    """What is selected, and what dropping or merging it would score."""
    if not places:
        return "<span class='wb-chosen'>Click, shift-click or drag on the map to select blocks.</span>"
    stacks = by_stack(teacher, places)
    words = "; ".join(f"{path} {', '.join(ranges(blocks))}" if len(teacher.stacks) > 1 else ", ".join(ranges(blocks))
                      for path, blocks in stacks.items())
    numbers = []
    for edit in ("drop", "merge"):
        if sensitivity and edit in sensitivity.edits:
            scores = plans.block_scores(sensitivity, edit, weighting)
            found = [scores[(p, b)] for p, blocks in stacks.items() for b in blocks if (p, b) in scores]
            numbers += [f"{edit} {figure(sum(found), 2)}"] if found else []
    tail = f" · {weighting} score: {', '.join(numbers)}" if numbers else ""
    return f"<span class='wb-chosen'><b>{len(places)} selected:</b> {escape(short(words, 60))}{escape(tail)}</span>"


def ranges(blocks: list[int]) -> list[str]:
    return [str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs(blocks)]


def rule_about(rule: str) -> str:
    """One rule: what it does, and its paper."""
    row = rules.RULES.get(rule)
    if row is None:
        return ""
    link = ""
    if row.paper:
        url = row.paper if row.paper.startswith("http") else f"https://arxiv.org/abs/{row.paper}"
        link = f' <a href="{escape(url)}" target="_blank" rel="noopener noreferrer">paper</a>'
    needs = " Needs a sensitivity map." if row.needs_map else ""
    return f"<div class='wb-about'><b>{escape(row.title)}.</b> {escape(row.about)}{needs} Starts from: {row.init}.{link}</div>"


def header(teacher: Teacher | None) -> str:
    """Name and size of the teacher."""
    if teacher is None:
        return "<div class='wb-head'><b>DiT Workbench</b></div>"
    stacks = ", ".join(f"{s.depth} {s.kind}-stream blocks" for s in teacher.stacks)
    name = f"<span class='wb-teacher' title='{escape(teacher.name)}'>{escape(short(teacher.name))}</span>"
    return (f"<div class='wb-head'><b>DiT Workbench</b>{name}"
            f"<span>{count(teacher.parameters)} parameters · {escape(stacks)} · {escape(teacher.family)}</span></div>")


def welcome() -> str:
    """The workspace is empty: what the first click is."""
    return ("<div class='wb-notice'><b>This workspace has no teacher yet.</b> Open “Add a teacher” below and name a diffusers folder "
            "or a Hub id; its structure is read from headers, no weights are loaded. Then press “Profile” to measure which blocks "
            "matter.</div>")
