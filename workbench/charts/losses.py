"""What students lose against the first model: by category, and picture by picture."""

from __future__ import annotations

from typing import Any

from ..records import Comparison, ModelResult, Score
from .axis import Rows
from .students import usual_scorer


def lost_rows(comparison: Comparison) -> Rows:
    """One row per student, scorer and category: its score, the first model's, and what is lost, in
    the scorer's unit; > 0 = worse than the first model. The largest loss of a scorer first.

    Scorers that measure likeness to the first model's pictures are left out.
    """
    first = comparison.models[0]
    rows: Rows = []
    for label, reference in first.scores.items():
        own: Rows = []
        for model in comparison.models[1:]:
            if label in model.scores and model.retention.get(label) is not None:
                own += losses_of(model, label, reference)
        rows += sorted(own, key=lambda row: -row["lost"])
    return rows


def losses_of(model: ModelResult, label: str, reference: Score) -> Rows:
    score = model.scores[label]
    sign = 1 if score.higher_is_better else -1
    rows = []
    for category, of_first in reference.by_category.items():
        if category not in score.by_category:
            continue
        value = score.by_category[category]
        low, high = score.interval(category)
        rows.append(
            {
                "model": model.name,
                "scorer": label,
                "category": category,
                "first": of_first,
                "score": value,
                "low": low,
                "high": high,
                "lost": sign * (of_first - value),
            }
        )
    return rows


def worst_rows(comparison: Comparison, count: int = 12) -> Rows:
    """Pictures of students with the largest loss against the first model's of the same prompt and
    seed, the worst first: {model, at, prompt, category, seed, lost, scorer}.

    lost: in the scorer's unit. Pictures of equal loss are ordered by likeness to the first model's
    picture, where a scorer measured that. `at`: the picture's number, prompt by prompt and seed by
    seed. Empty where no scorer judged picture by picture.
    """
    first = comparison.models[0]
    label = label_of_pictures(comparison)
    if not label:
        return []
    alike = likeness_scorer(comparison)
    rows: Rows = []
    for model in comparison.models[1:]:
        losses = picture_losses(model, first, label)
        ties = picture_losses(model, first, alike) if alike else [0.0] * len(losses)
        for at, loss in enumerate(losses):
            if loss > 0:
                rows.append({**picture_row(comparison, at), "model": model.name, "lost": loss})
                rows[-1] |= {"scorer": label, "tie": ties[at]}
    rows.sort(key=lambda row: (-row["lost"], -row["tie"]))
    return [without_tie(row) for row in rows[:count]]


def label_of_pictures(comparison: Comparison) -> str:
    """The scorer that pictures are ordered by: of quality where one judged each, else of likeness."""
    usual = usual_scorer([comparison])
    if usual and judged_each(comparison, usual):
        return usual
    return likeness_scorer(comparison)


def likeness_scorer(comparison: Comparison) -> str:
    """The first scorer of likeness to the first model's pictures; "" where there is none."""
    for label in comparison.models[0].scores:
        kept = [model.retention.get(label) for model in comparison.models]
        if all(share is None for share in kept) and judged_each(comparison, label):
            return label
    return ""


def judged_each(comparison: Comparison, label: str) -> bool:
    """Whether every model has a value for each picture."""
    for model in comparison.models:
        score = model.scores.get(label)
        if score is None or score.per_image is None:
            return False
    return True


def picture_losses(model: ModelResult, first: ModelResult, label: str) -> list[float]:
    """What each picture loses against the first model's; > 0 = worse."""
    score = model.scores[label]
    sign = 1 if score.higher_is_better else -1
    pairs = zip(first.scores[label].per_image or [], score.per_image or [], strict=True)
    return [sign * (of_first - own) for of_first, own in pairs]


def picture_row(comparison: Comparison, at: int) -> dict[str, Any]:
    prompt, seed = divmod(at, len(comparison.seeds))
    category = comparison.categories[prompt] if comparison.categories else ""
    return {
        "at": at,
        "prompt": comparison.prompts[prompt],
        "category": category,
        "seed": comparison.seeds[seed],
    }


def without_tie(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "tie"}
