"""The loss terms that a stage can name: add one here, or with `workbench.register("loss", ..)`.

    def cosine(predictions, loss):      # predictions: losses.Predictions
        return losses.share_of_mean(1 - cosine_similarity(..), predictions.add)

    row = LossTerm("1 - cosine of predictions", "prediction", cosine, teacher=True)
    workbench.register("loss", "cosine", row)

A stage then says `losses: {cosine: {weight: 0.5}}`. Importing this imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from ..plugins import registry
from ..plugins.registry import Lazy
from ..records import BadInput, Stage


@dataclass(frozen=True)
class LossTerm:
    """One kind of term of a stage's loss.

    about: one sentence. reads: `spans`, called once per student block with losses.SpanStates;
    `prediction`, called once per batch with losses.Predictions. compute: (those, records.Loss) ->
    a scalar; of several processes each one's share, so that the shares add up to the loss
    (`losses.share_of_mean`). teacher: whether it needs the teacher's prediction.
    """

    about: str
    reads: Literal["spans", "prediction"]
    compute: Callable[..., Any]
    teacher: bool = False


ROWS: dict[str, LossTerm | Lazy] = {
    "feature": Lazy(
        "workbench.training.builtin_losses:FEATURE",
        about="A student block's states against the teacher's at the end of its span.",
    ),
    "output": Lazy(
        "workbench.training.builtin_losses:OUTPUT",
        about="The student's prediction against the teacher's.",
    ),
    "task": Lazy(
        "workbench.training.builtin_losses:TASK",
        about="The student's prediction against the truth: noise - x0 in flow matching.",
    ),
}


def check_losses(stage: Stage) -> None:
    """Raise BadInput where a stage names an unknown loss, or one that does not fit its gradient."""
    table = registry("loss")
    for name in stage.losses:
        term: LossTerm = table[name]
        if stage.gradient == "span" and term.reads != "spans":
            raise BadInput(
                f"stage {stage.name!r}: gradient 'span' with loss {name}",
                "a loss of spans, as feature",
                "say gradient: full, or leave the loss out",
            )
