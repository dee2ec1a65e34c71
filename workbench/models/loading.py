"""Load teachers and students as diffusers models, quietly and without a network."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline
from diffusers.models.modeling_utils import ModelMixin

from .. import students
from ..families import Family, find_family, is_hybrid
from ..records import BadInput
from ..specs.teacher_weights import AS_LOADED
from .access import Pipeline, quiet
from .folders import check_class, is_pipeline, note, read_config, transformer_folder
from .free_memory import free_memory
from .headers import headers
from .layouts import check_shapes, config_layout
from .pipeline_folders import check_pipeline
from .quantized.stored import load_quantized, quantization_of
from .streaming import streamed_transformer
from .unloaded import READ_WHOLE
from .weight_files import check_weight_files, variant_of

SHORT_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
# keys of a config.json that are not arguments of a class
NOT_ARGUMENTS = ("auto_map", "quantization_config")


def load_pipeline(
    path: Path | str, *, device: str = "cpu", dtype: str | torch.dtype | None = None
) -> Pipeline:
    """A pipeline folder, ready to sample, without progress bars; nothing is fetched from a network.

    One dtype for all components; None means float32 on a CPU and the transformer's stored dtype
    elsewhere. A student with custom blocks gets this package's own class. Code in a folder never
    runs unless it needs it and WORKBENCH_TRUST_REMOTE_CODE=1 allows it. Raises BadInput for a
    folder that is not a pipeline which samples from prompts, for broken weights and for code that
    is not allowed.
    """
    path = Path(path)
    folder = check_pipeline_folder(path)
    load_as = load_dtype(folder, device, dtype)
    student = own_class(folder)
    variant = pipeline_variant(path)
    with quiet():
        if student is None and variant is None and quantization_of(folder) is None:
            pipe = load_stock_pipeline(path, load_as)
        else:
            pipe = load_stock_pipeline(path, load_as, variant=variant, transformer=None)
            pipe = with_transformer(pipe, load_transformer(folder, dtype=load_as))
    return ready(pipe, path, device)


def check_pipeline_folder(path: Path) -> Path:
    """The transformer's folder of a pipeline that can be sampled from prompts. Raises BadInput for
    another folder.
    """
    if not is_pipeline(path):
        raise BadInput(
            f"{path} has no model_index.json",
            "a pipeline folder",
            "point to a pipeline, not to its transformer alone",
        )
    folder = transformer_folder(path)
    check_pipeline(path)
    return folder


def ready(pipe: Pipeline, path: Path, device: str) -> Pipeline:
    """A loaded pipeline on its device, without progress bars."""
    pipe.set_progress_bar_config(disable=True)
    if getattr(pipe, "transformer_2", None) is not None:
        note(
            f"{path} has two transformers; transformer_2 is left as it is (name {path}/transformer_2)"
        )
    return pipe.to(device)


def pipeline_variant(path: Path) -> str | None:
    """The variant (`fp16`) that has to be named to load a pipeline's components: where one has no
    weights of the standard name.

    Raises BadInput where components need different ones.
    """
    variants = {folder.name: variant_of(folder) for folder in sorted(path.iterdir())}
    needed = {name: variant for name, variant in variants.items() if variant is not None}
    if len(set(needed.values())) > 1:
        listed = ", ".join(f"{name}: {variant}" for name, variant in needed.items())
        raise BadInput(
            f"{path} has components of different variants alone ({listed})",
            "one variant, or the standard names",
            "copy the missing weights",
        )
    return next(iter(needed.values()), None)


def load_stock_pipeline(
    path: Path, dtype: torch.dtype, *, variant: str | None = None, **components: None
) -> Pipeline:
    """A pipeline through diffusers; components that are None are left out."""
    trust = trusted()
    try:
        return DiffusionPipeline.from_pretrained(
            path,
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=trust,
            variant=variant,
            **components,
        )
    except ValueError as error:
        needs_code = "trust_remote_code" in str(error) or "not one of the libraries" in str(error)
        if trust or not needs_code:
            raise
        raise code_refused(path, "model_index.json names it") from None


def with_transformer(pipe: Pipeline, transformer: ModelMixin) -> Pipeline:
    """The pipeline that was loaded without its transformer, made anew: pipelines read settings off
    it.
    """
    modules, options = pipe._get_signature_keys(type(pipe))
    parts = {name: getattr(pipe, name, None) for name in modules}
    parts |= {name: pipe.config[name] for name in options if name in pipe.config}
    complete = type(pipe)(**(parts | {"transformer": transformer}))
    complete.register_to_config(_name_or_path=pipe.config.get("_name_or_path"))
    return complete


def load_transformer(
    path: Path | str,
    *,
    device: str = "cpu",
    dtype: str | torch.dtype | None = None,
    streamed: bool = False,
    weights: str = AS_LOADED,
) -> ModelMixin:
    """The transformer of a pipeline or transformer folder, in eval mode. `dtype` and custom blocks
    as in load_pipeline; quantised weights are unpacked. streamed: its blocks are read as they run (models.streaming). weights: held
    in fewer bits (specs.teacher_weights); not together with streamed.
    """
    folder = transformer_folder(path)
    load_as = load_dtype(folder, device, dtype)
    cls = own_class(folder) or known_class(str(read_config(folder / "config.json")["_class_name"]))
    quantization = quantization_of(folder)
    if quantization is not None:
        if cls is None or streamed or weights != AS_LOADED:
            raise BadInput(f"{folder} is quantised ({quantization.to})", "it whole", READ_WHOLE)
        return load_quantized(cls, folder, quantization, device, load_as)
    if streamed or weights != AS_LOADED:
        return load_streamed(cls, folder, device, load_as, weights)
    options = {"dtype": load_as, "local_files_only": True, "variant": variant_of(folder)}
    with quiet():
        if cls is None:
            model = diffusers.AutoModel.from_pretrained(
                str(folder), **options, trust_remote_code=True
            )
        else:
            model = cls.from_pretrained(folder, **options)
    return model.to(device).eval()


def load_streamed(
    cls: Any, folder: Path, device: str, dtype: torch.dtype, weights: str = AS_LOADED
) -> ModelMixin:
    """Blocks wait in the host's memory where a GPU computes and there is room for twice of them,
    else on the disk; packed ones wait on the device.
    """
    if cls is None:
        raise BadInput(f"{folder} needs its own code", "a class of diffusers", READ_WHOLE)
    size = sum(info.bytes for info in headers(folder).values())
    on_host = torch.device(device).type == "cuda" and 2 * size < free_memory("cpu")
    return streamed_transformer(
        cls,
        folder,
        device=device,
        dtype=dtype,
        on_host=on_host and weights == AS_LOADED,
        weights=weights,
    )


def known_class(name: str) -> Any:
    """A transformer class by its name, of a family or of diffusers; None for another name."""
    family = None if is_hybrid(name) else find_family(name)
    if family is not None:
        return students.stock_class(family)
    return getattr(diffusers, name, None)


# --- which class, and whose code ------------------------------------------------------------------


def own_class(folder: Path) -> type[ModelMixin] | None:
    """This package's class for a student with custom blocks; None for a stock class, and for
    foreign code that is allowed to run.

    Code in the folder is not run, whichever version of this package wrote it: the class is our own,
    if it can hold the student. Raises BadInput where it cannot, and for foreign classes, unless
    code is allowed.
    """
    config = read_config(folder / "config.json")
    name = str(config["_class_name"])
    family = find_family(name) if is_hybrid(name) else None
    if family is None and known_class(name) is not None:
        check_class(config, str(folder))
        return None
    if family is None:
        reason = f"its class {name} is foreign"
    elif has_current_code(folder, family):
        return student_class(family)
    else:
        reason = unsupported(folder, config, family)
        if not reason:
            for file in code_files(folder):
                note(
                    f"{file} is of another version; it is not run, this version's class reads the "
                    f"student"
                )
            return student_class(family)
    if trusted():
        return None
    raise code_refused(folder, reason)


def student_class(family: Family) -> type[ModelMixin]:
    cls: type[ModelMixin] = students.student_class(family.name)
    return cls


def has_current_code(folder: Path, family: Family) -> bool:
    """Whether the folder's only code is this version's modeling file, unchanged."""
    files = code_files(folder)
    if [file.name for file in files] != [f"{students.module_name(family.name)}.py"]:
        return False
    return files[0].read_bytes() == students.source(family.name).encode()


def code_files(folder: Path) -> list[Path]:
    return [file for file in folder.glob("*.py") if file.is_file()]


def unsupported(folder: Path, config: Mapping[str, Any], family: Family) -> str:
    """What in a hybrid student's folder this version's class cannot hold; empty where it can,
    whoever wrote the folder. Runs no code.
    """
    known = {*inspect.signature(student_class(family).__init__).parameters, *NOT_ARGUMENTS}
    for key, value in config.items():
        if key not in known and not key.startswith("_") and value not in (None, [], {}):
            return f"its config.json has {key!r}"
    if "quantization_config" in config:
        return ""  # the tensors are those of another library
    tensors = {key: list(info.shape) for key, info in headers(folder).items()}
    try:
        expected = config_layout(config, str(folder)).shapes
        check_shapes(tensors, expected, str(folder))
    except BadInput as error:
        return error.found
    for name in tensors:
        if name not in expected:
            return f"it holds a tensor {name}"
    return ""


def trusted() -> bool:
    """Whether code found in model folders may run."""
    return os.environ.get("WORKBENCH_TRUST_REMOTE_CODE") == "1"


def code_refused(folder: Path, reason: str) -> BadInput:
    return BadInput(
        f"{folder} needs its own code (unread, not run): {reason}",
        "a stock diffusers class, or a student that this version's classes can hold",
        "read the .py file, then allow it with WORKBENCH_TRUST_REMOTE_CODE=1",
    )


# --- precision ------------------------------------------------------------------------------------


def load_dtype(folder: Path, device: str, dtype: str | torch.dtype | None) -> torch.dtype:
    """The dtype to load in. Reads the headers, so that a broken file is named before torch reads
    it.
    """
    if quantization_of(folder) is None:
        check_weight_files(folder)
        stored = stored_dtype(folder)
    else:
        stored = torch.bfloat16
    if dtype is not None:
        return parse_dtype(dtype)
    if str(device) == "cpu":
        return torch.float32
    return stored


def stored_dtype(folder: Path) -> torch.dtype:
    """The dtype of a transformer's largest tensor on the disk."""
    return max(headers(folder).values(), key=lambda info: info.bytes).torch_dtype


def parse_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """bf16, fp16, fp32, or torch's own names. Raises BadInput for another name."""
    if isinstance(dtype, torch.dtype):
        return dtype
    parsed = SHORT_DTYPES.get(dtype, getattr(torch, dtype, None))
    if not isinstance(parsed, torch.dtype):
        raise BadInput(f"dtype {dtype!r}", "bf16, fp16, fp32 or a torch dtype", "choose one")
    return parsed
