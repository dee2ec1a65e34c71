"""`workbench lora`: read a teacher's LoRA, move it to the student, write it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..families import FAMILIES
from ..models import read_config, transformer_folder
from ..models.conditioning import basis_of_folder
from ..models.folders import CUSTOM
from ..models.headers import headers
from ..models.layouts import config_layout
from ..models.lora_files import Lora, read_lora, write_lora
from ..models.quantized.stored import check_unquantized
from ..records import BadInput, Plan, Progress, Span
from ..specs import LoraSpec
from ..surgery.lora import Move, moved
from .context import Context
from .lineage import not_a_student
from .resolve import Model, resolve


def lora(spec: LoraSpec, context: Context) -> Iterator[Progress]:
    """Write the student's LoRA. Result: lora, pairs, kept, merged, projected, dropped {reason:
    count}, lost_share, left_out.
    """
    model, plan = student_of(spec, context)
    yield Progress(step=0, total=2, message=f"reading {Path(spec.lora).name}")
    shapes = teacher_shapes(model, plan)
    source = read_lora(spec.lora, plan.family, shapes)
    basis = None
    if any(span.rank is not None for spans in plan.stacks.values() for span in spans):
        basis = basis_of_folder(model.folder, spec.conditioning)
    target, account = moved(Move(source, plan, shapes, basis))
    check_fits(target, model)
    for key, fault in source.unknown.items():
        account.dropped[f"not of this model ({fault})"] += 1
        print(f"note: {key} is left out: {fault}", file=sys.stderr, flush=True)
    account.pairs += len(source.unknown)
    print(account.line(), file=sys.stderr, flush=True)
    out = out_of(spec, context, model)
    write_lora(target, out, {"format": "pt", "workbench": account.line()})
    result = {
        "lora": str(out),
        "pairs": account.pairs,
        "kept": account.kept,
        "merged": account.merged,
        "projected": account.projected,
        "dropped": dict(account.dropped),
        "lost_share": account.lost_share,
        "left_out": account.left_out,
        "text_encoder_tensors": len(target.others),
    }
    yield Progress(step=2, total=2, message=str(out), result=result)


def check_lora(spec: LoraSpec, context: Context) -> None:
    """The student, and the LoRA's keys and shapes."""
    model, plan = student_of(spec, context)
    read_lora(spec.lora, plan.family, teacher_shapes(model, plan))
    out = out_of(spec, context, model)
    if out.suffix != ".safetensors" or out.is_dir():
        raise BadInput(f"-o {out}", "a path that ends in .safetensors", "name a file")


def student_of(spec: LoraSpec, context: Context) -> tuple[Model, Plan]:
    """The student and its plan over the model at the beginning of its chain."""
    model = resolve(spec.student, context.store)
    if model.card is None:
        raise not_a_student(model)
    check_unquantized(transformer_folder(model.folder), model.name, "fit a LoRA to")
    if model.card.original_plan is None:
        raise BadInput(
            f"{model.name} has no plan over {model.card.original}: a block of it is a mean of means",
            "a student whose blocks are means of its first teacher's",
            f"move the LoRA to {model.card.teacher} first",
        )
    return model, Plan.parse(model.card.original_plan, "original_plan of card.json")


def teacher_shapes(model: Model, plan: Plan) -> dict[str, list[int]]:
    """The shapes of the first teacher's tensors, from the student's config at the teacher's depth:
    the teacher need not be here.
    """
    family = FAMILIES[plan.family]
    config = read_config(transformer_folder(model.folder) / "config.json")
    config = {key: value for key, value in config.items() if key not in (*CUSTOM, "auto_map")}
    config["_class_name"] = family.transformer
    for row in family.stacks:
        depth = plan.stacks[row.path][-1].last + 1
        config[row.depth_key] = depth
        for key in row.per_index:
            config[key] = teacher_blocks(config.get(key) or (), plan.stacks[row.path])
    return config_layout(config, model.name).shapes


def teacher_blocks(numbers: Sequence[int], spans: Sequence[Span]) -> tuple[int, ...]:
    """The teacher blocks of the spans that student blocks of these numbers are made of."""
    found: list[int] = []
    for number in numbers:
        found += range(spans[number].first, spans[number].last + 1)
    return tuple(found)


def check_fits(lora: Lora, model: Model) -> None:
    """Raises BadInput for a pair that does not fit the student's weights."""
    tensors = headers(transformer_folder(model.folder))
    for module, pair in lora.pairs.items():
        info = tensors.get(f"{module}.weight")
        shape = (pair.b.shape[0], pair.a.shape[1])
        if info is None or info.shape != shape:
            found = f"{module} {list(shape)}"
            has = "no such tensor" if info is None else str(list(info.shape))
            raise BadInput(
                f"the LoRA changes {found}",
                f"what {model.name} has there: {has}",
                "choose a LoRA of its teacher",
            )


def out_of(spec: LoraSpec, context: Context, model: Model) -> Path:
    if spec.out is not None:
        return Path(spec.out).absolute()
    name = f"{Path(spec.lora).stem}-{model.folder.name}.safetensors"
    return context.store.workspace / "loras" / name
