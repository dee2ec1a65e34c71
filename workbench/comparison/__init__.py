"""Comparing models: the same prompts and seeds, scores with intervals, one page."""
