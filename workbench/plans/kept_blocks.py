"""Which blocks stay as they are when the others are quantised."""

from __future__ import annotations

from .scores import BlockScores


def kept_blocks(scores: BlockScores, at_most: float) -> list[tuple[str, int]]:
    """The (stack, block) that stay: blocks are quantised from the lowest score on while the sum of
    their scores is at most `at_most`, in the scores' unit.
    """
    total = 0.0
    kept = []
    for place, score in sorted(scores.items(), key=lambda item: item[1]):
        total += score
        if total > at_most:
            kept.append(place)
    return sorted(kept)
