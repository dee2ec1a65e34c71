"""Weights of linears as the tensors that torchao and bitsandbytes keep in safetensors files.

int8: torchao's Int8Tensor, codes in [-127, 127] and one float32 scale per row.
int4: torchao's Int4Tensor in its plain packing, whose layout is that of FBGEMM (now mslk): signed
codes, two in a byte, the even column in the low half; scale and offset (groups, rows) in bfloat16;
a weight is code x scale + offset.
nf4: bitsandbytes' 4-bit state: codes, one float32 scale per 64 weights, the 16 levels, and what is
left in JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

import torch

from ...records import numel
from ..checkpoints import Layout
from ..packed_weights import GROUP as NF4_GROUP
from ..packed_weights import NF4, Packed, int8, nf4

Shape = tuple[int, ...]
Tensors = dict[str, torch.Tensor]
INT4_GROUP = 128
BF16 = {"_type": "torch.dtype", "_data": "bfloat16"}


class Packing(Protocol):
    """How one library stores the weight of a linear, (rows, columns)."""

    def layout(self, name: str, shape: Shape) -> Layout:
        """The stored tensors of the weight `name`, by name: dtype and shape."""
        ...

    def pack(self, name: str, weight: torch.Tensor) -> Tensors:
        """Those tensors."""
        ...

    def unpack(self, name: str, shape: Shape, stored: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The weight in float32."""
        ...

    def about(self, shape: Shape) -> dict[str, Any] | None:
        """What the header of the file says of the weight; None where it says nothing."""
        ...

    def config(self, kept: list[str]) -> dict[str, Any]:
        """`quantization_config` of the config.json. kept: linears that are not packed."""
        ...


def part(name: str, what: str) -> str:
    """torchao's name of a part of a tensor: `a.weight` -> `a._weight_qdata`."""
    module, _, last = name.rpartition(".")
    return f"{module}._{last}_{what}"


class Int8Packing:
    def layout(self, name: str, shape: Shape) -> Layout:
        rows, columns = shape
        return {
            part(name, "qdata"): (torch.int8, (rows, columns)),
            part(name, "scale"): (torch.float32, (rows, 1)),
        }

    def pack(self, name: str, weight: torch.Tensor) -> Tensors:
        packed = int8(weight)
        assert packed.scales is not None
        return {part(name, "qdata"): packed.codes, part(name, "scale"): packed.scales}

    def unpack(self, name: str, shape: Shape, stored: Mapping[str, torch.Tensor]) -> torch.Tensor:
        scales = stored[part(name, "scale")]
        packed = Packed("int8", stored[part(name, "qdata")], scales, torch.Size(shape))
        return packed.unpacked(torch.float32)

    def about(self, shape: Shape) -> dict[str, Any] | None:
        data = {
            "act_quant_kwargs": None,
            "reduce_range": False,
            "block_size": [1, shape[1]],
            "dtype": BF16,
        }
        return {"_type": "Int8Tensor", "_data": data, "_tensor_data_names": ["qdata", "scale"]}

    def config(self, kept: list[str]) -> dict[str, Any]:
        data = {
            "group_size": None,
            "granularity": {"_type": "PerRow", "_version": 1, "_data": {"dim": -1}},
            "set_inductor_config": True,
        }
        return of_torchao("Int8WeightOnlyConfig", data)


class Int4Packing:
    def layout(self, name: str, shape: Shape) -> Layout:
        rows, columns = shape
        scales = (torch.bfloat16, (columns // INT4_GROUP, rows))
        return {
            part(name, "qdata"): (torch.int8, (rows, columns // 2)),
            part(name, "scale"): scales,
            part(name, "zero_point"): scales,
        }

    def pack(self, name: str, weight: torch.Tensor) -> Tensors:
        rows, columns = weight.shape
        groups = weight.float().reshape(rows, -1, INT4_GROUP)  # (rows, groups, 128)
        low = groups.amin(-1)
        # scale and offset as they are stored: the codes are chosen for the rounded ones
        scale = ((groups.amax(-1) - low).clamp_min(1e-6) / 15).bfloat16()
        offset = (low + 8 * scale.float()).bfloat16()
        centred = groups - offset.float().unsqueeze(-1)
        codes = (centred / scale.float().unsqueeze(-1)).round().clamp(-8, 7).to(torch.int8)
        pairs = codes.reshape(rows, columns // 2, 2)
        return {
            part(name, "qdata"): (pairs[..., 0] & 15) | (pairs[..., 1] << 4),
            part(name, "scale"): scale.T.contiguous(),
            part(name, "zero_point"): offset.T.contiguous(),
        }

    def unpack(self, name: str, shape: Shape, stored: Mapping[str, torch.Tensor]) -> torch.Tensor:
        qdata = stored[part(name, "qdata")]
        low = (qdata << 4) >> 4  # shifts of int8 keep the sign
        codes = torch.stack((low, qdata >> 4), -1).reshape(shape[0], -1, INT4_GROUP)
        scale = stored[part(name, "scale")].T.float().unsqueeze(-1)
        offset = stored[part(name, "zero_point")].T.float().unsqueeze(-1)
        return (codes.float() * scale + offset).reshape(shape)

    def about(self, shape: Shape) -> dict[str, Any] | None:
        data = {
            "activation_dtype": BF16,
            "block_size": [1, INT4_GROUP],
            "shape": list(shape),
        }
        names = ["qdata", "scale", "zero_point"]
        return {"_type": "Int4Tensor", "_data": data, "_tensor_data_names": names}

    def config(self, kept: list[str]) -> dict[str, Any]:
        data = {
            "group_size": INT4_GROUP,
            "set_inductor_config": True,
            "int4_packing_format": {"_type": "Int4PackingFormat", "_data": "PLAIN"},
            "int4_choose_qparams_algorithm": {
                "_type": "Int4ChooseQParamsAlgorithm",
                "_data": "TINYGEMM",
            },
            "int4_tile_packed_ntile": 8,
        }
        return of_torchao("Int4WeightOnlyConfig", data)


def of_torchao(name: str, data: dict[str, Any]) -> dict[str, Any]:
    kind = {"_type": name, "_version": 2, "_data": data}
    return {"quant_method": "torchao", "quant_type": {"default": kind}}


class NF4Packing:
    def layout(self, name: str, shape: Shape) -> Layout:
        count = numel(list(shape))
        return {
            name: (torch.uint8, ((count + 1) // 2, 1)),
            f"{name}.absmax": (torch.float32, (-(-count // NF4_GROUP),)),
            f"{name}.quant_map": (torch.float32, (len(NF4),)),
            self.state_name(name): (torch.uint8, (len(self.state(shape)),)),
        }

    def pack(self, name: str, weight: torch.Tensor) -> Tensors:
        packed = nf4(weight)
        assert packed.scales is not None
        count = weight.numel()
        return {
            name: packed.codes[: (count + 1) // 2].reshape(-1, 1),
            f"{name}.absmax": packed.scales.reshape(-1),
            f"{name}.quant_map": torch.tensor(NF4),
            self.state_name(name): torch.tensor(list(self.state(weight.shape)), dtype=torch.uint8),
        }

    def unpack(self, name: str, shape: Shape, stored: Mapping[str, torch.Tensor]) -> torch.Tensor:
        scales = stored[f"{name}.absmax"].reshape(-1, 1)
        codes = stored[name].reshape(-1)
        missing = len(scales) * NF4_GROUP // 2 - len(codes)  # of the last group
        codes = torch.nn.functional.pad(codes, (0, missing))
        return Packed("nf4", codes, scales, torch.Size(shape)).unpacked(torch.float32)

    def about(self, shape: Shape) -> dict[str, Any] | None:
        return None

    def config(self, kept: list[str]) -> dict[str, Any]:
        return {
            "quant_method": "bitsandbytes",
            "_load_in_4bit": True,
            "_load_in_8bit": False,
            "load_in_4bit": True,
            "load_in_8bit": False,
            "bnb_4bit_compute_dtype": "bfloat16",
            "bnb_4bit_quant_storage": "uint8",
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": False,
            "llm_int8_enable_fp32_cpu_offload": False,
            "llm_int8_has_fp16_weight": False,
            "llm_int8_skip_modules": kept,
            "llm_int8_threshold": 6.0,
        }

    @staticmethod
    def state_name(name: str) -> str:
        return f"{name}.quant_state.bitsandbytes__nf4"

    @staticmethod
    def state(shape: Shape) -> bytes:
        facts = {"quant_type": "nf4", "blocksize": NF4_GROUP, "dtype": "bfloat16"}
        return json.dumps({**facts, "shape": list(shape)}).encode()


PACKINGS: Mapping[str, Packing] = {
    "int8": Int8Packing(),
    "int4": Int4Packing(),
    "nf4": NF4Packing(),
}
