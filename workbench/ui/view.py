"""What the plan page shows as text: cards, tables, lines about the map, the plan and the rules.

Also reads the map's value as the browser sends it.
"""

from __future__ import annotations

from html import escape
from typing import Any

from .. import charts, plans, rules
from ..charts.view import Look
from ..plans.editing.selection import run_names
from ..records import BadInput, Plan, SensitivityMap, Teacher, yamlfile
from ..workspace.store import Store
from . import catalogue
from .text import about, card, cell, count, figure, percent, plural, short, size, table

COUNTED = ("prompts", "seeds", "steps")
MEASURED_WITH = ("steps", "guidance", "size", "baseline", "removal", "source")

# --- from the browser -----------------------------------------------------------------------------


def depth_of(teacher: Teacher) -> int:
    """Blocks of all stacks."""
    return sum(stack.depth for stack in teacher.stacks)


def selected_places(heat: object, teacher: Teacher) -> list[int]:
    """Selected places on the block axis; what is not a place is ignored."""
    if not isinstance(heat, dict) or not isinstance(heat.get("selected"), list):
        return []
    return known_places(heat["selected"], teacher)


def asked_places(heat: object, teacher: Teacher) -> list[int] | None:
    """Places that an address selects; None where it selects none, so that the browser's stay."""
    if not isinstance(heat, dict) or not isinstance(heat.get("select"), list):
        return None
    return known_places(heat["select"], teacher)


def known_places(places: list[Any], teacher: Teacher) -> list[int]:
    """Those that are places on the block axis, in their order there."""
    total = depth_of(teacher)
    return sorted({place for place in places if type(place) is int and 0 <= place < total})


def teacher(heat: object) -> str | None:
    """The value of the list of teachers whose plan a window shows; None where it shows none."""
    if not isinstance(heat, dict) or not isinstance(heat.get("teacher"), str):
        return None
    return str(heat["teacher"])


def window(heat: object) -> str:
    """The name that a browser window gave itself; empty where it has none."""
    if not isinstance(heat, dict):
        return ""
    return str(heat.get("window") or "")[:60]


def version(heat: object) -> int:
    """The version of the plan that a window shows; -1 where it shows none."""
    if not isinstance(heat, dict) or type(heat.get("version")) is not int:
        return -1
    return int(heat["version"])


def by_stack(teacher: Teacher, places: list[int]) -> dict[str, list[int]]:
    """Stack path -> selected blocks; stacks without a selected block are left out."""
    selection: dict[str, list[int]] = {}
    for path, begin in charts.offsets(teacher).items():
        end = begin + teacher.stack(path).depth
        blocks = [place - begin for place in places if begin <= place < end]
        if blocks:
            selection[path] = blocks
    return selection


def stacks_of(store: Store, key: str | None) -> list[str]:
    """Paths of the teacher's stacks; none where there is no such teacher."""
    try:
        return [stack.path for stack in catalogue.teacher(store, key).stacks]
    except BadInput:
        return []


# --- the map --------------------------------------------------------------------------------------


def about_map(sensitivity: SensitivityMap | None) -> str:
    """Under the map: metric with unit and direction, how it was measured, whether the ranking of
    the blocks is stable.
    """
    if sensitivity is None:
        return ""
    scale = f"{sensitivity.unit}; {sensitivity.direction}"
    sentences = [f"<b>{escape(sensitivity.metric)}</b>: {escape(scale)}."]
    setting = measured_with(sensitivity)
    if setting:
        sentences.append(f"Measured with {escape(setting)}.")
    stability = stability_of(sensitivity)
    if stability:
        sentences.append(f"{escape(stability[:1].upper() + stability[1:])}.")
    flags = sum(row.flag is not None for row in sensitivity.rows)
    if flags:
        scores = plural(flags, "flagged score")
        sentences.append(f"! marks {scores}: point at it to read why.")
    if any(row.score <= 0 for row in sensitivity.rows):
        sentences.append("Scores at or below 0 share the lowest colour of the log scale.")
    return about(" ".join(sentences))


def measured_with(sensitivity: SensitivityMap) -> str:
    """Prompts, seeds, steps and so on, in words."""
    measured = sensitivity.measured
    facts: list[tuple[str, Any]] = []
    for name in ("prompts", "seeds"):
        value = measured.get(name)
        if isinstance(value, list):
            value = len(value)
        facts.append((name, value))
    facts += [(name, measured.get(name)) for name in MEASURED_WITH]
    words = []
    for name, value in facts:
        if charts.number(value) and name in COUNTED:
            words.append(plural(int(value), name.removesuffix("s")))
        elif charts.number(value):
            words.append(f"{name} {value:g}")
        elif value not in (None, ""):
            words.append(f"{name} {short(str(value), 60)}")
    return ", ".join(words)


def stability_of(sensitivity: SensitivityMap) -> str:
    """Whether the ranking is stable, as the record says; empty where its measurements have another
    form.
    """
    try:
        return sensitivity.trust
    except (KeyError, TypeError, ValueError, AttributeError):
        return ""


def place_names(teacher: Teacher) -> list[tuple[str, int]]:
    """Labels and places for the checkboxes, with the stack where there are several."""
    several = len(teacher.stacks) > 1
    names = []
    for stack, begin in zip(teacher.stacks, charts.offsets(teacher).values(), strict=True):
        for block in range(stack.depth):
            label = str(block)
            if several:
                label = f"{stack.path} {block}"
            names.append((label, begin + block))
    return names


# --- the plan -------------------------------------------------------------------------------------


def budget(plan: Plan, teacher: Teacher, sensitivity: SensitivityMap | None) -> str:
    """What the student costs, live."""
    info = plans.plan_info(plan, teacher, sensitivity)
    teacher_memory = plans.memory(teacher.parameters)
    depth = " + ".join(str(info.depth[stack.path]) for stack in teacher.stacks)
    teacher_depth = " + ".join(str(stack.depth) for stack in teacher.stacks)
    cards = [
        card(
            "parameters",
            count(info.parameters),
            f"{percent(info.ratio)} of {count(teacher.parameters)}",
            f"{info.parameters:,}",
        ),
        card("depth", depth, f"of {teacher_depth} blocks"),
    ]
    for precision in ("bf16", "int8", "int4"):
        of = f"of {size(teacher_memory[precision])}"
        title = f"weights, {precision}"
        cards.append(card(title, size(info.memory[precision]), of, "of the transformer alone"))
    cards += [
        error_card(info.error),
        card(
            "predicted speed",
            f"{info.speedup:.2f}×",
            "per sampling step",
            "Multiply-adds of the teacher's blocks divided by the student's, at the teacher's image "
            "size and prompt length. A comparison measures the real speed.",
        ),
    ]
    html = f'<div class="wb-cards">{"".join(cards)}</div>'
    if plans.is_factored(plan):
        html += about(escape(plans.SAVES))
    return html


def error_card(error: plans.PredictedError | None) -> str:
    """The predicted error, or which scores the map lacks and how to measure them."""
    title = "predicted error"
    if error is None:
        return card(title, "–", "needs a map")
    if error.value is None:
        return card(title, "–", "no scores of " + ", ".join(error.unknown_edits), str(error))
    about = (
        "Sum of the map's scores of all edits in the plan, averaged over timesteps. It ranks plans; "
        "it is not the student's error, as errors of single edits do not add up exactly."
    )
    return card(title, figure(error.value, 2), "before distillation", about)


def plan_yaml(plan: Plan) -> str:
    """The plan as it would be saved."""
    return yamlfile.dump(plan.as_yaml())


def block_table(plan: Plan, look: Look) -> str:
    """Every block as text, with its scores."""
    scores = {edit: look.scores(edit) for edit in look.edits if look.weights}
    head = ["stack", "block", "mark", "student block", "made of"]
    for edit in scores:
        title = f"{edit} score"
        if look.has_timesteps:
            title += f", {look.name}"
        head.append(title)
    body = []
    for row in charts.plan_rows(plan, look.teacher)["marks"]:
        span = plan.stacks[row["stack"]][row["student"]]
        cells = [
            cell(row["stack"]),
            cell(str(row["block"])),
            cell(row["mark"], row["mark"]),
            cell(str(row["student"])),
            cell(charts.made_of(span)),
        ]
        place = (row["stack"], row["block"])
        cells += [cell(figure(by_block.get(place))) for by_block in scores.values()]
        body.append(cells)
    return table(head, body)


def chosen(look: Look, places: list[int]) -> str:
    """What is selected, and what dropping or merging it would score."""
    if not places:
        return "<span class='wb-chosen'>Click a block; shift-click for a range, Ctrl-click to add one, or drag.</span>"
    selection = by_stack(look.teacher, places)
    names = []
    for path, blocks in selection.items():
        numbers = ", ".join(run_names(blocks))
        if len(look.teacher.stacks) > 1:
            numbers = f"{path} {numbers}"
        names.append(numbers)
    words = escape(short("; ".join(names), 60))
    scores = escape(selection_scores(look, selection))
    return f"<span class='wb-chosen'><b>{len(places)} selected:</b> {words}{scores}</span>"


def selection_scores(look: Look, selection: dict[str, list[int]]) -> str:
    """Summed scores of the selected blocks, for dropping and for merging them."""
    sums = []
    for edit in ("drop", "merge"):
        if edit not in look.edits:
            continue
        by_block = look.scores(edit)
        scores = []
        for path, blocks in selection.items():
            scores += [by_block[path, block] for block in blocks if (path, block) in by_block]
        if scores:
            sums.append(f"{edit} {figure(sum(scores), 2)}")
    if not sums:
        return ""
    return f" · {look.name} score: {', '.join(sums)}"


def rule_about(rule: str) -> str:
    """One rule: what it does, what it needs, and its paper."""
    if rule not in rules.RULES:
        return ""
    row = rules.RULES[rule]
    sentences = [f"<b>{escape(row.title)}.</b> {escape(row.about)}"]
    if row.needs_map and row.metric:
        sentences.append(f"Needs a map of metric {escape(row.metric)}.")
    elif row.needs_map:
        sentences.append("Needs a map.")
    if row.measures:
        sentences.append(
            "Runs the teacher to measure while it decides, so it is queued as a job; its plan enters "
            "the list of saved plans."
        )
    sentences.append(f"Default initialisation: {row.init}.")
    sentences.append(paper_link(row))
    return about(" ".join(sentences))


def paper_link(row: rules.Rule) -> str:
    if not row.link:
        return "No paper: developed with this workbench."
    name = f"arXiv {row.paper}"
    if "://" in row.paper:
        name = "paper"
    link = escape(row.link)
    return f'<a href="{link}" target="_blank" rel="noopener noreferrer">{escape(name)}</a>'


# --- the teacher ----------------------------------------------------------------------------------


def header(teacher: Teacher | None) -> str:
    """Name and size of the teacher."""
    if teacher is None:
        return "<div class='wb-head'><h1>DiT Workbench</h1></div>"
    stacks = ", ".join(f"{stack.depth} {stack.kind}-stream blocks" for stack in teacher.stacks)
    facts = f"{count(teacher.parameters)} parameters · {stacks} · {teacher.family}"
    return (
        "<div class='wb-head'><h1>DiT Workbench</h1>"
        f"<span class='wb-teacher' title='{escape(teacher.name)}'>{escape(short(teacher.name))}"
        f"</span><span>{escape(facts)}</span></div>"
    )


def welcome() -> str:
    """The workspace is empty: what to do first."""
    return (
        "<div class='wb-notice'><b>This workspace has no teacher yet.</b> Open “Add a teacher” "
        "below and enter a diffusers folder or a Hub id; its structure is read from headers, no "
        "weights are loaded. Then press “Profile” to measure which blocks matter.</div>"
    )
