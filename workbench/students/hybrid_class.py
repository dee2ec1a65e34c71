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

from .removed_parts import Part, remove_parts


def hybrid(
    name: str,
    code: Callable[[], str],
    parts: Mapping[str, Mapping[str, Part]],
    returns: Mapping[str, Sequence[str]],
    stack: str = "",
    single: type[nn.Module] | None = None,
) -> Callable[[type], type]:
    """Let a subclass of a stock transformer take two more arguments, which its config.json keeps.

    single_stream_layers: blocks of `stack` that have one stream, of class `single`. removed_parts:
    "<stack>.<block>" -> names of `parts` (stack -> part). returns: stack -> the streams its blocks
    return, in order. name, code: of the modeling file, which goes wherever the model is saved.
    """

    def extend(cls: Any) -> type:
        stock = cls.__mro__[1]

        def __init__(
            self: Any,
            *args: Any,
            single_stream_layers: Sequence[int] = (),
            removed_parts: Mapping[str, Sequence[str]] | None = None,
            **kwargs: Any,
        ) -> None:
            stock.__init__(self, *args, **kwargs)
            for index in single_stream_layers:
                blocks = self.get_submodule(stack)
                blocks[index] = single(blocks[index])  # type: ignore[misc]
            remove_parts(
                self,
                removed_parts or {},
                parts,
                single_stream_layers,
                {path: len(names) > 1 for path, names in returns.items()},
            )

        def save_config(self: Any, save_directory: Any, *args: Any, **kwargs: Any) -> None:
            stock.save_config(self, save_directory, *args, **kwargs)
            Path(save_directory, f"{name}.py").write_text(code(), encoding="utf-8")

        own = [
            inspect.Parameter("single_stream_layers", inspect.Parameter.KEYWORD_ONLY, default=()),
            inspect.Parameter("removed_parts", inspect.Parameter.KEYWORD_ONLY, default=None),
        ]
        signature = inspect.signature(stock.__init__)
        both = signature.replace(parameters=[*signature.parameters.values(), *own])
        setattr(__init__, "__signature__", both)  # noqa: B010  (a function has no such attribute yet)
        cls.__init__, cls.save_config = register_to_config(__init__), save_config
        # diffusers writes the module's name into config.json and model_index.json: let it be the
        # file's, not that of a cached copy.
        sys.modules.setdefault(name, sys.modules[cls.__module__])  # for pickle
        cls.__module__, cls._auto_class = name, "AutoModel"
        cls.single_class = single
        if single is not None:
            streams = returns[stack]
            TransformerBlockRegistry.register(
                single,
                TransformerBlockMetadata(
                    return_hidden_states_index=streams.index("hidden_states"),
                    return_encoder_hidden_states_index=streams.index("encoder_hidden_states"),
                ),
            )
            cls._no_split_modules = [*(stock._no_split_modules or []), single.__name__]
            cls._repeated_blocks = (
                [*stock._repeated_blocks, single.__name__] if stock._repeated_blocks else []
            )
        return cls

    return extend
