"""The teacher, map and timestep weighting that the browser sent, checked."""

from __future__ import annotations

from .. import plans
from ..charts.view import GIVEN, Look, Weighting, given_weights
from ..records import BadInput
from ..workspace.store import Store
from . import catalogue


def look_at(
    store: Store, teacher: str | None, chosen_map: str | None, weighting: str, weights: str = ""
) -> Look:
    """What is on screen.

    Raises BadInput for what is not in the lists, and for weights that cannot be read.
    """
    record = catalogue.teacher(store, teacher)
    sensitivity = catalogue.sensitivity(store, record, chosen_map)
    known = (*plans.WEIGHTINGS, GIVEN)
    if weighting not in known:
        raise BadInput(
            f"timestep weighting {weighting!r}", "one of " + ", ".join(known), "choose one"
        )
    how: Weighting = weighting
    if weighting == GIVEN:
        timesteps = [] if sensitivity is None else sensitivity.timesteps
        how = given_weights(weights, timesteps)
    return Look(record, sensitivity, how, weighting)
