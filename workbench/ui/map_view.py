"""What the browser asks to look at, checked."""

from __future__ import annotations

from .. import plans
from ..charts.view import GIVEN, Look, Weighting, given_weights
from ..records import BadInput
from ..workspace.store import Store
from . import catalogue


def look(
    store: Store, key: str | None, chosen_map: str | None, weighting: str, given: str = ""
) -> Look:
    """Raises BadInput where the browser sent what is not in the lists, or weights that are none."""
    teacher = catalogue.teacher(store, key)
    sensitivity = catalogue.sensitivity(store, teacher, chosen_map)
    if weighting not in (*plans.WEIGHTINGS, GIVEN):
        raise BadInput(
            f"weighting {weighting!r}",
            "one of " + ", ".join((*plans.WEIGHTINGS, GIVEN)),
            "choose one",
        )
    how: Weighting = (
        given_weights(given, sensitivity.timesteps if sensitivity else [])
        if weighting == GIVEN
        else weighting
    )
    return Look(teacher, sensitivity, how, weighting)
