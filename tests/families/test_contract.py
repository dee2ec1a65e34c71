"""The contract of a family: one set of tests over the whole table, on tiny random models.

A family counts as supported when these pass (docs/add-a-family.md).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from torch import nn

from tests import block_states
from tests.refusals import refused
from tests.tiny_families import family_inputs, family_model
from workbench import families, models, plans, register, rules, surgery
from workbench.families import FAMILIES, REFUSED, Family, StackRow, inside
from workbench.models import Call, blocks
from workbench.plugins import unregister
from workbench.records import Plan, SensitivityMap, Span, StackInfo, Teacher
from workbench.sensitivity.profiling import naive_profile, profile

STACKS = [(name, row.path) for name, family in FAMILIES.items() for row in family.stacks]
EVERY = pytest.mark.parametrize("name", FAMILIES)
EVERY_STACK = pytest.mark.parametrize(("name", "path"), STACKS)
MODELS: dict[str, nn.Module] = {}


def model_of(name: str) -> nn.Module:
    """One model a family for all tests: none of them changes it."""
    if name not in MODELS:
        MODELS[name] = family_model(name)
    return MODELS[name]


def teacher_of(name: str) -> Teacher:
    return models.describe_module(model_of(name), "tiny")


def answer(model: nn.Module, seed: int = 0) -> torch.Tensor:
    """The prediction, (B, ...)."""
    with torch.no_grad():
        return models.prediction(model(**family_inputs(models.family_of(model).name, seed)), model)


def free(row: StackRow, depth: int) -> list[int]:
    """Blocks that are not pinned."""
    return [block for block in range(depth) if block not in row.pinned_in(depth)]


def alike(stack: StackInfo, row: StackRow) -> tuple[int, int]:
    """A block and its next of the same shapes, neither pinned."""
    return next(
        (a, a + 1)
        for a in free(row, stack.depth)
        if a + 1 in free(row, stack.depth) and stack.layout_of[a] == stack.layout_of[a + 1]
    )


def shallower(name: str) -> Plan:
    """In every stack two blocks merged, with gain where the family has it; the others kept."""
    teacher, stacks = teacher_of(name), {}
    for stack in teacher.stacks:
        row = FAMILIES[name].stack(stack.path)
        first, last = alike(stack, row)
        kept = [Span(blocks=(b, b)) for b in range(stack.depth) if b not in (first, last)]
        merged = Span(blocks=(first, last), init="mean", gain=2.0 if row.gain else 1.0)
        stacks[stack.path] = sorted([*kept, merged], key=lambda span: span.first)
    return plans.check(Plan(teacher="tiny", family=name, stacks=stacks), teacher)


def built(folder: Path, plan: Plan, out: Path) -> dict[str, Any]:
    return list(surgery.build(folder, models.describe(folder, "tiny"), plan, out))[-1].result


def stock(name: str, folder: Path) -> nn.Module:
    """The folder as diffusers loads it, without the workbench. Weights that ask for gradients round
    SANA's linears differently.
    """
    return (
        getattr(diffusers, FAMILIES[name].transformer)
        .from_pretrained(folder)
        .eval()
        .requires_grad_(False)
    )


# --- depth ----------------------------------------------------------------------------------------


@EVERY
def test_identity_is_the_teacher_bit_for_bit(name: str, tmp_path: Path) -> None:
    model, plan = model_of(name), plans.identity(teacher_of(name))
    before = answer(model)
    with surgery.applied(model, plan):
        assert torch.equal(answer(model), before)
    model.save_pretrained(tmp_path / "teacher")
    result = built(tmp_path / "teacher", plan, tmp_path / "student")
    assert torch.equal(answer(stock(name, tmp_path / "student")), before)
    assert (
        result["parameters"]
        == teacher_of(name).parameters
        == sum(p.numel() for p in model.parameters())
    )


@EVERY
def test_a_shallower_student_is_the_same_in_memory_on_disk_and_in_stock_diffusers(
    name: str, tmp_path: Path
) -> None:
    model, plan = model_of(name), shallower(name)
    model.save_pretrained(tmp_path / "teacher")
    result = built(tmp_path / "teacher", plan, tmp_path / "student")
    loaded = stock(name, tmp_path / "student")
    with surgery.applied(model, plan):
        assert torch.equal(answer(model), answer(loaded))
        assert not torch.equal(answer(loaded), answer(family_model(name)))
    for row in FAMILIES[name].stacks:
        assert (
            loaded.config[row.depth_key]
            == len(plan.stacks[row.path])
            == len(loaded.get_submodule(row.path))
        )
    assert result["parameters"] == sum(p.numel() for p in loaded.parameters())
    assert models.describe(tmp_path / "student", "x").outside == teacher_of(name).outside


@EVERY_STACK
def test_bypass_equals_removal(name: str, path: str) -> None:
    model, row = model_of(name), FAMILIES[name].stack(path)
    whole, own = answer(model), model.get_submodule(path)
    for gone in free(row, len(own)):
        removed = copy.deepcopy(model)
        removed.set_submodule(
            path,
            nn.ModuleList(
                block for index, block in enumerate(removed.get_submodule(path)) if index != gone
            ),
        )
        with blocks.bypass(model, [(path, gone)]):
            assert torch.equal(answer(model), answer(removed)), gone
        assert not torch.equal(answer(removed), whole), gone


@EVERY
def test_blocks_run_in_the_order_of_the_table(name: str) -> None:
    with blocks.capture(model_of(name)) as held:
        answer(model_of(name))
    assert held.order == [block.place for block in blocks.all_blocks(model_of(name))]
    for place, following in zip(held.order, held.order[1:], strict=False):
        if place[0] == following[0]:
            for stream, value in held.outputs[place].items():
                assert torch.equal(value, held.inputs[following][stream])


@pytest.mark.parametrize(
    ("name", "path"), [(n, p) for n, p in STACKS if FAMILIES[n].stack(p).pinned]
)
def test_pinned_blocks_are_refused(name: str, path: str) -> None:
    teacher = teacher_of(name)
    depth = teacher.stack(path).depth
    for pinned in FAMILIES[name].stack(path).pinned_in(depth):
        pair = (pinned - 1, pinned) if pinned else (0, 1)
        for span in (
            Span(blocks=pair),
            Span(blocks=(pinned, pinned), gain=2),
            Span(blocks=(pinned, pinned), stream="single"),
        ):
            rest = [Span(blocks=(b, b)) for b in range(depth) if not span.first <= b <= span.last]
            plan = Plan(
                teacher="tiny",
                family=name,
                stacks={path: sorted([*rest, span], key=lambda s: s.first)},
            )
            with refused(found=f"block {pinned} is pinned"):
                plans.check(plan, teacher)
    # rules leave pinned blocks alone
    assert plans.check(rules.propose("uniform", teacher, {path: depth - 1}), teacher)


def test_keys_that_list_blocks_are_renumbered() -> None:
    """SD3.5's dual_attention_layers (0, 1, 3) of 5 blocks: 0 and 1 merge, 2 goes."""
    spans = [
        Span(blocks=(0, 1), init="mean"),
        Span(blocks=(2, 3), init="last"),
        Span(blocks=(4, 4)),
    ]
    plan = Plan(teacher="tiny", family="sd3", stacks={"transformer_blocks": spans})
    student = surgery.student_transformer(model_of("sd3"), plans.check(plan, teacher_of("sd3")))
    assert tuple(student.config.dual_attention_layers) == (0, 1) and student.config.num_layers == 3
    rebuilt = type(student).from_config(student.config)
    assert {k: v.shape for k, v in rebuilt.state_dict().items()} == {
        k: v.shape for k, v in student.state_dict().items()
    }
    odd = Plan(
        teacher="tiny",
        family="sd3",
        stacks={
            "transformer_blocks": [
                Span(blocks=(0, 0)),
                Span(blocks=(1, 2), init="mean"),
                Span(blocks=(3, 3)),
                Span(blocks=(4, 4)),
            ]
        },
    )
    with refused(found="[1-2]: block 2", do="first, last or middle"):
        plans.check(odd, teacher_of("sd3"))


# --- parts ----------------------------------------------------------------------------------------

# module inside the block, and what of it: out, out 0, out 1 (of a tuple), in first, in rest
# (columns)
Pick = tuple[str, str]
JOINT: dict[str, list[Pick]] = {
    "attn": [("attn", "out 0")],
    "text.attn": [("attn", "out 1")],
    "mlp": [("ff", "out")],
    "text.mlp": [("ff_context", "out")],
}
SIDE: dict[str, list[Pick]] = {"attn": [("proj_out", "in first")], "mlp": [("proj_out", "in rest")]}
CROSS: dict[str, list[Pick]] = {
    "attn": [("attn1", "out")],
    "cross": [("attn2", "out")],
    "mlp": [("ff", "out")],
}
NORMED: dict[str, list[Pick]] = {"mlp": [("ffn_norm2", "out")]}
# What each part contributes, written down from the blocks' forward and not from the table.
CONTRIBUTIONS: dict[tuple[str, str], dict[str, list[Pick]]] = {
    ("qwenimage", "transformer_blocks"): JOINT
    | {"mlp": [("img_mlp", "out")], "text.mlp": [("txt_mlp", "out")]},
    ("qwenimage21", "transformer_blocks"): {"attn": [("attn", "out")], "mlp": [("img_mlp", "out")]},
    ("flux2", "single_transformer_blocks"): {
        "attn": [("attn.to_out", "in first")],
        "mlp": [("attn.to_out", "in rest")],
    },
    ("sd3", "transformer_blocks"): JOINT | {"attn": [("attn", "out 0"), ("attn2", "out")]},
    ("auraflow", "joint_transformer_blocks"): JOINT,
    ("auraflow", "single_transformer_blocks"): {"attn": [("attn", "out")], "mlp": [("ff", "out")]},
    ("cogview4", "transformer_blocks"): {
        "attn": [("attn1", "out 0"), ("attn1", "out 1")],
        "mlp": [("ff", "out")],
    },
    ("zimage", "layers"): NORMED | {"attn": [("attention_norm2", "out")]},
    ("lumina2", "layers"): NORMED | {"attn": [("norm2", "out")]},
    ("sana", "transformer_blocks"): CROSS,
    ("pixart", "transformer_blocks"): CROSS,
    ("dit", "transformer_blocks"): {"attn": [("attn1", "out")], "mlp": [("ff", "out")]},
    ("wan", "blocks"): CROSS | {"mlp": [("ffn", "out")]},
    **{
        (name, "transformer_blocks"): JOINT
        for name in ("flux", "flux2", "hunyuanimage", "longcat", "ovis")
    },
    **{
        (name, "single_transformer_blocks"): SIDE
        for name in ("flux", "hunyuanimage", "longcat", "ovis")
    },
}


@contextmanager
def silenced(block: nn.Module, picks: list[Pick]) -> Iterator[None]:
    """The contributions named are zero while inside."""

    def after(what: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            if what == "out":
                return torch.zeros_like(output)
            return tuple(
                torch.zeros_like(o) if i == int(what[-1]) else o for i, o in enumerate(output)
            )

        return hook

    def before(what: str) -> Callable[..., Any]:
        def hook(module: nn.Linear, args: tuple[torch.Tensor]) -> Any:
            value, width = args[0].clone(), module.out_features
            value[..., slice(0, width) if what == "in first" else slice(width, None)] = 0
            return (value,)

        return hook

    with ExitStack() as stack:
        for where, what in picks:
            # attn2 is in some blocks only
            if any(name == where for name, _ in block.named_modules()):
                module = block.get_submodule(where)
                add = (
                    module.register_forward_pre_hook
                    if what.startswith("in")
                    else module.register_forward_hook
                )
                stack.callback(add((before if what.startswith("in") else after)(what)).remove)
        yield


@EVERY_STACK
def test_a_dropped_part_contributes_nothing(name: str, path: str) -> None:
    model, row = model_of(name), FAMILIES[name].stack(path)
    whole, changed = answer(model), copy.deepcopy(model)
    place = free(row, len(model.get_submodule(path)))[0]
    block, own = changed.get_submodule(path)[place], model.get_submodule(path)[place]
    for part, picks in CONTRIBUTIONS[name, path].items():
        block.load_state_dict(block_states.without_parts(own.state_dict(), [part], row))
        with silenced(own, picks):
            silent = answer(model)
        assert torch.allclose(answer(changed), silent, rtol=1e-4, atol=1e-5), part
        assert not torch.allclose(silent, whole, rtol=1e-4, atol=1e-5), part
    assert set(row.parts) - set(CONTRIBUTIONS[name, path]) <= {
        "modulation",
        "text.modulation",
        "text.output",
    }


@EVERY_STACK
def test_every_part_is_found_and_counted(name: str, path: str) -> None:
    """The table names no module that no block has, and a part's parameters are what is gone when it
    goes.
    """
    stack, row = teacher_of(name).stack(path), FAMILIES[name].stack(path)
    names = {tensor for layout in stack.layouts for tensor in layout}
    # norms may hold nothing
    modules = {
        module
        for block in model_of(name).get_submodule(path)
        for module, _ in block.named_modules()
    }
    for module in (
        [m for part in row.parts.values() for m in part.tensors]
        + list(row.text)
        + [r.tensor for r in row.gain]
    ):
        assert module in modules | names, module
    for text, image in row.tie.items():
        ends = {tensor.removeprefix(text) for tensor in names if inside(tensor, (text,))}
        assert ends == {
            tensor.removeprefix(image) for tensor in names if inside(tensor, (image,))
        }, text
    block = free(row, stack.depth)[-1]
    rest = [
        plans.span_parameters(Span(blocks=(block, block), drop=drop), stack, row)
        for drop in ((), tuple(CONTRIBUTIONS[name, path]))
    ]
    assert 0 <= rest[1] < rest[0] == stack.block_parameters(block)


@pytest.mark.parametrize(
    ("name", "path"), [(n, p) for n, p in STACKS if "modulation" in FAMILIES[n].stack(p).parts]
)
def test_modulation_without_its_linear_is_shift_0_scale_0_gate_1(name: str, path: str) -> None:
    """In its place stands a constant: the gates open (1 after their tanh), all else 0."""
    row = FAMILIES[name].stack(path)
    block = copy.deepcopy(model_of(name).get_submodule(path)[free(row, 3)[0]])
    block.load_state_dict(
        block_states.without_parts(
            block.state_dict(), [p for p in row.parts if p.endswith("modulation")], row
        )
    )
    for part in row.fitted(
        {k: tuple(v.shape) for k, v in block.state_dict().items()}
    ).parts.values():
        for rows in part.gates:
            linear = block.get_submodule(rows.tensor)
            assert isinstance(linear, nn.Linear) and rows.of is not None
            chunks = linear(torch.randn(1, linear.in_features)).chunk(rows.of, 1)
            for index, chunk in enumerate(chunks):
                value = chunk.tanh() if part.open != 1 and index in rows.chunks else chunk
                assert (value == float(index in rows.chunks)).all()


# --- gain, cache ----------------------------------------------------------------------------------


def steps(
    model: nn.Module, path: str, block: int, state: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """What a block adds to each of its streams, with these weights."""
    changed = copy.deepcopy(model)
    changed.get_submodule(path)[block].load_state_dict(state)
    with blocks.capture(changed, [(path, block)]) as seen:
        answer(changed)
    before, after = seen.inputs[path, block], seen.outputs[path, block]
    return {stream: after[stream] - before[stream] for stream in after}


@pytest.mark.parametrize(("name", "path"), [(n, p) for n, p in STACKS if FAMILIES[n].stack(p).gain])
def test_residual_of_gain_g_is_g_times_the_residual(name: str, path: str) -> None:
    """Branch by branch: a later branch reads what an earlier one has written, so a block is linear
    in one at a time.
    """
    model, row = model_of(name), FAMILIES[name].stack(path)
    block = free(row, len(model.get_submodule(path)))[0]
    state = model.get_submodule(path)[block].state_dict()
    branches = {part.removeprefix("text.") for part in CONTRIBUTIONS[name, path]}
    moved = 0
    for branch in branches:
        others = [
            part for part in CONTRIBUTIONS[name, path] if part.removeprefix("text.") != branch
        ]
        alone = block_states.without_parts(state, others, row)
        plain, scaled = (
            steps(model, path, block, alone),
            steps(model, path, block, block_states.fold_gain(alone, row, 3)),
        )
        for stream in plain:
            assert torch.allclose(scaled[stream], 3 * plain[stream], rtol=1e-3, atol=1e-5), (
                branch,
                stream,
            )
            moved += plain[stream].abs().max() > 1e-3
    assert moved >= min(len(branches), 1)


@EVERY
def test_cached_profile_equals_the_naive_one(name: str) -> None:
    teacher, parts = (
        teacher_of(name),
        sorted({p for row in FAMILIES[name].stacks for p in CONTRIBUTIONS[name, row.path]}),
    )
    calls = [Call(family_inputs(name), 500.0, 0, 2, "cond")]
    what = {
        "edits": [
            "drop",
            "merge" if FAMILIES[name].stacks[0].gain else "merge:mean:1",
            f"drop:{parts[-1]}",
        ]
    }
    cached, naive = (
        list(run(model_of(name), teacher, calls, **what))[-1].result
        for run in (profile, naive_profile)
    )
    assert isinstance(cached, SensitivityMap) and len(cached.rows) == len(naive.rows) > sum(
        s.depth for s in teacher.stacks
    )
    for one, other in zip(cached.rows, naive.rows, strict=True):
        assert (one.stack, one.block, one.edit) == (other.stack, other.block, other.edit)
        assert one.score == pytest.approx(other.score, rel=1e-4)
        # nothing reads the text behind the last dual block of Qwen-Image
        assert one.score > 0 or one.edit.startswith("drop:text")
    assert cached.block_evaluations < naive.block_evaluations


# --- the classes the table lacks ------------------------------------------------------------------


@pytest.mark.parametrize("class_name", REFUSED)
def test_refused_with_the_reason(class_name: str) -> None:
    assert hasattr(diffusers, class_name)
    with refused(found=f"{class_name} ({REFUSED[class_name]})"):
        families.by_class(class_name)


def test_an_unknown_class_is_told_how_to_come_in() -> None:
    with refused(found="MochiTransformer3DModel", do="docs/add-a-family.md"):
        families.by_class("MochiTransformer3DModel")


def test_a_new_family_is_one_row(request: pytest.FixtureRequest) -> None:
    """The row that docs/add-a-family.md shows, on a class the table lacks."""
    text = (Path(__file__).parents[2] / "docs" / "add-a-family.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(code, names)
    row = names["BRIA"]
    assert isinstance(row, Family) and row.transformer not in {
        f.transformer for f in FAMILIES.values()
    }
    register("family", row.name, row)
    request.addfinalizer(lambda: unregister("family", row.name))
    model = getattr(diffusers, row.transformer)(
        num_layers=3,
        num_attention_heads=2,
        attention_head_dim=16,
        joint_attention_dim=8,
        pooled_projection_dim=6,
        in_channels=4,
        axes_dims_rope=(4, 6, 6),
    )
    assert models.describe_module(model).parameters == sum(p.numel() for p in model.parameters())
