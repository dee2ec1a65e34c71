"""Transformer classes whose blocks need not be alike."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from diffusers.configuration_utils import register_to_config
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from torch import nn

from .parts import Part, remove_parts


def hybrid(parts: Mapping[str, Mapping[str, Part]], returns: Mapping[str, Sequence[str]], stack: str = "",
           single: type[nn.Module] | None = None) -> Callable[[type], type]:
    """Let a subclass of a stock transformer take two more arguments, which its config.json keeps.

    single_stream_layers: blocks of `stack` that have one stream, of class `single`. removed_parts: "<stack>.<block>" -> names of
    `parts` (stack -> part). returns: stack -> the streams its blocks return, in order.
    """

    def extend(cls: type) -> type:
        stock: Any = cls.__mro__[1]

        def __init__(self: Any, *args: Any, single_stream_layers: Sequence[int] = (),
                     removed_parts: Mapping[str, Sequence[str]] | None = None, **kwargs: Any) -> None:
            stock.__init__(self, *args, **kwargs)
            for index in single_stream_layers:
                blocks = self.get_submodule(stack)
                blocks[index] = single(blocks[index])  # type: ignore[misc]
            remove_parts(self, removed_parts or {}, parts, single_stream_layers, {path: len(names) > 1 for path, names in returns.items()})

        own = [inspect.Parameter("single_stream_layers", inspect.Parameter.KEYWORD_ONLY, default=()),
               inspect.Parameter("removed_parts", inspect.Parameter.KEYWORD_ONLY, default=None)]
        signature = inspect.signature(stock.__init__)
        __init__.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *own])  # type: ignore[attr-defined]
        cls.__init__ = register_to_config(__init__)  # type: ignore[misc]
        cls.single_class = single  # type: ignore[attr-defined]
        if single is not None:
            names = returns[stack]
            TransformerBlockRegistry.register(single, TransformerBlockMetadata(
                return_hidden_states_index=names.index("hidden_states"),
                return_encoder_hidden_states_index=names.index("encoder_hidden_states")))
            cls._no_split_modules = [*(stock._no_split_modules or []), single.__name__]  # type: ignore[attr-defined]
            cls._repeated_blocks = [*stock._repeated_blocks, single.__name__] if stock._repeated_blocks else []  # type: ignore[attr-defined]
        return cls

    return extend
