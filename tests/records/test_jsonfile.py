"""JSON of other people's making: what cannot be worked with is refused in words."""

from __future__ import annotations

import pytest

from workbench.records import jsonfile


def test_numbers_of_64_bits_are_read_and_longer_ones_refused():
    """The database and safetensors hold whole numbers of 64 bits with a sign."""
    for number in (2**63 - 1, -(2**63), 0):
        assert jsonfile.parse(str(number)) == number
    for number in (2**63, -(2**63) - 1, 10**19, 10**5000 - 1):
        digits = "9" * 5000 if number > 2**70 else str(number)
        with pytest.raises(jsonfile.JSONError):
            jsonfile.parse(digits)


def test_deep_nesting_is_refused():
    with pytest.raises(jsonfile.JSONError):
        jsonfile.parse("[" * 100_000)
