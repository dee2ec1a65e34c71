"""How a family's transformer is called in training, from its row of the families table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..families import FAMILIES, Inputs
from ..records import BadInput, Stage


def inputs_of(family: str) -> Inputs:
    """The names and forms of the transformer's arguments. Raises BadInput where the family's row
    does not have them.
    """
    inputs = FAMILIES[family].inputs
    if inputs is None:
        raise BadInput(
            f"family {family} has no `inputs` in its row",
            "one of " + ", ".join(name for name, row in FAMILIES.items() if row.inputs),
            "add how its transformer is called (docs/add-a-family.md)",
        )
    return inputs


def check_trainable(family: str, config: Mapping[str, Any]) -> None:
    """Raise BadInput for a model of the family that training would not call as it was trained."""
    for key, reason in inputs_of(family).untrained.items():
        if config.get(key):
            raise BadInput(
                f"family {family} with {key} in its config ({reason})",
                f"a model without {key}",
                "profile, plan and build it; distill a student of the model without",
            )


def has_two_branches(family: str) -> bool:
    """Whether the family's models are sampled with classifier-free guidance: a conditional and an
    unconditional branch. Those that take the guidance scale as a number have one branch.
    """
    return FAMILIES[family].negative


def check_branches(stage: Stage, family: str) -> None:
    """Raise BadInput where a stage supervises both branches of a family that has one."""
    if stage.branches == "conditional" or has_two_branches(family):
        return
    trainable = [name for name, row in FAMILIES.items() if row.inputs]
    raise BadInput(
        f"stage {stage.name!r}: branches both, and family {family} takes guidance as a number",
        "one of " + ", ".join(name for name in trainable if has_two_branches(name)),
        "say branches: conditional",
    )
