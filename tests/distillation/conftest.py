from __future__ import annotations

from tests.distill_world import one_thread, pipeline_folder, source, world

__all__ = ["one_thread", "pipeline_folder", "source", "world"]
