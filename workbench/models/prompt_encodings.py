"""Prompts encoded before the transformer is in memory, and what the text encoders gave, on disk.

A pipeline's own `encode_prompt` is called with the arguments that its sampler gives it; what it
returned is kept under these arguments. So the sampler gets the same tensors, bit for bit, without a
text encoder in memory, and no family needs code of its own.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from ..records import draft_of, jsonfile
from ..records.picture_size import Size
from .access import Pipeline
from .checkpoints import fingerprint
from .loading import load_stock_pipeline, pipeline_variant
from .recorded_calls import packed, unpacked
from .sampling import batches, call_arguments

KEY = "workbench_encodings"
NOT_KEYS = ("self", "device")  # arguments that do not change what is encoded
TEXT_PARTS = ("text_encoder", "tokenizer")


@dataclass(frozen=True)
class Prompts:
    """Prompts to be sampled, as `models.generate` and `models.trajectories` take them."""

    prompts: Sequence[str]
    seeds: Sequence[int]
    steps: int
    guidance: float
    size: Size
    batch: int = 8
    negative: str = " "


class _Encoded(Exception):
    """Ends a pipeline's call at its transformer: its prompts are encoded."""


class PromptEncodings:
    """Stands in for the `encode_prompt` of a pipeline that was loaded without text encoders.

    A text encoder is loaded at the first prompt that is not in the cache, and stays until `free`.
    cache: a folder; None keeps encodings in memory. encoded: calls of the text encoders so far.
    """

    def __init__(self, pipe: Pipeline, path: Path, cache: Path | None, dtype: torch.dtype) -> None:
        self.pipe = pipe
        self.path = path
        self.cache = cache
        self.dtype = dtype
        self.encode = pipe.encode_prompt
        self.signature = inspect.signature(self.encode)
        self.digest = text_digest(path, dtype, str(pipe.device.type))
        self.memory: dict[str, Any] = {}
        self.encoded = 0
        pipe.encode_prompt = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        key = self.key(args, kwargs)
        if key is None:
            return self._by_text_encoders(args, kwargs)
        value = self._kept(key)
        if value is None:
            value = self._by_text_encoders(args, kwargs)
            self._keep(key, value)
        return placed_on(value, self.pipe._execution_device)

    def encode_ahead(self, request: Prompts) -> None:
        """Encode what sampling this will ask for; the transformer does not run."""

        def stop(module: nn.Module, args: Any, kwargs: Any) -> None:
            raise _Encoded

        handle = self.pipe.transformer.register_forward_pre_hook(stop, with_kwargs=True)
        try:
            for group in batches(request.prompts, request.seeds, request.batch):
                arguments = call_arguments(
                    self.pipe,
                    group,
                    request.steps,
                    request.guidance,
                    request.negative,
                    request.size,
                )
                with suppress(_Encoded):
                    self.pipe(**arguments, output_type="latent")
        finally:
            handle.remove()

    def free(self) -> None:
        """Let the text encoders go; a prompt that is new loads them again."""
        for name in text_encoders(self.pipe):
            setattr(self.pipe, name, None)

    def key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        """Names the call of encode_prompt; None where its arguments are not plain values."""
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        plain = {name: bound.arguments[name] for name in bound.arguments if name not in NOT_KEYS}
        try:
            text = json.dumps([self.digest, plain], sort_keys=True)
        except TypeError:
            return None
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    # --- inside -----------------------------------------------------------------------------------

    def _by_text_encoders(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.load()
        self.encoded += 1
        with torch.no_grad():
            return self.encode(*args, **kwargs)

    def load(self) -> None:
        """The text encoders, where they are not in memory."""
        missing = [name for name in text_encoders(self.pipe) if getattr(self.pipe, name) is None]
        if not missing:
            return
        present = {name: part for name, part in self.pipe.components.items() if name not in missing}
        variant = pipeline_variant(self.path)
        whole = load_stock_pipeline(self.path, self.dtype, variant=variant, **present)
        for name in missing:
            part = getattr(whole, name)
            setattr(self.pipe, name, None if part is None else part.to(self.pipe.device))

    def _kept(self, key: str) -> Any:
        if self.cache is None:
            return self.memory.get(key)
        return read_encoding(self.cache / f"{key}.safetensors")

    def _keep(self, key: str, value: Any) -> None:
        if self.cache is None:
            self.memory[key] = value
        else:
            self.cache.mkdir(parents=True, exist_ok=True)
            write_encoding(value, self.cache / f"{key}.safetensors")


def text_encoders(pipe: Pipeline) -> list[str]:
    """Names of the pipeline's text encoders, in memory or not."""
    names, _ = pipe._get_signature_keys(type(pipe))
    return sorted(name for name in names if name.startswith("text_encoder"))


def placed_on(value: Any, device: torch.device) -> Any:
    """Tensors on the device, in their own dtypes."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: placed_on(item, device) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(placed_on(item, device) for item in value)
    return value


def text_digest(path: Path, dtype: torch.dtype, device_type: str) -> str:
    """Names everything that an encoding depends on beside the call's arguments."""
    digest = hashlib.sha256()
    versions = f"{diffusers.__version__} {transformers.__version__} {torch.__version__}"
    digest.update(f"{versions} {dtype} {device_type}\n".encode())
    digest.update((path / "model_index.json").read_bytes())
    for folder in sorted(path.iterdir()):
        if not folder.is_dir() or not folder.name.startswith(TEXT_PARTS):
            continue
        for file in sorted(folder.iterdir()):
            if file.is_file() and file.suffix in (".json", ".txt", ".model", ".jinja"):
                digest.update(f"{folder.name}/{file.name}\n".encode())
                digest.update(file.read_bytes())
        if any(folder.glob("*.safetensors")):
            digest.update(fingerprint(folder).encode())
    return digest.hexdigest()


# --- files ----------------------------------------------------------------------------------------


def write_encoding(value: Any, path: Path) -> None:
    tensors: dict[str, torch.Tensor] = {}
    description = packed(value, tensors)
    with draft_of(path) as draft:
        save_file(tensors, draft, {KEY: json.dumps(description)})


def read_encoding(path: Path) -> Any:
    """What `write_encoding` wrote; None where there is no such file, or a damaged one."""
    try:
        with safe_open(path, "pt") as file:
            description = jsonfile.parse((file.metadata() or {})[KEY])
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
    return unpacked(description, tensors)
