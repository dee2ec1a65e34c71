"""Whether a checkpoint holds a model's weights as they are, by the names and dtypes of its tensors.

Quantised codes, adapters beside the weights, and names of a wrapper or of another layout are
refused with the cause, since each would otherwise look like a damaged checkpoint, or not at all.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Set
from typing import Any

from ..records import BadInput
from .headers import DTYPES

Stored = Mapping[str, tuple[str, list[int]]]  # tensor name -> safetensors dtype, shape

# last parts of the names of tensors that stand beside quantised weights, and who writes them
COMPANIONS = {
    "weight_scale": "scaled fp8 or int8",
    "weight_scale_2": "nvfp4 (modelopt)",
    "weight_scale_inv": "fp8 in blocks",
    "scale_weight": "scaled fp8 (ComfyUI)",
    "scale_input": "scaled fp8 (ComfyUI)",
    "input_scale": "scaled fp8 or int8",
    "output_scale": "quanto",
    "scaled_fp8": "scaled fp8 (ComfyUI)",
    "comfy_quant": "ComfyUI",
    "SCB": "bitsandbytes int8",
    "weight_format": "bitsandbytes int8",
    "absmax": "bitsandbytes 4 bit",
    "quant_map": "bitsandbytes 4 bit",
    "nested_absmax": "bitsandbytes 4 bit",
    "nested_quant_map": "bitsandbytes 4 bit",
    "qweight": "GPTQ, AWQ or SVDQuant",
    "qzeros": "GPTQ or AWQ",
    "wscales": "SVDQuant (nunchaku)",
    "g_idx": "GPTQ",
    "_data": "quanto",
    "_scale": "quanto",
    "weight_packed": "compressed-tensors",
    "weight_zero_point": "compressed-tensors",
    "zero_point": "SDNQ",
    "svd_up": "SDNQ",
}
ADAPTER = re.compile(r"(^|[._])(lora|lokr|loha|hada|dora)_|\.base_layer\.|\.oft_|(^|\.)diff(_b)?$")
WRAPPERS = ("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
UNQUANTISED = "use the unquantised model, or dequantise it and save it in bf16"


def check_stored_form(
    config: Mapping[str, Any], tensors: Stored, expected: Set[str], buffers: Set[str], where: str
) -> None:
    """Refuse quantised weights, adapters, and names of another layout.

    expected, buffers: the names of all tensors of the config's class, and of those that are no
    parameters. Raises BadInput that names a tensor.
    """
    if not tensors:
        raise BadInput(f"{where} holds no tensor", "a model's weights", "copy the whole checkpoint")
    check_config(config, where)
    check_adapters(tensors, expected, where)
    check_companions(tensors, expected, where)
    check_names(config, tensors, expected, where)
    check_dtypes(tensors, expected - buffers, where)


def check_config(config: Mapping[str, Any], where: str) -> None:
    """Refuse a config.json that says that its weights are quantised."""
    quantisation = config.get("quantization_config")
    if quantisation:
        method = "quantization_config"
        if isinstance(quantisation, Mapping):
            method = str(quantisation.get("quant_method", method))
        raise quantised(where, f"its config.json says {method}")


def check_companions(tensors: Stored, expected: Set[str], where: str) -> None:
    """Refuse weights that have scales, or the like, beside them."""
    for name in tensors:
        if name in expected:
            continue
        last = name.rpartition(".")[2]
        if ".quant_state." in name:
            raise quantised(where, f"tensor {name}, of bitsandbytes 4 bit")
        if last in COMPANIONS:
            raise quantised(where, f"tensor {name}, of {COMPANIONS[last]}")


def check_dtypes(tensors: Stored, parameters: Set[str], where: str) -> None:
    """Refuse parameters that are stored as integers or as fp8."""
    for name in sorted(tensors.keys() & parameters):
        dtype = tensors[name][0]
        if not DTYPES[dtype].is_floating_point:
            raise quantised(where, f"tensor {name} is {dtype}")
        if DTYPES[dtype].itemsize == 1:
            raise BadInput(
                f"{where}: tensor {name} is {dtype}, with no scale beside it",
                "weights in bf16, fp16 or fp32",
                "if it was cast without scales, load it with dtype=torch.bfloat16 and save it again",
            )


def quantised(where: str, reason: str) -> BadInput:
    return BadInput(
        f"{where} is quantised ({reason})", "weights in bf16, fp16 or fp32", UNQUANTISED
    )


def check_adapters(tensors: Stored, expected: Set[str], where: str) -> None:
    """Refuse a checkpoint with adapters in it, or of adapters alone."""
    adapters = [name for name in tensors if name not in expected and ADAPTER.search(name)]
    if not adapters:
        return
    if len(adapters) == len(tensors):
        raise BadInput(
            f"{where} holds a LoRA alone ({adapters[0]})",
            "a whole model",
            "load it into its base model, fuse_lora(), unload_lora_weights(), and save that",
        )
    raise BadInput(
        f"{where} has a LoRA that is not fused (tensor {adapters[0]})",
        "a model without adapters",
        "fuse_lora(), unload_lora_weights(), and save it again",
    )


def check_names(config: Mapping[str, Any], tensors: Stored, expected: Set[str], where: str) -> None:
    """Refuse names with a prefix, of a wrapper, or of another layout."""
    if expected <= tensors.keys():
        return
    plain = "names as diffusers has them"
    for name in tensors:
        bare = unwrapped(name)
        if bare != name and bare in expected:
            found = f"{where}: tensor {name} instead of {bare} (of a compiled or wrapped model)"
            raise BadInput(found, plain, "save the model itself: model._orig_mod, model.module")
    prefix = common_prefix(tensors, expected)
    if prefix:
        found = f"{where}: all names begin with {prefix}"
        raise BadInput(found, plain, f"save the tensors again without the prefix {prefix}")
    known = {NUMBER.sub("N", name) for name in expected}
    stored = {NUMBER.sub("N", name) for name in tensors}
    foreign = [name for name in tensors if NUMBER.sub("N", name) not in known]
    # of the same class some names may be lost, or some added; here they are exchanged
    if foreign and 3 * len(stored & known) < 2 * len(stored | known):
        class_name = config["_class_name"]
        raise BadInput(
            f"{where} has names that {class_name} has not ({foreign[0]})",
            f"names as {class_name} has them ({min(expected)})",
            f"use the config.json of these weights; from another layout, "
            f"{class_name}.from_single_file(FILE).save_pretrained(FOLDER) converts where it can",
        )


def unwrapped(name: str) -> str:
    """A tensor's name without the parts that wrappers put into it."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def common_prefix(tensors: Stored, expected: Set[str]) -> str:
    """What stands before most expected names; empty where it is nothing."""
    prefixes: Counter[str] = Counter()
    for name in tensors:
        bare = unwrapped(name)
        parts = bare.split(".")
        for count in range(1, len(parts)):
            rest = ".".join(parts[count:])
            if rest in expected:
                prefixes[".".join(parts[:count]) + "."] += 1
    for prefix, count in prefixes.most_common(1):
        if 2 * count > len(expected):
            return prefix
    return ""


def surplus(tensors: Stored, expected: Set[str]) -> list[str]:
    """Names of tensors that the config's class has not, and that nothing reads."""
    return sorted(tensors.keys() - expected)


def surplus_line(names: list[str], where: str) -> str:
    some = ", ".join(names[:3]) + (", .." if len(names) > 3 else "")
    return f"{where}: {len(names)} tensors that its class does not read ({some})"
