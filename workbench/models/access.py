"""Take hold of the parts of a loaded transformer, by the families table."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import diffusers
import torch
import transformers
from torch import nn

from ..families import FAMILIES, Family, by_class

Pipeline = Any  # a DiffusionPipeline: its components are attributes that no type checker sees


def transformer_of(model: Pipeline | nn.Module) -> nn.Module:
    """The transformer of a pipeline, or the transformer itself."""
    return model if isinstance(model, nn.Module) else model.transformer


def config_of(transformer: nn.Module) -> dict[str, Any]:
    """The config a loaded transformer was built from."""
    return dict(cast(Any, transformer).config)


def family_of(transformer: nn.Module) -> Family:
    """The row of the families table for a loaded transformer; subclasses count as their stock
    class.
    """
    for cls in type(transformer).__mro__:
        for family in FAMILIES.values():
            if family.transformer == cls.__name__:
                return family
    return by_class(type(transformer).__name__)  # raises, with the reason


def blocks_of(transformer: nn.Module) -> dict[str, nn.ModuleList]:
    """Stack path -> its ModuleList, in the order of the families table."""
    out = {}
    for row in family_of(transformer).stacks:
        stack = transformer.get_submodule(row.path)
        assert isinstance(stack, nn.ModuleList)
        out[row.path] = stack
    return out


def prediction(output: Any, transformer: nn.Module | None = None) -> torch.Tensor:
    """The tensor a transformer's forward returns, with return_dict or without: (B, ...), samples
    first.

    Given the `transformer`, variance channels behind the prediction are cut off (PixArt, DiT): the
    sampler does not use them.
    """
    value = output[0] if isinstance(output, tuple) else getattr(output, "sample", output)
    # Z-Image returns a list, one a sample
    tensor = torch.stack(list(value)) if isinstance(value, list) else value
    if transformer is not None and family_of(transformer).variance:
        config = config_of(transformer)
        if config.get("out_channels") == 2 * config["in_channels"]:
            return tensor.chunk(2, dim=1)[0]
    return tensor


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no chatter from diffusers and transformers while loading."""
    bars = diffusers.utils.logging, transformers.utils.logging
    levels = [logger.get_verbosity() for logger in bars]
    shown = [logger.is_progress_bar_enabled() for logger in bars]
    for logger in bars:
        logger.disable_progress_bar()
        logger.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        for logger, level, on in zip(bars, levels, shown, strict=True):
            logger.set_verbosity(level)
            if on:
                logger.enable_progress_bar()
