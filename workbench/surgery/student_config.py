"""What a plan changes in the transformer's config."""

from __future__ import annotations

from typing import Any

from ..families import FAMILIES
from ..models.folders import CUSTOM
from ..records import Plan


def config_changes(config: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """What the plan changes in the transformer's config: depths, keys that list block numbers, and
    what was done to which block.

    A teacher that is a student itself hands on what was done to its blocks.
    """
    changes: dict[str, Any] = {}
    for row in FAMILIES[plan.family].stacks:
        spans = plan.stacks[row.path]
        changes[row.depth_key] = len(spans)
        for key in row.per_index:
            listed = config.get(key) or ()
            blocks = [j for j, span in enumerate(spans) if span.source[0] in listed]
            changes[key] = tuple(blocks) if isinstance(listed, tuple) else blocks
    return changes | _block_changes(config, plan)


def _block_changes(config: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """Single-stream blocks, removed parts and ranks of modulation of the student; no keys for a
    stock student of a stock teacher.
    """
    single_before = config.get("single_stream_layers") or ()
    removed_before = config.get("removed_parts") or {}
    single: list[int] = []
    ranks_before = config.get("modulation_rank") or {}
    removed: dict[str, list[str]] = {}
    ranks: dict[str, int] = {}
    for row in FAMILIES[plan.family].stacks:
        for index, span in enumerate(plan.stacks[row.path]):
            source = span.source[0]
            is_single = row.kind == "dual" and (span.stream == "single" or source in single_before)
            if is_single:
                single.append(index)
            names = (*removed_before.get(f"{row.path}.{source}", ()), *span.drop)
            # a single-stream block has no text parts left to lose
            parts = [
                part
                for part in dict.fromkeys(names)
                if not (is_single and part.startswith("text."))
            ]
            if parts:
                removed[f"{row.path}.{index}"] = parts
            rank = span.rank or ranks_before.get(f"{row.path}.{source}")
            if rank:
                ranks[f"{row.path}.{index}"] = rank
    if not (single or removed or ranks or any(key in config for key in CUSTOM)):
        return {}
    changes: dict[str, Any] = {"single_stream_layers": single, "removed_parts": removed}
    if ranks or "modulation_rank" in config:
        changes["modulation_rank"] = ranks
    return changes


def needs_code(config: dict[str, Any]) -> bool:
    """Whether a transformer of this config needs a class of its own."""
    return any(config.get(key) for key in CUSTOM)
