"""Sensitivity: how much the model's prediction changes under one edit of one block.

table: the metrics and edits (no torch). profiling: from recorded calls to a map. pictures: from
finished pictures. measured_error: the error of a whole plan before training. Callers import from the
modules, so that the tables can be listed without torch.
"""
