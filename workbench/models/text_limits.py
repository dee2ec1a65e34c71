"""How many tokens of a prompt a pipeline reads, and which prompts are longer.

Pipelines cut prompts without a word that one would see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from .access import Pipeline
from .folders import note
from .sampling_defaults import call_parameters

ARGUMENT = "max_sequence_length"  # of a pipeline's call


def text_limit(pipe: Pipeline) -> int | None:
    """The tokens that the most patient of a pipeline's text encoders reads; None where prompts are
    not tokens, or are read whole.
    """
    limits = [limit for _, limit in limited(pipe)]
    return max(limits, default=None)


def limited(pipe: Pipeline) -> list[tuple[PreTrainedTokenizerBase, int]]:
    """The tokenizers of a pipeline, each with the tokens that are read of its text."""
    asked = call_parameters(type(pipe)).get(ARGUMENT)
    found = []
    for name, component in tokenizers(pipe).items():
        limits = [component.model_max_length]
        if name == "tokenizer":
            limits.append(getattr(pipe, "tokenizer_max_length", None))
        if asked is not None:
            limits.append(asked.default)
        known = [limit for limit in limits if isinstance(limit, int) and 0 < limit < 10**6]
        if known:
            found.append((component, min(known)))
    return found


def tokenizers(pipe: Pipeline) -> Mapping[str, PreTrainedTokenizerBase]:
    """The tokenizers among a pipeline's components; of a processor the one inside."""
    found = {}
    components: Mapping[str, Any] = getattr(pipe, "components", {})
    for name, component in components.items():
        tokenizer = getattr(component, "tokenizer", component)
        if name.startswith("tokenizer") and isinstance(tokenizer, PreTrainedTokenizerBase):
            found[name] = tokenizer
    return found


def cut_prompts(pipe: Pipeline, prompts: Sequence[str]) -> list[int]:
    """Numbers of the prompts whose end no text encoder reads."""
    cut: set[int] | None = None
    for tokenizer, limit in limited(pipe):
        lengths = [len(ids) for ids in tokenizer(list(prompts), verbose=False)["input_ids"]]
        longer = {number for number, length in enumerate(lengths) if length > limit}
        cut = longer if cut is None else cut & longer
    return sorted(cut or ())


def note_cut(pipe: Pipeline, prompts: Sequence[str]) -> int:
    """Say once on stderr how many prompts are cut; returns their number."""
    texts = list(dict.fromkeys(prompts))
    count = len(cut_prompts(pipe, texts)) if texts else 0
    if count:
        note(cut_line(count, len(texts), text_limit(pipe)))
    return count


def cut_line(count: int, total: int, limit: int | None) -> str:
    return (
        f"{count} of {total} prompts have more than {limit} tokens; the model reads no more of them"
    )
