"""Students of random plans: what is built, saved and loaded again is what a preview shows."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests import block_states
from tests.properties import drawn
from tests.tiny_families import CONFIGS, family_inputs, family_model
from workbench import models, plans, surgery
from workbench.families import FAMILIES, StackRow
from workbench.records import BadInput, Card, Plan, StackInfo, Teacher


@cache
def described(family: str) -> Teacher:
    return models.describe_module(family_model(family), "tiny")


def partition(draw: st.DrawFn, stack: StackInfo, row: StackRow) -> list[tuple[int, int]]:
    """Contiguous spans; pinned blocks alone."""
    pinned = row.pinned_in(stack.depth)
    forced = {edge for block in pinned for edge in (block, block + 1)}
    cuts = {edge for edge in range(1, stack.depth) if edge in forced or draw(st.booleans())}
    return [(first, end - 1) for first, end in pairwise([0, *sorted(cuts), stack.depth])]


@st.composite
def plans_of(draw: st.DrawFn, family: str) -> Plan:
    """Any plan; the few that are unsound (a part that is not there, a single block that cannot be)
    are drawn again as plain spans.
    """
    teacher = described(family)
    stacks: dict[str, list[dict[str, Any]]] = {}
    for stack in teacher.stacks:
        row, stacks[stack.path] = FAMILIES[family].stack(stack.path), []
        for first, last in partition(draw, stack, row):
            span: dict[str, Any] = {"blocks": [first, last]}
            if first not in row.pinned_in(stack.depth):
                more = {
                    "init": draw(st.sampled_from(["mean", "first", "last", "middle"])),
                    "gain": draw(st.sampled_from([1, 1, 2, 0.5, 3])),
                }
                odd = {
                    "stream": draw(st.sampled_from([None, None, "single"])),
                    "drop": draw(
                        st.lists(st.sampled_from(sorted(row.parts)), max_size=2, unique=True)
                    ),
                }
                tries = (
                    span | more | odd,
                    span | more | {"stream": odd["stream"]},
                    span | more,
                    span,
                )
                span = next(each for each in tries if sound(each, stack, teacher))
            stacks[stack.path].append(span)
    return plans.check(
        Plan.parse({"teacher": "tiny", "family": family, "stacks": stacks}, "drawn"), teacher
    )


def sound(span: dict[str, Any], stack: StackInfo, teacher: Teacher) -> bool:
    """Whether a plan that is otherwise the identity may have this span."""
    first, last = span["blocks"]
    plain = plans.identity(teacher).as_yaml()
    plain["stacks"][stack.path][first : last + 1] = [span]
    try:
        plans.check(Plan.parse(plain, "drawn"), teacher)
    except BadInput:
        return False
    return True


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Folder of a family's teacher in some dtype, in one file or in shards."""

    @cache
    def made(family: str, dtype: torch.dtype, shards: bool) -> Path:
        folder = tmp_path_factory.mktemp("teachers") / f"{family}-{shards}"
        family_model(family).to(dtype).save_pretrained(
            folder, max_shard_size="60KB" if shards else "5GB"
        )
        return folder

    return made


def answer(model: nn.Module, family: str) -> torch.Tensor:
    with torch.no_grad():
        out = model(**family_inputs(family))[0]
    return torch.cat([each.flatten() for each in out]) if isinstance(out, list) else out


@pytest.mark.parametrize("family", sorted(CONFIGS))
@drawn(4)
@given(data=st.data(), dtype=st.sampled_from([torch.float32, torch.bfloat16]), shards=st.booleans())
def test_a_random_student_on_disk_is_the_one_in_memory(
    teachers: Any,
    tmp_path_factory: pytest.TempPathFactory,
    family: str,
    data: st.DataObject,
    dtype: torch.dtype,
    shards: bool,
) -> None:
    plan = data.draw(plans_of(family))
    folder, out = (
        teachers(plan.family, dtype, shards),
        tmp_path_factory.mktemp("students") / "student",
    )
    teacher = models.describe(folder, "tiny")
    result = list(surgery.build(folder, teacher, plan, out))[-1].result
    loaded = models.load_transformer(folder, dtype=dtype)
    student = models.load_transformer(out, dtype=dtype)
    with surgery.applied(loaded, plan):
        preview, on_disk = loaded.state_dict(), student.state_dict()
        assert list(preview) == list(on_disk) and all(
            torch.equal(preview[name], on_disk[name]) for name in preview
        )
        if dtype == torch.float32:
            assert torch.equal(answer(student, plan.family), answer(loaded, plan.family))
    buffers = {name for name, _ in student.named_buffers()}
    count = sum(tensor.numel() for name, tensor in on_disk.items() if name not in buffers)
    assert (
        count
        == result["parameters"]
        == plans.parameters(plan, teacher)
        == models.describe(out, "x").parameters
    )
    assert (
        Card.load(out / "card.json").stock
        == result["stock"]
        == (type(student).__name__ == FAMILIES[plan.family].transformer)
    )
    assert Plan.load(out / "plan.yaml") == plan


def grown(family: str, split: dict[str, list[bool]]) -> tuple[nn.Module, Plan]:
    """The family's model with the chosen blocks split in two half-gated copies, and the plan that
    merges them back.
    """
    small = family_model(family)
    config, stacks = dict(models.config_of(small)), {}
    state = small.state_dict()
    new = {
        name: tensor
        for name, tensor in state.items()
        if not name.startswith(tuple(f"{row.path}." for row in FAMILIES[family].stacks))
    }
    for row in FAMILIES[family].stacks:
        stacks[row.path], depth = [], 0
        listed: dict[str, list[int]] = {key: [] for key in row.per_index}
        for block, twice in enumerate(split[row.path]):
            head = f"{row.path}.{block}."
            held = {
                name.removeprefix(head): tensor
                for name, tensor in state.items()
                if name.startswith(head)
            }
            for copy in range(depth, depth + 1 + twice):
                made = block_states.fold_gain(held, row, 0.5) if twice else held
                new |= {f"{row.path}.{copy}.{name}": tensor for name, tensor in made.items()}
                for key in row.per_index:
                    listed[key] += [copy] if block in config[key] else []
            stacks[row.path].append(
                {"blocks": [depth, depth + 1], "init": "mean", "gain": 2}
                if twice
                else {"blocks": depth}
            )
            depth += 1 + twice
        config |= {row.depth_key: depth} | {key: tuple(found) for key, found in listed.items()}
    model = type(small).from_config(config)
    model.load_state_dict(new)
    return model.to(next(small.parameters()).dtype).eval(), Plan.parse(
        {"teacher": "grown", "family": family, "stacks": stacks}, "grown"
    )


@st.composite
def splits(draw: st.DrawFn, family: str) -> dict[str, list[bool]]:
    """Which blocks are split: any that are not pinned, at least one."""
    out = {}
    for stack in described(family).stacks:
        pinned = FAMILIES[family].stack(stack.path).pinned_in(stack.depth)
        free = [block for block in range(stack.depth) if block not in pinned]
        chosen = set(draw(st.lists(st.sampled_from(free), min_size=1, unique=True)))
        out[stack.path] = [block in chosen for block in range(stack.depth)]
    return out


@pytest.mark.parametrize("family", sorted(CONFIGS))
@drawn(2)
@given(data=st.data(), dtype=st.sampled_from([torch.float32, torch.bfloat16]))
def test_a_grown_model_merged_back_is_the_original_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, family: str, data: st.DataObject, dtype: torch.dtype
) -> None:
    """Halving and doubling are exact in binary (float16 aside, where small gates lose a bit), and
    so is the mean of two equals.
    """
    model, plan = grown(family, data.draw(splits(family)))
    folder = tmp_path_factory.mktemp("grown")
    model.to(dtype).save_pretrained(folder / "teacher")
    list(
        surgery.build(
            folder / "teacher",
            models.describe(folder / "teacher", "grown"),
            plan,
            folder / "student",
        )
    )
    original, merged = (
        family_model(family).to(dtype).state_dict(),
        models.load_transformer(folder / "student", dtype=dtype).state_dict(),
    )
    assert list(original) == list(merged) and all(
        torch.equal(original[name], merged[name]) for name in original
    )
    with surgery.applied(model, plan) as preview:
        assert all(
            torch.equal(original[name], tensor) for name, tensor in preview.state_dict().items()
        )
