"""What a plan changes in the transformer's config."""

from __future__ import annotations

from typing import Any

from ..families import FAMILIES
from ..records import Plan


def config_changes(config: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """What the plan changes in the transformer's config: depths, and keys that list block numbers, renumbered."""
    out: dict[str, Any] = {}
    for row in FAMILIES[plan.family].stacks:
        spans = plan.stacks[row.path]
        out[row.depth_key] = len(spans)
        for key in row.per_index:
            listed = config.get(key) or ()
            kept = [j for j, span in enumerate(spans) if span.source[0] in listed]
            out[key] = tuple(kept) if isinstance(listed, tuple) else kept
    return out
