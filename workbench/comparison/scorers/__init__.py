"""Scorers: how good a picture is, as a number. `table` lists them, `base` says what one is."""
