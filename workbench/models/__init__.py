"""Teachers as diffusers models: describe them from headers, load them, run their own sampler,
record its trajectory.
"""

from __future__ import annotations

from .access import Pipeline, blocks_of, config_of, family_of, prediction, quiet, transformer_of
from .describing import describe, describe_module
from .final_latents import final_latents
from .folders import is_pipeline, read_config, transformer_folder
from .hub import describe_hub
from .loading import load_pipeline, load_transformer, parse_dtype
from .recorded_calls import load_inputs, save_inputs
from .sampling import (
    Call,
    call_arguments,
    chosen_steps,
    generate,
    placed,
    recorded_calls,
    size_unit,
    text_hash,
    trajectories,
)

__all__ = [
    "Call",
    "Pipeline",
    "blocks_of",
    "call_arguments",
    "chosen_steps",
    "config_of",
    "describe",
    "describe_hub",
    "describe_module",
    "family_of",
    "final_latents",
    "generate",
    "is_pipeline",
    "load_inputs",
    "load_pipeline",
    "load_transformer",
    "parse_dtype",
    "placed",
    "prediction",
    "quiet",
    "read_config",
    "recorded_calls",
    "save_inputs",
    "size_unit",
    "text_hash",
    "trajectories",
    "transformer_folder",
    "transformer_of",
]
