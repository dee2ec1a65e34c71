"""Properties that must hold for whatever is drawn. The same examples are drawn every time: a
failure is never a matter of luck.
"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings


def drawn(examples: int) -> Any:
    """So many examples, always the same ones, however slow the machine."""
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.function_scoped_fixture,
            HealthCheck.data_too_large,
        ],
    )
