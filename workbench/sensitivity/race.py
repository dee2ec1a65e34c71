"""Racing: which K blocks are the least sensitive? Blocks for which that is settled are not measured
again.

Successive elimination (Hoeffding races, Maron & Moore 1993; the best K of n arms, Bubeck et al.,
arXiv 1205.3181), with paired differences instead of separate intervals. All undecided blocks are measured
on the same prompts; what a prompt adds to every block's score cancels in a difference. After every
batch, block i counts as surely lower than block j where the upper end of a one-sided t interval of
their mean difference over prompts is below 0. A block is settled as one of the lowest K where it is
surely lower than n - K others, and as not one of them where K others are surely lower.

The intervals hold together with probability 1 - ERROR. A wrong decision needs a false claim between
one of the true lowest K and one of the n - K others, so K (n - K) claims count (not all pairs); look
number k after a batch gets the share 1 / (k (k + 1)) of ERROR, which adds up to 1 over any number
of looks. The t interval assumes that means over prompts are about normal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy  # its parts load when they are first used: scipy.stats takes seconds

from ..plans.weighting import time_weight
from ..records import BadInput, Race
from .results import CallScores, Key
from .scan import Scan
from .stability import FEWEST, prompt_numbers, score_table

ERROR = 0.05  # probability that any block of an edit is settled wrongly


@dataclass
class Racing:
    """The race of one edit's blocks.

    keys: all of them. lowest: how many are looked for. inside, outside: settled as among them or
    not. looks: decisions so far.
    """

    keys: list[Key]
    lowest: int
    weighting: str
    inside: set[int] = field(default_factory=set)
    outside: set[int] = field(default_factory=set)
    looks: int = 0

    @property
    def undecided(self) -> list[int]:
        """Numbers of the blocks that are not settled."""
        settled = self.inside | self.outside
        return [number for number in range(len(self.keys)) if number not in settled]

    def look(self, calls: Sequence[CallScores]) -> None:
        """Settle what the calls so far settle; with fewer than FEWEST prompts nothing is."""
        if not self.undecided:
            return
        scores = self._scores(calls)  # (prompts, undecided blocks)
        if len(scores) < FEWEST:
            return
        self.looks += 1
        claims = self.lowest * (len(self.keys) - self.lowest)
        error = ERROR / (self.looks * (self.looks + 1) * claims)
        self._settle(surely_lower(scores, error))

    def _settle(self, lower: np.ndarray) -> None:
        """lower: whether the row's block is surely lower than the column's, of those undecided."""
        numbers = self.undecided
        count = len(self.keys)
        beyond = np.zeros((count, count), bool)  # i is surely lower than j
        beyond[np.ix_(numbers, numbers)] = lower
        changed = True
        while changed:
            beyond[list(self.inside), :] = True
            beyond[:, list(self.outside)] = True
            np.fill_diagonal(beyond, False)
            before = len(self.undecided)
            for number in self.undecided:
                if beyond[number].sum() >= count - self.lowest:
                    self.inside.add(number)
                elif beyond[:, number].sum() >= self.lowest:
                    self.outside.add(number)
            changed = len(self.undecided) < before

    def _scores(self, calls: Sequence[CallScores]) -> np.ndarray:
        """A weighted sum over timesteps per prompt and undecided block, (prompts, blocks): of the
        prompts that have all timesteps."""
        table, weights = self._table(calls)
        scores = np.einsum("ptb,t->pb", table[:, :, self.undecided], weights)
        whole: np.ndarray = scores[~np.isnan(scores).any(1)]
        return whole

    def _means(self, calls: Sequence[CallScores]) -> np.ndarray:
        """The weighted sum over timesteps of every block's mean score: (blocks,)."""
        table, weights = self._table(calls)
        means: np.ndarray = weights @ block_means(table)
        return means

    def _table(self, calls: Sequence[CallScores]) -> tuple[np.ndarray, np.ndarray]:
        """Scores (prompts, timesteps, blocks) and the timesteps' weights."""
        table, timesteps = score_table(calls, prompt_numbers(calls), self.keys)
        return table, time_weights(table, timesteps, self.weighting)

    def result(self, calls: Sequence[CallScores]) -> Race:
        """The lowest K: those that are settled, and of the others those with the lowest mean."""
        means = self._means(calls)
        by_mean = sorted(self.undecided, key=lambda number: means[number])
        chosen = self.inside | set(by_mean[: self.lowest - len(self.inside)])
        return Race(
            lowest=tuple(place_of(self.keys[number]) for number in sorted(chosen)),
            undecided=tuple(place_of(self.keys[number]) for number in self.undecided),
            blocks=len(self.keys),
        )


class Races:
    """The races of all edits of a scan; what is settled is left out of the scan.

    Raises BadInput where an edit has no more than `lowest` blocks.
    """

    def __init__(self, scan: Scan, lowest: int, weighting: str) -> None:
        self.scan = scan
        self.of_edit: dict[str, Racing] = {}
        for edit in scan.edits:
            keys = [Key(*place, edit.name) for place in scan.every_place(edit)]
            check_lowest(lowest, len(keys), edit.name)
            self.of_edit[edit.name] = Racing(keys, lowest, weighting)

    def look(self, calls: Sequence[CallScores]) -> None:
        """Settle what the calls so far settle."""
        for race in self.of_edit.values():
            race.look(calls)
            for number in race.inside | race.outside:
                self.scan.left_out.add(race.keys[number])

    @property
    def undecided(self) -> int:
        """Blocks that are still measured, of all edits together."""
        return sum(len(race.undecided) for race in self.of_edit.values())

    @property
    def decided(self) -> bool:
        return self.undecided == 0

    def results(self, calls: Sequence[CallScores]) -> dict[str, Any]:
        """Edit -> records.Race as JSON."""
        self.look(calls)
        found = {}
        for edit, race in self.of_edit.items():
            found[edit] = race.result(calls).model_dump(mode="json")
        return found


def check_lowest(lowest: int, blocks: int, edit: str) -> None:
    """Raises BadInput unless some blocks are among the lowest and some are not."""
    if not 1 <= lowest < blocks:
        raise BadInput(
            f"a race for the {lowest} lowest of {blocks} blocks with edit {edit}",
            f"1 to {blocks - 1}" if blocks > 1 else "an edit of at least 2 blocks",
            "correct --race" if blocks > 1 else "correct --edits",
        )


def surely_lower(scores: np.ndarray, error: float) -> np.ndarray:
    """Whether block i's mean is below block j's, by a one-sided paired t interval that fails with
    probability `error`: scores (prompts, blocks) -> (blocks, blocks)."""
    count = len(scores)
    differences = scores[:, :, None] - scores[:, None, :]  # (prompts, blocks, blocks)
    spread = differences.std(0, ddof=1) / count**0.5
    reach = scipy.stats.t.ppf(1 - error, count - 1)
    lower: np.ndarray = differences.mean(0) + reach * spread < 0
    return lower


def time_weights(
    table: np.ndarray, timesteps: Sequence[float | None], weighting: str
) -> np.ndarray:
    """What each timestep counts: (timesteps,). Normalised: 1 / the mean over blocks of their mean
    score, as plans.block_scores has it."""
    if weighting != "normalised":
        return np.array([time_weight(time, weighting) for time in timesteps])
    level = block_means(table).mean(1)
    return 1 / np.where(level > 0, level, np.inf)


def block_means(table: np.ndarray) -> np.ndarray:
    """Mean score over the prompts that a block was measured on: (timesteps, blocks); 0 where there
    are none."""
    present = ~np.isnan(table)
    means: np.ndarray = np.where(present, table, 0).sum(0) / np.maximum(present.sum(0), 1)
    return means


def place_of(key: Key) -> tuple[str, int]:
    return key.stack, key.block
