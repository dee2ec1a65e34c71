"""What a test asks of a refusal: its fields name the value, whatever its words are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from workbench.records import BadInput


@contextmanager
def refused(
    found: str = "", expected: str = "", do: str = ""
) -> Iterator[pytest.ExceptionInfo[BadInput]]:
    """The code inside raises BadInput on one line, and its three fields contain these texts."""
    with pytest.raises(BadInput) as error:
        yield error
    assert found in error.value.found
    assert expected in error.value.expected
    assert do in error.value.do
    assert "\n" not in str(error.value)
