"""How a family's transformer is called in training, from its row of the families table."""

from __future__ import annotations

from ..families import FAMILIES, Inputs
from ..records import BadInput


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
