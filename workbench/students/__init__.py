"""Student blocks and classes: dual-stream blocks made single, and blocks without some parts.

One source of truth: the classes used here for previews, training and loading are what the exporter
writes into a student's folder. `removed_parts`, `hybrid_class` and `single_stream` import torch and
diffusers alone, so that `modeling_file` can join them into one file.
"""

from __future__ import annotations

from .block_module import student_block
from .classes import student_class
from .modeling_file import module_name, source
from .tables import stock_class

__all__ = ["module_name", "source", "stock_class", "student_block", "student_class"]
