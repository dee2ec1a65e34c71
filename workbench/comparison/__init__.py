"""Comparing models: the same prompts and seeds through each, scores with intervals, one page."""
