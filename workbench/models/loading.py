"""Load teachers and students as diffusers models, quietly and without a network."""

from __future__ import annotations

from pathlib import Path

import diffusers
import torch
from diffusers import DiffusionPipeline
from diffusers.models.modeling_utils import ModelMixin

from .. import checkpoints
from ..records import BadInput, Card
from .describing import is_pipeline, read_config, transformer_folder
from .parts import Pipeline, quiet

SHORT_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def load_pipeline(path: Path | str, *, device: str = "cpu", dtype: str | torch.dtype | None = None) -> Pipeline:
    """A pipeline folder, ready to sample, without progress bars; nothing is fetched from a network.

    One dtype for all components; None means float32 on a CPU and the transformer's stored dtype elsewhere. Custom code
    in the folder runs only where its card.json says that the workbench wrote it (`stock: false`).
    """
    path = Path(path)
    if not is_pipeline(path):
        raise BadInput(f"{path} has no model_index.json", "a pipeline folder", "point to a pipeline, not to its transformer alone")
    folder = transformer_folder(path)
    wanted = _dtype(folder, device, dtype)
    with quiet():
        pipe = DiffusionPipeline.from_pretrained(path, dtype=wanted, local_files_only=True, trust_remote_code=_ours(path))
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def load_transformer(path: Path | str, *, device: str = "cpu", dtype: str | torch.dtype | None = None) -> ModelMixin:
    """The transformer of a pipeline or transformer folder, in eval mode. `dtype` as in load_pipeline."""
    folder = transformer_folder(path)
    wanted = _dtype(folder, device, dtype)
    stock = getattr(diffusers, str(read_config(folder / "config.json")["_class_name"]), None)
    with quiet():
        if stock is None:
            trust = _ours(Path(path))
            model = diffusers.AutoModel.from_pretrained(folder, dtype=wanted, local_files_only=True, trust_remote_code=trust)
        else:
            model = stock.from_pretrained(folder, dtype=wanted, local_files_only=True)
    return model.to(device).eval()


def _dtype(folder: Path, device: str, dtype: str | torch.dtype | None) -> torch.dtype:
    """The dtype to load in. Reads the headers, so that a broken file is named before torch stumbles over it."""
    tensors = checkpoints.headers(folder)
    if dtype is not None:
        return parse_dtype(dtype)
    return torch.float32 if str(device) == "cpu" else max(tensors.values(), key=lambda info: info.bytes).torch_dtype


def parse_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """bf16, fp16, fp32, or torch's own names."""
    found = dtype if isinstance(dtype, torch.dtype) else SHORT_DTYPES.get(dtype) or getattr(torch, dtype, None)
    if not isinstance(found, torch.dtype):
        raise BadInput(f"dtype {dtype!r}", "bf16, fp16, fp32 or a torch dtype", "choose one")
    return found


def _ours(path: Path) -> bool:
    card = path / "card.json"
    return card.is_file() and not Card.load(card).stock
