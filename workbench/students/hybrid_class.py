"""Transformer classes whose blocks need not be alike."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusers.configuration_utils import register_to_config
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from torch import nn

from .low_rank_linear import factor_modulation
from .removed_parts import Part, remove_parts


def make_hybrid(
    cls: Any,
    name: str,
    code: Callable[[], str],
    parts: Mapping[str, Mapping[str, Part]],
    returns: Mapping[str, Sequence[str]],
    modulation: Mapping[str, Sequence[str]],
    stack: str = "",
    single: type[nn.Module] | None = None,
) -> Any:
    """Let a subclass of a stock transformer take three more arguments, which its config.json keeps.

    single_stream_layers: blocks of `stack` that have one stream, of class `single`. removed_parts:
    "<stack>.<block>" -> names of `parts` (stack -> part). modulation_rank: "<stack>.<block>" -> the
    rank of its AdaLN linears; `modulation`: stack -> their names. returns: stack -> the streams its
    blocks return, in order. name, code: of the modeling file, which goes wherever the model is
    saved.
    """
    stock = cls.__mro__[1]
    two = {path: len(names) > 1 for path, names in returns.items()}

    def __init__(
        self: Any,
        *args: Any,
        single_stream_layers: Sequence[int] = (),
        removed_parts: Mapping[str, Sequence[str]] | None = None,
        modulation_rank: Mapping[str, int] | None = None,
        **kwargs: Any,
    ) -> None:
        stock.__init__(self, *args, **kwargs)
        for index in single_stream_layers:
            blocks = self.get_submodule(stack)
            blocks[index] = single(blocks[index])  # type: ignore[misc]
        factor_modulation(self, modulation_rank or {}, modulation)
        remove_parts(self, removed_parts or {}, parts, single_stream_layers, two)

    def save_config(self: Any, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        stock.save_config(self, save_directory, *args, **kwargs)
        Path(save_directory, f"{name}.py").write_text(code(), encoding="utf-8")

    setattr(__init__, "__signature__", extended_signature(stock))  # noqa: B010
    cls.__init__ = register_to_config(__init__)
    cls.save_config = save_config
    # diffusers writes the module's name into config.json and model_index.json: let it be the
    # file's, not that of a cached copy.
    sys.modules.setdefault(name, sys.modules[cls.__module__])  # for pickle
    cls.__module__ = name
    cls._auto_class = "AutoModel"
    cls.single_class = single
    if single is not None:
        announce_block(cls, stock, single, returns[stack])
    return cls


def extended_signature(stock: Any) -> inspect.Signature:
    """The stock class's signature with the arguments of a hybrid: diffusers reads it."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    own = [
        inspect.Parameter("single_stream_layers", keyword, default=()),
        inspect.Parameter("removed_parts", keyword, default=None),
        inspect.Parameter("modulation_rank", keyword, default=None),
    ]
    signature = inspect.signature(stock.__init__)
    return signature.replace(parameters=[*signature.parameters.values(), *own])


def announce_block(cls: Any, stock: Any, single: type[nn.Module], streams: Sequence[str]) -> None:
    """Tell diffusers of the single-stream blocks: for its hooks, for placing and for compiling."""
    TransformerBlockRegistry.register(
        single,
        TransformerBlockMetadata(
            return_hidden_states_index=streams.index("hidden_states"),
            return_encoder_hidden_states_index=streams.index("encoder_hidden_states"),
        ),
    )
    cls._no_split_modules = [*(stock._no_split_modules or []), single.__name__]
    repeated = stock._repeated_blocks
    cls._repeated_blocks = [*repeated, single.__name__] if repeated else []
