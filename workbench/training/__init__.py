"""Batches to train on: how each family is called, latent caches on disk, and sources of samples
without end.
"""

from __future__ import annotations

from .cache import Sample, Shard, Text, write_shard
from .inputs import INPUTS, PLAIN, Batch, Drawing, Inputs, inputs_of
from .source import Bucket, LatentSource, Source, draws

__all__ = [
    "INPUTS",
    "PLAIN",
    "Batch",
    "Bucket",
    "Drawing",
    "Inputs",
    "LatentSource",
    "Sample",
    "Shard",
    "Source",
    "Text",
    "draws",
    "inputs_of",
    "write_shard",
]
