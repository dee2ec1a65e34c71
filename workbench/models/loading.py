"""Load teachers and students as diffusers models, quietly and without a network."""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path

import diffusers
import torch
from diffusers import DiffusionPipeline
from diffusers.models.modeling_utils import ModelMixin

from .. import students as hybrid
from ..families import FAMILIES, HYBRID
from ..records import BadInput
from . import checkpoints
from .access import Pipeline, quiet
from .describing import beyond, check_class, is_pipeline, read_config, transformer_folder

SHORT_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def load_pipeline(
    path: Path | str, *, device: str = "cpu", dtype: str | torch.dtype | None = None
) -> Pipeline:
    """A pipeline folder, ready to sample, without progress bars; nothing is fetched from a network.

    One dtype for all components; None means float32 on a CPU and the transformer's stored dtype
    elsewhere. A student with custom blocks gets this package's own class. Code in a folder never
    runs unless it needs it and WORKBENCH_TRUST_REMOTE_CODE=1 allows it.
    """
    path = Path(path)
    if not is_pipeline(path):
        raise BadInput(
            f"{path} has no model_index.json",
            "a pipeline folder",
            "point to a pipeline, not to its transformer alone",
        )
    folder = transformer_folder(path)
    wanted = _dtype(folder, device, dtype)
    ours = _our_class(folder)
    trust = trusted()
    with quiet():
        try:
            pipe = DiffusionPipeline.from_pretrained(
                path,
                dtype=wanted,
                local_files_only=True,
                trust_remote_code=trust,
                **({} if ours is None else {"transformer": None}),
            )
        except ValueError as error:
            if trust or (
                "trust_remote_code" not in str(error)
                and "not one of the libraries" not in str(error)
            ):
                raise
            raise _unknown_code(path, "model_index.json names it") from None
        if ours is not None:
            pipe = _with_transformer(
                pipe, ours.from_pretrained(folder, dtype=wanted, local_files_only=True)
            )
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def _with_transformer(pipe: Pipeline, transformer: ModelMixin) -> Pipeline:
    """The pipeline that was loaded without its transformer, made anew: pipelines read settings off
    it.
    """
    modules, options = pipe._get_signature_keys(type(pipe))
    kept = {name: getattr(pipe, name, None) for name in modules} | {
        name: pipe.config[name] for name in options if name in pipe.config
    }
    whole = type(pipe)(**(kept | {"transformer": transformer}))
    whole.register_to_config(_name_or_path=pipe.config.get("_name_or_path"))
    return whole


def load_transformer(
    path: Path | str, *, device: str = "cpu", dtype: str | torch.dtype | None = None
) -> ModelMixin:
    """The transformer of a pipeline or transformer folder, in eval mode. `dtype` and custom blocks
    as in load_pipeline.
    """
    folder = transformer_folder(path)
    wanted = _dtype(folder, device, dtype)
    cls = _our_class(folder) or getattr(
        diffusers, str(read_config(folder / "config.json")["_class_name"]), None
    )
    with quiet():
        if cls is None:
            model = diffusers.AutoModel.from_pretrained(
                str(folder), dtype=wanted, local_files_only=True, trust_remote_code=True
            )
        else:
            model = cls.from_pretrained(folder, dtype=wanted, local_files_only=True)
    return model.to(device).eval()


def _our_class(folder: Path) -> type[ModelMixin] | None:
    """This package's class for a student with custom blocks; None for a stock class, and for
    foreign code that is allowed to run.

    Code in the folder is not run, whichever version of this package wrote it: the class is our own,
    if it can hold the student. Raises BadInput where it cannot, and for foreign classes, unless
    code is allowed.
    """
    config = read_config(folder / "config.json")
    name = str(config["_class_name"])
    family = next((f.name for f in FAMILIES.values() if HYBRID + f.transformer == name), None)
    if family is None and hasattr(diffusers, name):
        check_class(config, str(folder))
        return None
    code, ours = (
        [file for file in folder.glob("*.py") if file.is_file()],
        family and f"{hybrid.module_name(family)}.py",
    )
    if (
        family
        and [file.name for file in code] == [ours]
        and code[0].read_bytes() == hybrid.source(family).encode()
    ):
        return hybrid.student_class(family)
    odd = beyond(folder, config) if family else f"its class {name} is foreign"
    if family and not odd:
        for file in code:
            note(
                f"{file} is of another version; it is not run, this version's class reads the "
                f"student"
            )
        return hybrid.student_class(family)
    if trusted():
        return None
    raise _unknown_code(folder, odd)


@cache
def note(line: str) -> None:
    """A line on stderr, once."""
    print(f"note: {line}", file=sys.stderr, flush=True)


def trusted() -> bool:
    """Whether code found in model folders may run."""
    return os.environ.get("WORKBENCH_TRUST_REMOTE_CODE") == "1"


def _unknown_code(folder: Path, why: str) -> BadInput:
    return BadInput(
        f"{folder} needs its own code (unread, not run): {why}",
        "a stock diffusers class, or a student that this version's classes can hold",
        "read the .py file, then allow it with WORKBENCH_TRUST_REMOTE_CODE=1",
    )


def _dtype(folder: Path, device: str, dtype: str | torch.dtype | None) -> torch.dtype:
    """The dtype to load in. Reads the headers, so that a broken file is named before torch stumbles
    over it.
    """
    tensors = checkpoints.headers(folder)
    if dtype is not None:
        return parse_dtype(dtype)
    return (
        torch.float32
        if str(device) == "cpu"
        else max(tensors.values(), key=lambda info: info.bytes).torch_dtype
    )


def parse_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """bf16, fp16, fp32, or torch's own names."""
    found = (
        dtype
        if isinstance(dtype, torch.dtype)
        else SHORT_DTYPES.get(dtype) or getattr(torch, dtype, None)
    )
    if not isinstance(found, torch.dtype):
        raise BadInput(f"dtype {dtype!r}", "bf16, fp16, fp32 or a torch dtype", "choose one")
    return found
