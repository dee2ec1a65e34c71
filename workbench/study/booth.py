"""A rater's way through a study: which item is next, and what a vote must be. No HTTP here."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..records import CRITERIA, BadInput, Seat, Slot, Study, Vote
from .create import FILE, PICTURES
from .pictures import padded
from .secrets import Codes
from .sheets import Shown, sheet
from .votes import BallotBox

ALLOWED = {"pairs": ("a", "b", "tie"), "abx": ("a", "b"), "ratings": ()}
LONGEST = 24 * 3600.0  # seconds for one item that are believed


@dataclass(frozen=True)
class Place:
    """Where a rater is. position: of the next item, from 0; equal to total at the end."""

    position: int
    total: int
    prompt: str


class Booth:
    """The raters of one study. Raises BadInput for a folder without a study."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.study = Study.load(folder / FILE)
        self.codes = Codes(folder)
        self.box = BallotBox(folder)
        self.numbers = {self.codes.rater(number): number for number in range(self.study.raters)}
        self.sheets: dict[int, list[Shown]] = {}

    # --- raters -----------------------------------------------------------------------------------

    def rater_of(self, code: str) -> int | None:
        """The rater whom a code belongs to."""
        return self.numbers.get(code)

    def begin(self, code: str = "") -> str:
        """Seat a rater and return the rater's code: of an invited one, or the next free one.

        Raises BadInput where everyone is there already.
        """
        rater = self.rater_of(code)
        if rater is None:
            rater = self.free_seat()
        if rater not in self.box.ballots.seats:
            self.box.append(Seat(rater=rater, time=time.time()))
        return self.codes.rater(rater)

    def free_seat(self) -> int:
        for rater in range(self.study.raters):
            if rater not in self.box.ballots.seats:
                return rater
        raise BadInput(
            f"all {self.study.raters} raters of this study have begun",
            "a free place",
            "thank you; ask whoever sent you the link",
        )

    def has_begun(self, rater: int) -> bool:
        return rater in self.box.ballots.seats

    # --- items ------------------------------------------------------------------------------------

    def sheet(self, rater: int) -> list[Shown]:
        if rater not in self.sheets:
            self.sheets[rater] = sheet(self.study, rater)
        return self.sheets[rater]

    def place(self, rater: int) -> Place:
        """The first item without a vote."""
        shown = self.sheet(rater)
        position = 0
        while (rater, position) in self.box.ballots.votes:
            position += 1
        prompt = ""
        if position < len(shown) and self.study.show_prompt:
            prompt = self.study.rows[shown[position].item.row].prompt
        return Place(position, len(shown), prompt)

    def picture(self, rater: int, position: int, slot: str) -> bytes | None:
        """A picture of the item where the rater is, or of the next one, which the page loads ahead;
        None for any other.
        """
        place = self.place(rater)
        if position not in (place.position, place.position + 1) or position >= place.total:
            return None
        shown = self.sheet(rater)[position]
        if slot not in shown.slots:
            return None
        model = shown.slots[slot]
        name = self.study.rows[shown.item.row].pictures[model]
        png = (self.folder / PICTURES / name).read_bytes()
        return padded(png, self.study.picture_bytes)

    # --- votes ------------------------------------------------------------------------------------

    def vote(self, rater: int, answer: dict[str, Any]) -> None:
        """Save a vote: {"position", "choice"} or {"position", "quality", "alignment"}, with "seconds".

        Raises BadInput for a second vote on an item, one on an item that is not there yet, and for
        an answer that is not one of this study's.
        """
        place = self.place(rater)
        position = answer.get("position")
        if type(position) is not int or not 0 <= position < place.total:
            raise BadInput(f"position {position!r:.40}", f"0 to {place.total - 1}", "reload")
        if position < place.position:
            raise BadInput(
                f"a second vote on item {position + 1}",
                "one vote per rater and item: the first one counts",
                "reload the page to go on",
            )
        if position > place.position:
            raise BadInput(
                f"a vote on item {position + 1}",
                f"one on item {place.position + 1}, which is next",
                "reload the page to go on",
            )
        shown = self.sheet(rater)[position]
        vote = Vote(
            rater=rater,
            position=position,
            item=shown.number,
            check=shown.check,
            slots=shown.slots,
            seconds=seconds_of(answer.get("seconds")),
            time=time.time(),
            **self.judgement(answer),
        )
        self.box.append(vote)

    def judgement(self, answer: dict[str, Any]) -> dict[str, Any]:
        """The judgement in an answer. Raises BadInput for none, or one of another kind of study."""
        if self.study.kind == "ratings":
            ratings = {name: answer.get(name) for name in CRITERIA}
            for name, rating in ratings.items():
                if type(rating) is not int or not 1 <= rating <= 5:
                    raise BadInput(f"{name} {rating!r:.40}", "1 to 5", "rate it")
            return ratings
        allowed = ALLOWED[self.study.kind]
        choice = answer.get("choice")
        if choice not in allowed:
            raise BadInput(f"choice {choice!r:.40}", ", ".join(allowed), "choose one")
        return {"choice": choice}

    def slots(self) -> list[Slot]:
        """The places on the page."""
        places: dict[str, list[Slot]] = {"pairs": ["a", "b"], "ratings": ["one"]}
        return places.get(self.study.kind, ["a", "b", "x"])

    def close(self) -> None:
        self.box.close()


def seconds_of(value: Any) -> float | None:
    """A time that a browser measured; None for anything that cannot be one."""
    if type(value) not in (int, float) or not 0 <= value <= LONGEST:
        return None
    return round(float(value), 3)
