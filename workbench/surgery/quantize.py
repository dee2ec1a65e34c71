"""A student folder written again with the linears of its blocks in fewer bits."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES
from torch import nn

from .. import plans, students
from ..families import FAMILIES, by_class, is_hybrid
from ..models import is_pipeline, read_config, transformer_folder
from ..models.checkpoints import Layout, Reader, Writer, raw_bytes, verify
from ..models.file_io import draft_folder, write_synced
from ..models.quantized import gguf_file
from ..models.quantized.packing import PACKINGS
from ..models.quantized.stored import check_unquantized
from ..models.unloaded import unloaded_transformer
from ..records import BadInput, Card, Progress, Quantization, Teacher, link_or_copy, numel
from ..specs.quantized_forms import QuantizedForm
from ..students.int4 import quantized
from . import export
from .on_disk import check_space, link_components
from .quantized_card import model_card
from .target import check_target

COPIED = ("plan.yaml", "plan.svg", "distill.yaml")


@dataclass(frozen=True)
class Quantizing:
    """What to write. source: the student's folder; name: as it was given; description, card: of it.
    kept_blocks: "<stack>.<block>" that stay in bf16.
    """

    source: Path
    name: str
    description: Teacher
    card: Card | None
    form: QuantizedForm
    kept_blocks: frozenset[str] = frozenset()

    @property
    def folder(self) -> Path:
        return transformer_folder(self.source)

    @cached_property
    def model(self) -> nn.Module:
        """The transformer without its weights."""
        family = by_class(self.description.class_name)
        cls = students.stock_class(family)
        if is_hybrid(self.description.class_name):
            cls = students.student_class(family.name)
        return unloaded_transformer(
            cls, self.folder, device=torch.device("cpu"), dtype=torch.bfloat16
        )

    @cached_property
    def linears(self) -> list[str]:
        """All linears of the transformer."""
        named = self.model.named_modules()
        return [name for name, module in named if isinstance(module, nn.Linear)]

    @cached_property
    def packed(self) -> list[str]:
        """Names of the weights that are packed."""
        names = self.packable(self.form.group)
        return names + self.not_skipped(names)

    def packable(self, group: int) -> list[str]:
        """Weights of linears in blocks that are not kept, of rows of whole groups, but for the
        factors of modulation.
        """
        wide = set(getattr(self.model, "_keep_in_fp32_modules", None) or ())
        names = []
        for row in FAMILIES[self.description.family].stacks:
            for index, block in enumerate(self.model.get_submodule(row.path).children()):
                place = f"{row.path}.{index}"
                if place not in self.kept_blocks:
                    names += [f"{place}.{name}" for name in quantized(block, group)]
        return [name for name in names if not wide & set(name.split("."))]

    def not_skipped(self, names: list[str]) -> list[str]:
        """Weights outside the blocks that bitsandbytes cannot keep: it takes the name of
        a linear of the model itself for that of every linear of this name.
        """
        if self.form.library != "bitsandbytes":
            return []
        taken = {name.split(".")[-2] for name in names}
        return [f"{name}.weight" for name in self.linears if name in taken]

    @cached_property
    def kept_linears(self) -> list[str]:
        packed = set(self.packed)
        return [name for name in self.linears if f"{name}.weight" not in packed]

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        with Reader(self.folder) as reader:
            return {name: info.shape for name, info in reader.tensors.items()}

    def kept_dtype(self, name: str, stored: torch.dtype) -> torch.dtype:
        """bf16, but for what its class keeps in float32 and for integers."""
        wide = set(getattr(self.model, "_keep_in_fp32_modules", None) or ())
        if not stored.is_floating_point or wide & set(name.split(".")):
            return stored
        return torch.bfloat16


def quantize(order: Quantizing, out: Path) -> Iterator[Progress]:
    """Write the folder: weights tensor by tensor, other components linked, card and README anew.

    Result: {"student", "bytes", "source_bytes", "ratio"}: of the transformer's weights, against
    bf16. A killed run leaves no `out`. Raises BadInput for what `check` refuses.
    """
    check(order, out)
    with draft_folder(out) as work:
        shutil.rmtree(work, ignore_errors=True)
        target = work / "transformer" if is_pipeline(order.source) else work
        target.mkdir(parents=True)
        if order.form.is_gguf:
            yield from write_gguf(order, target)
        else:
            yield from write_safetensors(order, target)
        found = write_texts(order, work, target)
    result = {
        "student": str(out),
        "bytes": found.bytes,
        "source_bytes": found.bf16_bytes,
        "ratio": found.ratio,
        "packed_parameters": found.packed,
        "kept_blocks": found.kept_blocks,
    }
    yield Progress(step=1, total=1, message=str(out), result=result)


def check(order: Quantizing, out: Path) -> None:
    """Refuse, before a file is written: a student that is quantised, a target that is none, a form
    that its class or this installation cannot be written in, nothing to pack, a full disk.
    """
    check_unquantized(order.folder, order.name, "quantise")
    check_target(out, order.source, "student")
    if order.form.is_gguf:
        gguf_file.library()
        check_gguf(order)
    if not order.packed:
        raise BadInput(
            f"{order.name} has no linear that {order.form.name} can hold",
            f"rows of whole groups of {order.form.group}, in a block that is not kept",
            "choose another --to, or a larger --at-most",
        )
    size = 2 * sum(numel(list(shape)) for shape in order.shapes.values())  # at most
    check_space(size, order.source, out)


def check_gguf(order: Quantizing) -> None:
    """Refuse a class whose GGUF files diffusers does not read, and tensors that GGUF cannot hold."""
    stock = by_class(order.description.class_name).transformer
    if stock not in SINGLE_FILE_LOADABLE_CLASSES:
        raise BadInput(
            f"{order.form.name} for a {stock}",
            "a class that diffusers reads from a single file",
            "choose --to int8 or nf4",
        )
    for name, shape in order.shapes.items():
        if len(shape) > gguf_file.MOST_DIMENSIONS:
            raise BadInput(
                f"tensor {name} of {order.name} has {len(shape)} dimensions",
                f"at most {gguf_file.MOST_DIMENSIONS} in a GGUF file",
                "choose --to int8 or nf4",
            )


def write_gguf(order: Quantizing, target: Path) -> Iterator[Progress]:
    """One file; read back when it is written."""
    packed = set(order.packed)
    kept = {f"{name}.weight" for name in order.kept_linears}
    kinds = {}
    for name in order.shapes:
        kinds[name] = "F32"
        if name in packed:
            kinds[name] = gguf_file.KINDS[order.form.name]
        elif name in kept:
            kinds[name] = "BF16"
    path = target / gguf_file.NAME
    arch = order.description.family
    with Reader(order.folder) as reader:
        writing = gguf_file.write(path, arch, kinds, order.shapes, reader.tensor)
        for step, name in enumerate(writing):
            yield Progress(step=step, total=len(kinds), message=name)
    if gguf_file.kinds_of(path) != kinds:
        raise OSError(f"{path} reads back differently: the disk is failing")


def write_safetensors(order: Quantizing, target: Path) -> Iterator[Progress]:
    """Shards as diffusers names them; read back when they are written."""
    packing = PACKINGS[order.form.name]
    packed = set(order.packed)
    layout: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {}
    origin: dict[str, str] = {}  # stored tensor -> the tensor it is (a part) of
    with Reader(order.folder) as reader:
        for name, info in reader.tensors.items():
            parts: Layout = {name: (order.kept_dtype(name, info.torch_dtype), info.shape)}
            if name in packed:
                parts = packing.layout(name, info.shape)
            layout.update(parts)
            origin.update(dict.fromkeys(parts, name))
        with Writer(target, layout, metadata=header(order, packing.about)) as writer:
            for step, part in enumerate(writer.order):
                tensor = reader.tensor(origin[part])
                if origin[part] in packed:
                    tensor = packing.pack(origin[part], tensor)[part]
                else:
                    tensor = tensor.to(layout[part][0])
                writer.stream(part, (raw_bytes(tensor),))
                yield Progress(step=step, total=2 * len(layout), message=part)
    for step, part in enumerate(verify(target, layout, writer.sums), len(layout)):
        yield Progress(step=step, total=2 * len(layout), message=f"reading back {part}")


def header(
    order: Quantizing, about: Callable[[tuple[int, ...]], dict[str, Any] | None]
) -> dict[str, str]:
    """What torchao looks for in the header of a safetensors file; empty for bitsandbytes."""
    facts: dict[str, str] = {}
    packed = set(order.packed)
    for name, shape in order.shapes.items():
        said = about(shape) if name in packed else {"_type": "Tensor"}
        if said is None:
            return {}
        facts[name] = json.dumps(said)
    return facts | {"tensor_names": json.dumps(list(order.shapes))}


def write_texts(order: Quantizing, work: Path, target: Path) -> Quantization:
    """Configs, code, the other components, the card."""
    config = read_config(order.folder / "config.json")
    finished = export.finish(target, config, order.description.family)
    if not order.form.is_gguf:
        said = PACKINGS[order.form.name].config(order.kept_linears)
        finished = finished | {"quantization_config": said}
    write_synced(target / "config.json", json.dumps(finished, indent=2) + "\n")
    if is_pipeline(order.source):
        index = order.source / "model_index.json"
        write_synced(work / "model_index.json", index.read_text(encoding="utf-8"))
        link_components(order.source, work)
    for name in COPIED:
        if (order.source / name).is_file():
            link_or_copy(order.source / name, work / name)
    found = quantization(order, target)
    card = (order.card or card_of_teacher(order)).model_copy(
        update={"quantization": found, "metrics": {}}
    )
    card.save(work / "card.json")
    text = model_card(card, found, finished, is_pipeline(order.source))
    write_synced(work / "README.md", text)
    return found


def quantization(order: Quantizing, target: Path) -> Quantization:
    """What was done, for the card."""
    total = sum(numel(list(shape)) for shape in order.shapes.values())
    other = "float32" if order.form.is_gguf else "bfloat16"
    kept = {
        "norms, biases, tables and convolutions": other,
        "linears outside the blocks": "bfloat16",
    }
    ranks = order.description.config.get("modulation_rank")
    if ranks:
        kept["low-rank factors of modulation"] = "bfloat16"
    narrow = len(order.packable(1)) - len(order.packable(order.form.group))
    if narrow:
        kept[f"{narrow} linears whose rows are no whole groups"] = "bfloat16"
    if order.kept_blocks:
        kept["blocks that the map names"] = "bfloat16"
    also = order.not_skipped(order.packed)
    if also:
        kept["linears outside the blocks"] = f"bfloat16, but for {', '.join(also)}"
    return Quantization(
        to=order.form.name,
        library=order.form.library,
        packed=sum(numel(list(order.shapes[name])) for name in order.packed),
        kept=kept,
        kept_blocks=sorted(order.kept_blocks),
        bytes=sum(
            file.stat().st_size
            for file in target.iterdir()
            if file.suffix in (".safetensors", ".gguf")
        ),
        bf16_bytes=2 * total,
        source=order.name,
        source_fingerprint=order.description.fingerprint,
    )


def card_of_teacher(order: Quantizing) -> Card:
    """The card of a teacher that is quantised as it is."""
    teacher = order.description
    plan = plans.identity(teacher)
    return Card(
        teacher=teacher.name,
        teacher_fingerprint=teacher.fingerprint,
        original=teacher.name,
        original_fingerprint=teacher.fingerprint,
        plan=plan.as_yaml(),
        original_plan=plan.as_yaml(),
        parameters=teacher.parameters,
        teacher_parameters=teacher.parameters,
        original_parameters=teacher.parameters,
    )
