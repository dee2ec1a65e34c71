"""Rules propose plans. Each published rule is one file that opens with its paper and ends with its
row of the table.

A rule is a function from a Request (teacher, map, budget, settings) to spans per stack, each with
the reason why.
"""

from __future__ import annotations

from .base import Proposal, Request, Rule, Spans
from .budget import Budget
from .maps import check_map, reads
from .proposing import Proposed, propose, proposing
from .settings import Settings, settings_of
from .table import RULES

__all__ = [
    "RULES",
    "Budget",
    "Proposal",
    "Proposed",
    "Request",
    "Rule",
    "Settings",
    "Spans",
    "check_map",
    "propose",
    "proposing",
    "reads",
    "settings_of",
]
