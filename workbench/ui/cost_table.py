"""A comparison's table: what each model costs, and how it scores."""

from __future__ import annotations

from html import escape

from ..records import Comparison, ModelResult, Score
from .text import about, cell, count, figure, milliseconds, percent, plural, size, table


def cost_table(comparison: Comparison) -> str:
    """Models in rows: size, speed, scores with intervals, share of the first model's score."""
    scorers: dict[str, None] = {}
    for model in comparison.models:
        scorers |= dict.fromkeys(model.scores)
    retained = [scorer for scorer in scorers if is_retained(scorer, comparison)]
    shares = [f"{scorer} retained" for scorer in retained]
    head = ["model", "parameters", "size", "time/step", "guidance gap", *scorers, *shares]
    rows = []
    for model in comparison.models:
        ratio = model.parameters / max(1, comparison.models[0].parameters)
        rows.append(cost_row(model, list(scorers), retained, ratio))
    prompts = plural(len(comparison.prompts), "prompt")
    seeds = plural(len(comparison.seeds), "seed")
    setting = (
        f"Suite {comparison.suite}: {prompts}, {seeds}, {plural(comparison.steps, 'step')}, guidance "
        f"{comparison.guidance:g}{own_guidance(comparison)}. The same seeds for every model; scores with 95 % intervals."
    )
    return table(head, rows) + about(escape(setting))


def own_guidance(comparison: Comparison) -> str:
    """The models that were sampled with another guidance, as a part of a sentence."""
    others = [f"{name} {scale:g}" for name, scale in comparison.other_guidance.items()]
    return f" ({', '.join(others)})" if others else ""


def is_retained(scorer: str, comparison: Comparison) -> bool:
    """Whether any model keeps a share of the first one's score: not where that is 1 by definition."""
    return any(model.retention.get(scorer) is not None for model in comparison.models)


def cost_row(
    model: ModelResult, scorers: list[str], retained: list[str], ratio: float
) -> list[str]:
    """Cells of one model; `ratio`: its parameters over those of the first model."""
    values = [
        model.name,
        f"{count(model.parameters)} ({percent(ratio)})",
        size(model.bytes),
        milliseconds(model.ms_per_step),
        figure(model.guidance_gap),
    ]
    values += [score_text(model.scores.get(scorer)) for scorer in scorers]
    values += [percent(model.retention.get(scorer)) for scorer in retained]
    return [cell(value) for value in values]


def score_text(score: Score | None) -> str:
    """The overall score, with its interval where there is one."""
    if score is None:
        return figure(None)
    if score.low is None or score.high is None:
        return figure(score.overall)
    return f"{figure(score.overall)} [{figure(score.low)}, {figure(score.high)}]"
