"""What a person may set on a rule: one row per option, from which the command line and the app make
their forms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from ..plans import WEIGHTINGS
from ..records import Init


@dataclass(frozen=True)
class Option:
    """One option of `rules.propose`, by the name of its keyword. `default` None: the rule decides."""

    label: str
    kind: Literal["int", "float", "choice", "blocks", "bool"]  # blocks: block numbers with commas
    default: Any
    choices: tuple[str, ...]
    about: str


OPTIONS: dict[str, Option] = {
    "init": Option(
        "Start from",
        "choice",
        None,
        get_args(Init),
        "Which of its teacher blocks a span's student block starts as: the first, the "
        "last, the middle, or their mean. "
        "Measured rules try them for each span unless one is set.",
    ),
    "gain": Option(
        "Gain",
        "choice",
        None,
        ("1", "2", "3", "length"),
        "Scale of the residual step of a block that stands for several; length: as "
        "many times as it has blocks. "
        "Any positive number will do. Measured rules try 1 and length unless one is "
        "set.",
    ),
    "protect": Option(
        "Protected blocks", "blocks", None, (), "Blocks that stay alone and unchanged, as 0,1,23."
    ),
    "weighting": Option(
        "Timestep weight",
        "choice",
        None,
        WEIGHTINGS,
        "How scores are averaged over timesteps. normalised: every timestep "
        "counts alike; uniform: low noise, where "
        "relative errors are largest, dominates; high-noise: layout and meaning "
        "count more.",
    ),
    "single_from": Option(
        "Single-stream from",
        "int",
        None,
        (),
        "Student blocks from this number on carry text and image with one set "
        "of weights. Only families whose "
        "dual blocks can become single.",
    ),
    "slim_from": Option(
        "Text slim from",
        "int",
        None,
        (),
        "Student blocks from this number on only read the text: of its stream "
        "their keys and values stay, the rest goes. "
        "Only families with a text stream.",
    ),
    "parts": Option(
        "Drop parts too",
        "bool",
        True,
        (),
        "After whole blocks, drop parts of blocks until the budget is met.",
    ),
    "edits": Option(
        "Edits to mix",
        "choice",
        None,
        ("join", "join,slim", "join,parts", "join,single", "join,slim,single,parts"),
        "What a measured rule may do. join: two neighbouring blocks become one "
        "(dropped, averaged, with or without gain); "
        "slim: the text is only read; single: text and image share weights; parts: an "
        "attention, MLP or modulation goes.",
    ),
    "shortlist": Option(
        "Shortlist",
        "int",
        16,
        (),
        "After the first round only this many of the most promising edits are "
        "measured again each round; 0: all.",
    ),
    "longest": Option(
        "Longest span",
        "int",
        None,
        (),
        "No span gets more blocks than this unless the budget asks for it: the "
        "error before training does not tell that "
        "training cannot repair long spans.",
    ),
    "margin": Option(
        "Margin of the start",
        "float",
        None,
        (),
        "A joined span starts otherwise than as its first block only where that "
        "makes the error it adds this many times "
        "smaller: smaller gains before training do not outlast it.",
    ),
    "minutes": Option(
        "Minutes", "float", None, (), "Time to search. The best plan found so far is the answer."
    ),
    "tries": Option(
        "Plans to try",
        "int",
        None,
        (),
        "How many plans to measure, instead of a time: the same number gives the same plan.",
    ),
    "start": Option(
        "Start with",
        "choice",
        None,
        ("uniform", "influence", "amber", "hierarchical", "greedy"),
        "The rule whose plan the search improves [uniform]; on the command line also a plan file.",
    ),
}
