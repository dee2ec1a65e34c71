"""The page of a comparison: one HTML file without outside requests."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

from jinja2 import Environment, StrictUndefined

from ..records import Comparison


@dataclass(frozen=True)
class PictureRow:
    """One prompt and seed. files: (model, picture) in the order of the models."""

    prompt: str
    category: str
    seed: int
    files: list[tuple[str, str]]


def render(comparison: Comparison) -> str:
    """The page's text. Pictures are named by relative path, every text is escaped."""
    source = (resources.files("workbench.comparison") / "page.html.jinja").read_text("utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(source).render(
        c=comparison,
        first=comparison.models[0],
        rows=picture_rows(comparison),
        tested=sum(len(model.difference) for model in comparison.models),
    )


def picture_rows(comparison: Comparison) -> list[PictureRow]:
    """A row per prompt and seed, in the order of the pictures."""
    rows: list[PictureRow] = []
    categories = comparison.categories or [""] * len(comparison.prompts)
    for prompt, category in zip(comparison.prompts, categories, strict=True):
        for seed in comparison.seeds:
            number = len(rows)
            files = [(m.name, comparison.images[m.name][number]) for m in comparison.models]
            rows.append(PictureRow(prompt, category, seed, files))
    return rows
