"""What a plan changes in the transformer's config."""

from __future__ import annotations

from typing import Any

from ..families import FAMILIES
from ..records import Plan

# the keys of a student that needs a class of its own
CUSTOM = ("single_stream_layers", "removed_parts")


def config_changes(config: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """What the plan changes in the transformer's config: depths, keys that list block numbers, and
    what was done to which block.

    A teacher that is a hybrid student hands on what was done to its blocks.
    """
    out: dict[str, Any] = {}
    for row in FAMILIES[plan.family].stacks:
        spans = plan.stacks[row.path]
        out[row.depth_key] = len(spans)
        for key in row.per_index:
            listed = config.get(key) or ()
            kept = [j for j, span in enumerate(spans) if span.source[0] in listed]
            out[key] = tuple(kept) if isinstance(listed, tuple) else kept
    return out | _custom(config, plan)


def _custom(config: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """Single-stream blocks and removed parts of the student; no keys for a stock student of a stock
    teacher.
    """
    was_single, were_removed = (
        config.get("single_stream_layers") or (),
        config.get("removed_parts") or {},
    )
    single: list[int] = []
    removed: dict[str, list[str]] = {}
    for row in FAMILIES[plan.family].stacks:
        for index, span in enumerate(plan.stacks[row.path]):
            one = row.kind == "dual" and (span.stream == "single" or span.source[0] in was_single)
            names = dict.fromkeys(
                (*were_removed.get(f"{row.path}.{span.source[0]}", ()), *span.drop)
            )
            parts = [part for part in names if not (one and part.startswith("text."))]
            if one:
                single.append(index)
            if parts:
                removed[f"{row.path}.{index}"] = parts
    found = {"single_stream_layers": single, "removed_parts": removed}
    return found if any(found.values()) or any(key in config for key in CUSTOM) else {}


def needs_code(config: dict[str, Any]) -> bool:
    """Whether a transformer of this config needs a class of its own."""
    return any(config.get(key) for key in CUSTOM)
