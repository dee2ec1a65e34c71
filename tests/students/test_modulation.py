"""Modulation in two factors: the fit, students in memory and on disk, and what their folders hold."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import HunyuanImageTransformer2DModel
from torch import nn

from tests import block_states
from tests.students.helpers import answer, bare_environment, build, free, plan_of, relative
from tests.tiny_families import CONFIGS, family_inputs, family_model, randomise
from workbench import models, plans, surgery
from workbench.families import FAMILIES, inside
from workbench.models import conditioning
from workbench.records import BadInput, Modulation, Plan, Span
from workbench.students import int4, modulation_fit
from workbench.students.low_rank_linear import LowRankLinear
from workbench.students.modulation_fit import Basis
from workbench.students.weights_from_span import student_block_state

CURVE = [name for name, f in FAMILIES.items() if f.conditioning and f.conditioning.arguments]
RECORDED = [name for name, f in FAMILIES.items() if f.conditioning and not f.conditioning.arguments]
FACTORED = [*CURVE, *RECORDED]
STACK = "transformer_blocks"


def recorded(name: str, model: nn.Module, calls: int = 24) -> torch.Tensor:
    """Conditioning vectors of calls at several timesteps."""
    scale = FAMILIES[name].conditioning.scale  # type: ignore[union-attr]
    with conditioning.seen_vectors(model) as seen, torch.no_grad():
        for call in range(calls):
            model(**family_inputs(name, seed=call, timestep=scale * (call + 1) / calls))
    return torch.cat(seen)


def ready(name: str) -> nn.Module:
    """A tiny model whose modulation can be factored."""
    model = family_model(name)
    if name in RECORDED:
        conditioning.use_vectors(model, recorded(name, model))
    return model


def ranked(name: str, rank: int) -> Plan:
    return plans.with_modulation(
        plan_of(name, {}, next(iter(FAMILIES[name].stacks)).path),
        models.describe_module(family_model(name)),
        rank,
    )


# --- the fit --------------------------------------------------------------------------------------


def test_factors_are_those_of_a_plain_svd() -> None:
    generator = np.random.default_rng(0)
    weight = generator.normal(size=(24, 10))
    bias = generator.normal(size=24)
    vectors = generator.normal(size=(40, 10)) + 3.0
    down, up, up_bias = modulation_fit.factor(
        torch.tensor(weight), torch.tensor(bias), Basis(torch.tensor(vectors)), 4
    )
    mean = vectors.mean(0)
    _, _, directions = np.linalg.svd(vectors - mean)
    projector = directions[:4].T @ directions[:4]
    expected = (mean + (vectors - mean) @ projector) @ weight.T + bias
    made = torch.tensor(vectors) @ down.T @ up.T + up_bias
    assert np.allclose(made.numpy(), expected, atol=1e-12)


def test_without_a_bias_the_mean_is_kept_exactly() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(24, 10, generator=generator)
    basis = Basis(torch.randn(40, 10, generator=generator) + 3)
    down, up, bias = modulation_fit.factor(weight, None, basis, 4)
    assert bias is None
    assert torch.allclose(up @ (down @ basis.mean), weight.double() @ basis.mean)
    assert torch.allclose(down @ down.T, torch.eye(4, dtype=torch.float64))


def test_the_residual_is_the_share_of_spread_left_out() -> None:
    vectors = torch.randn(30, 6, generator=torch.Generator().manual_seed(0)).double()
    centred = vectors - vectors.mean(0)
    basis = Basis(vectors)
    left = centred - centred @ basis.directions[:2].T @ basis.directions[:2]
    assert basis.residual(2) == pytest.approx(float(left.square().sum() / centred.square().sum()))


def test_a_vector_of_weight_two_counts_as_two_vectors() -> None:
    vectors = torch.randn(30, 6, generator=torch.Generator().manual_seed(0)).double() + 3
    weights = torch.ones(30)
    weights[4] = 2.0
    weighted = Basis(vectors, weights)
    repeated = Basis(torch.cat([vectors, vectors[4:5]]))
    assert torch.allclose(weighted.mean, repeated.mean)
    assert torch.allclose(weighted.singular_values, repeated.singular_values)
    for rank in (1, 3):
        kept = weighted.directions[:rank]
        same = repeated.directions[:rank]
        assert torch.allclose(kept.T @ kept, same.T @ same)


def test_a_tenth_of_the_curve_is_its_last_sampling_step() -> None:
    weights = conditioning.curve_weights()
    assert float(weights.sum()) == pytest.approx(1)
    step = float(weights[conditioning.LAST_STEP] - weights[0])
    assert step == pytest.approx(0.1)
    assert int(weights.argmax()) == 20


def test_a_lora_of_the_linear_is_projected_with_the_mean_of_the_vectors() -> None:
    """factor(W + s B A) is factor(W) with the projected pair and offset."""
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(24, 10, generator=generator), torch.randn(24, generator=generator)
    a, b = torch.randn(3, 10, generator=generator), torch.randn(24, 3, generator=generator)
    basis = Basis(torch.randn(40, 10, generator=generator) + 3)
    down, up, up_bias = modulation_fit.factor(weight, bias, basis, 4)
    whole = modulation_fit.factor(weight.double() + 0.5 * (b.double() @ a.double()), bias, basis, 4)
    pair_a, pair_b, offset = modulation_fit.factored_lora(a, b, basis, 4, scale=0.5)
    assert torch.allclose(whole[1], up + pair_b @ pair_a, atol=1e-12)
    assert torch.allclose(whole[2], up_bias + offset, atol=1e-12)
    assert float(offset.abs().max()) > 0.1, "the mean matters here"
    assert torch.equal(whole[0], down)


# --- the conditioning vectors ---------------------------------------------------------------------


@pytest.mark.parametrize("name", CURVE)
def test_the_curve_is_what_the_modulation_linears_see(name: str) -> None:
    model = family_model(name)
    family = FAMILIES[name]
    times = torch.tensor([0.0, 250.0, 1000.0])
    with conditioning.seen_vectors(model) as seen, torch.no_grad():
        for time in times:
            argument = float(time) * family.conditioning.scale / 1000  # type: ignore[union-attr]
            model(**family_inputs(name, timestep=argument))
    stacks = tuple(f"{row.path}." for row in family.stacks)
    outside = {k: v for k, v in model.state_dict().items() if not k.startswith(stacks)}
    curve = conditioning.curve(family, dict(model.config), outside, times)  # type: ignore[arg-type]
    assert torch.allclose(curve, torch.stack([one[0] for one in seen]), atol=1e-6)
    assert torch.allclose(seen[0][0], seen[0][-1]), "the samples of a call differ"


@pytest.mark.parametrize("name", [name for name in CURVE if FAMILIES[name].inputs])
def test_the_timestep_is_scaled_as_in_training(name: str) -> None:
    assert FAMILIES[name].inputs.scale == FAMILIES[name].conditioning.scale  # type: ignore[union-attr]


@pytest.mark.parametrize("name", FACTORED)
def test_all_linears_of_all_blocks_see_the_same_vectors(name: str) -> None:
    model = family_model(name)
    seen: list[torch.Tensor] = []
    for row in FAMILIES[name].stacks:
        for block in model.get_submodule(row.path):
            for linear in row.modulation:
                if conditioning.first_modulation and hasattr(
                    block.get_submodule(linear.rpartition(".")[0]), linear.rpartition(".")[2]
                ):
                    block.get_submodule(linear).register_forward_pre_hook(
                        lambda module, args: seen.append(args[0])
                    )
    answer(model)
    assert len(seen) > 2 and all(torch.equal(one, seen[0]) for one in seen)


@pytest.mark.parametrize("name", RECORDED)
def test_more_than_the_timestep_needs_recorded_vectors(name: str) -> None:
    with pytest.raises(BadInput) as error:
        conditioning.basis_of_module(family_model(name))
    assert "--conditioning" in error.value.do


def test_a_switch_of_the_config_adds_to_the_conditioning() -> None:
    row = FAMILIES["hunyuanimage"].conditioning
    assert row is not None and row.is_curve({"guidance_embeds": False})
    assert row.of({"guidance_embeds": True}) == ("t", "guidance")


def test_vectors_survive_their_file_and_other_files_are_refused(tmp_path: Path) -> None:
    vectors = torch.randn(5, 8)
    file = conditioning.save_vectors(vectors, tmp_path / "vectors.safetensors")
    assert torch.equal(conditioning.load_vectors(file), vectors)
    (tmp_path / "other").write_text("no tensors")
    with pytest.raises(BadInput):
        conditioning.load_vectors(tmp_path / "other")
    conditioning.save_vectors(vectors[:1], file)
    with pytest.raises(BadInput):
        conditioning.load_vectors(file)


# --- students -------------------------------------------------------------------------------------


def on_few_vectors(name: str) -> nn.Module:
    """A tiny model with the vectors of three calls, that of `answer` among them: at most five
    dimensions around their mean.
    """
    model = family_model(name)
    with conditioning.seen_vectors(model) as seen, torch.no_grad():
        for call in range(3):
            model(**family_inputs(name, seed=call, timestep=0.5 * 2**call))
    conditioning.use_vectors(model, torch.cat(seen))
    return model


@pytest.mark.parametrize("name", FACTORED)
def test_a_rank_as_high_as_the_vectors_reproduces_the_teacher(name: str) -> None:
    model = on_few_vectors(name)
    expected = answer(model)
    with surgery.applied(model, ranked(name, 5)):
        assert any(isinstance(module, LowRankLinear) for module in model.modules())
        assert relative(answer(model), expected) < 1e-5
    assert torch.equal(answer(model), expected), "the teacher was changed"


@pytest.mark.parametrize("name", FACTORED)
def test_a_lower_rank_is_the_teacher_with_truncated_linears(name: str) -> None:
    """Against weights truncated by numpy, put into the stock class."""
    model = ready(name)
    basis = conditioning.basis_of_module(model)
    with surgery.applied(model, ranked(name, 3)):
        made = answer(model)
        parameters = sum(p.numel() for p in model.parameters())
    assert parameters == plans.parameters(ranked(name, 3), models.describe_module(model))
    vectors = basis.vectors.double().numpy()
    shares = basis.shares.numpy()
    mean = np.average(vectors, axis=0, weights=shares)
    scaled = np.sqrt(shares)[:, None] * (vectors - mean)
    _, _, directions = np.linalg.svd(scaled, full_matrices=False)
    for row in FAMILIES[name].stacks:
        stack = model.get_submodule(row.path)
        for number, block in enumerate(stack):
            if number in row.pinned_in(len(stack)):
                continue
            for linear in row.modulation:
                truncate(block.get_submodule(linear), mean, directions)
    assert relative(made, answer(model)) < 1e-5


def truncate(linear: Any, mean: np.ndarray, directions: np.ndarray) -> None:
    weight = linear.weight.double().numpy()
    if linear.bias is None:
        rows = [mean / np.linalg.norm(mean), *directions[:2]]
        kept, _ = np.linalg.qr(np.array(rows).T)
        linear.weight.data = torch.tensor(weight @ kept @ kept.T).float()
        return
    projector = directions[:3].T @ directions[:3]
    offset = weight @ (mean - projector @ mean)
    linear.weight.data = torch.tensor(weight @ projector).float()
    linear.bias.data = (linear.bias.double() + torch.tensor(offset)).float()


MIXED = {
    0: {"modulation": Modulation(rank=4)},
    1: {"modulation": Modulation(rank=4), "stream": "single"},
    2: {"modulation": Modulation(rank=2), "gain": 2.0},
    3: {"modulation": Modulation(rank=4), "drop": ("text.output", "mlp")},
}
SPANS: dict[str, dict[int, dict[str, Any]]] = {
    "qwenimage": MIXED,
    "flux": {b: {"modulation": Modulation(rank=4)} for b in range(3)} | {1: MIXED[1]},
    "sd3": {b: {"modulation": Modulation(rank=4)} for b in (0, 1, 3)} | {2: MIXED[1]},
    "hunyuanimage": {0: MIXED[0], 1: MIXED[1], 2: MIXED[2]},
    "auraflow": {0: MIXED[0], 1: MIXED[1], 2: MIXED[2]},
    "cogview4": {0: MIXED[0], 2: MIXED[2]},
    "longcat": {0: MIXED[0], 2: MIXED[2]},
    "ovis": {0: MIXED[0], 2: MIXED[2]},
}


@pytest.mark.parametrize("name", FACTORED)
def test_memory_disk_and_stock_class_agree(name: str, tmp_path: Path) -> None:
    model = ready(name)
    folder = tmp_path / "teacher"
    model.save_pretrained(folder)  # type: ignore[operator]
    vectors = None
    if name in RECORDED:
        vectors = conditioning.save_vectors(recorded(name, model), tmp_path / "vectors.safetensors")
    plan = plan_of(name, SPANS[name], FAMILIES[name].stacks[0].path)
    result = build(folder, plan, tmp_path / "student", conditioning=vectors)
    student = models.load_transformer(tmp_path / "student")
    with surgery.applied(model, plan):
        made = answer(model)
        state = {key: value.clone() for key, value in model.state_dict().items()}
    assert {k: v.shape for k, v in student.state_dict().items()} == {
        k: v.shape for k, v in state.items()
    }
    for key, value in student.state_dict().items():
        assert torch.equal(value, state[key]), key
    assert torch.equal(answer(student), made)
    count = sum(p.numel() for p in student.parameters())
    described = models.describe(tmp_path / "student", "student")
    assert count == result["parameters"] == described.parameters
    assert count == plans.parameters(plan, models.describe(folder, "teacher"))
    build(folder, plan, tmp_path / "fat", conditioning=vectors, fat=True)
    fat = models.load_transformer(tmp_path / "fat")
    assert type(fat).__name__ == FAMILIES[name].transformer
    assert relative(answer(fat), made) < 1e-5


def test_the_folder_loads_without_this_package(tmp_path: Path) -> None:
    model = family_model("qwenimage")
    model.save_pretrained(tmp_path / "teacher")  # type: ignore[operator]
    build(tmp_path / "teacher", plan_of("qwenimage", MIXED), tmp_path / "student")
    code = (
        "import sys, torch\nfrom diffusers import AutoModel\n"
        "m = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)\n"
        "assert 'workbench' not in sys.modules\n"
        "print(sum(p.numel() for p in m.parameters()), m.config.modulation_rank)\n"
    )
    done = subprocess.run(
        [bare_environment(), "-c", code, str(tmp_path / "student")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    card = (tmp_path / "student" / "README.md").read_text()
    assert "modulation rank 4" in card and "not milliseconds" in card
    own = models.load_transformer(tmp_path / "student")
    assert done.stdout.split()[0] == str(sum(p.numel() for p in own.parameters()))


def test_a_merged_block_is_averaged_then_factored(tmp_path: Path) -> None:
    model = on_few_vectors("qwenimage")
    plan = plan_of("qwenimage", {})
    spans = plan.stacks[STACK]
    merged = spans[1].model_copy(update={"blocks": (1, 2), "init": "mean", "gain": 2.0})
    whole = plan.model_copy(update={"stacks": {STACK: [spans[0], merged, spans[3]]}})
    with surgery.applied(model, whole):
        expected = answer(model)
    small = merged.model_copy(update={"modulation": Modulation(rank=5)})
    factored = plan.model_copy(update={"stacks": {STACK: [spans[0], small, spans[3]]}})
    with surgery.applied(model, factored):
        assert relative(answer(model), expected) < 1e-5


def test_a_gain_scales_the_gates_of_the_factors() -> None:
    """Shift and scale stay, gates are scaled: as of the whole linear."""
    model = on_few_vectors("qwenimage")
    whole = plan_of("qwenimage", {2: {"gain": 3.0}})
    with surgery.applied(model, whole):
        expected = answer(model)
    both = plan_of("qwenimage", {2: {"gain": 3.0, "modulation": Modulation(rank=5)}})
    with surgery.applied(model, both):
        assert relative(answer(model), expected) < 1e-5


# --- with gain, 4 bits and DiffusionPipeline ------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in FACTORED if FAMILIES[name].stacks[0].gain])
def test_a_gain_folded_before_factoring_is_the_gain_folded_after(name: str) -> None:
    """Factors of two averaged blocks with gain 2 are those of the averaged block whose weights have
    the gain already; and the gain changes them.
    """
    model = on_few_vectors(name)
    row = FAMILIES[name].stacks[0]
    stack = model.get_submodule(row.path)
    first = free(name, row.path)[0]
    states = [stack[first + offset].state_dict() for offset in (0, 1)]
    basis = conditioning.basis_of_module(model)
    low = Span(blocks=(0, 1), init="mean", gain=2.0, modulation=Modulation(rank=3))
    at_once = student_block_state(lambda block: states[block], low, row, basis)
    merged = block_states.merged_state(states, "mean", 1.0, row)
    scaled = block_states.fold_gain(merged, row, 2.0)
    alone = Span(blocks=(0, 0), modulation=Modulation(rank=3))
    in_steps = student_block_state(lambda block: scaled, alone, row, basis)
    plain = student_block_state(lambda block: merged, alone, row, basis)
    assert at_once.keys() == in_steps.keys()
    for key, tensor in at_once.items():
        assert torch.allclose(tensor, in_steps[key], rtol=1e-5, atol=1e-6), key
    assert any(not torch.equal(at_once[key], plain[key]) for key in plain)


def test_4_bits_leave_the_factors_alone_and_round_the_rest() -> None:
    """Rounding a factored block is factoring a block whose other linears are rounded."""
    model = family_model("qwenimage").bfloat16()
    plan = ranked("qwenimage", 4)
    linears = FAMILIES["qwenimage"].stacks[0].modulation
    with surgery.applied(model, plan):
        blocks = list(model.get_submodule(STACK))
        before = [block.state_dict() for block in blocks]
        rounded = [int4.int4_state(block) for block in blocks]
    other = family_model("qwenimage").bfloat16()
    for block in other.get_submodule(STACK):
        state = int4.int4_state(block)
        block.load_state_dict(
            {k: v for k, v in state.items() if not inside(k, linears)}, strict=False
        )
    with surgery.applied(other, plan):
        factored_last = [block.state_dict() for block in other.get_submodule(STACK)]
    for number, state in enumerate(rounded):
        assert state.keys() == factored_last[number].keys()
        for key, tensor in state.items():
            assert tensor.dtype == torch.bfloat16
            assert torch.equal(tensor, factored_last[number][key]), key
            if inside(key, linears):
                assert torch.equal(tensor, before[number][key]), "a factor was rounded"
        changed = [key for key in state if not torch.equal(state[key], before[number][key])]
        assert "img_mlp.net.0.proj.weight" in changed


HUNYUAN_SWITCHES = [
    {"guidance_embeds": True},
    {"use_meanflow": True},
    {"guidance_embeds": True, "use_meanflow": True},
]


@pytest.mark.parametrize("switches", HUNYUAN_SWITCHES, ids=lambda one: "+".join(one))
def test_hunyuanimage_with_more_than_the_timestep_takes_recorded_vectors(
    switches: dict[str, bool], tmp_path: Path
) -> None:
    config = CONFIGS["hunyuanimage"] | switches
    model = HunyuanImageTransformer2DModel(**config)
    randomise(model, 0)
    model.requires_grad_(False).eval()
    with pytest.raises(BadInput) as error:
        conditioning.basis_of_module(model)
    assert "--conditioning" in error.value.do
    added = FAMILIES["hunyuanimage"].conditioning.of(config)[1:]  # type: ignore[union-attr]
    assert len(added) == len(switches) and all(word in error.value.found for word in added)

    def call(seed: int, timestep: float, more: float) -> torch.Tensor:
        arguments = family_inputs("hunyuanimage", seed=seed, timestep=timestep)
        if "guidance_embeds" in switches:
            arguments["guidance"] = torch.full((2,), more)
        if "use_meanflow" in switches:
            arguments["timestep_r"] = torch.full((2,), timestep * more / 4000)
        with torch.no_grad():
            return model(**arguments)[0]

    with conditioning.seen_vectors(model) as seen:
        expected = call(1, 400.0, 3000.0)
        call(1, 400.0, 1000.0)
        call(1, 900.0, 2000.0)
    vectors = torch.cat(seen)
    assert not torch.equal(seen[0], seen[1]), "it depends on more than the timestep"
    file = conditioning.save_vectors(vectors, tmp_path / "vectors.safetensors")
    model.save_pretrained(tmp_path / "teacher")
    plan = ranked("hunyuanimage", 3)
    with pytest.raises(BadInput):
        build(tmp_path / "teacher", plan, tmp_path / "refused")
    build(tmp_path / "teacher", plan, tmp_path / "student", conditioning=file)
    conditioning.use_vectors(model, vectors)
    with surgery.applied(model, plan):
        made = call(1, 400.0, 3000.0)
    assert relative(made, expected) < 1e-4, "three vectors, three directions"
    model = models.load_transformer(tmp_path / "student")  # what `call` calls
    assert torch.equal(call(1, 400.0, 3000.0), made)


# --- students of students -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def factored_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen-Image student with modulation of rank 4 in every block."""
    root = tmp_path_factory.mktemp("factored")
    family_model("qwenimage").save_pretrained(root / "teacher")  # type: ignore[operator]
    build(root / "teacher", ranked("qwenimage", 4), root / "student")
    return root / "student"


@pytest.mark.parametrize("modulation", [None, "keep", Modulation(rank=4)])
def test_a_student_of_a_student_has_its_factors(
    factored_folder: Path, tmp_path: Path, modulation: Any
) -> None:
    plan = plan_of("qwenimage", {b: {"modulation": modulation} for b in range(4)})
    build(factored_folder, plan, tmp_path / "second")
    before = models.load_transformer(factored_folder).state_dict()
    after = models.load_transformer(tmp_path / "second").state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_student_of_a_student_has_a_lower_rank_a_mean_and_parts_dropped(
    factored_folder: Path, tmp_path: Path
) -> None:
    spans = plan_of("qwenimage", {0: {"modulation": Modulation(rank=2)}}).stacks[STACK]
    mean = spans[1].model_copy(update={"blocks": (1, 2), "init": "mean"})
    last = spans[3].model_copy(update={"drop": ("text.output", "modulation")})
    plan = Plan(teacher="tiny", family="qwenimage", stacks={STACK: [spans[0], mean, last]})
    build(factored_folder, plan, tmp_path / "second")
    student = models.load_transformer(tmp_path / "second")
    assert student.config.modulation_rank == {f"{STACK}.{b}": r for b, r in enumerate((2, 4, 4))}
    teacher = models.load_transformer(factored_folder)
    with torch.no_grad(), surgery.applied(teacher, plan):
        assert torch.equal(answer(teacher), answer(student))
    # the mean of the products, not the product of the means
    blocks = models.load_transformer(factored_folder).transformer_blocks
    products = [b.img_mod[1].up.weight @ b.img_mod[1].down.weight for b in blocks[1:3]]
    made = student.transformer_blocks[1].img_mod[1]
    expected = sum(products) / 2
    assert torch.allclose(made.up.weight @ made.down.weight, expected, atol=1e-5)
    build(factored_folder, plan, tmp_path / "fat", fat=True)
    fat = models.load_transformer(tmp_path / "fat")
    assert type(fat).__name__ == "QwenImageTransformer2DModel"
    assert relative(answer(fat), answer(student)) < 1e-5


def test_a_higher_rank_than_the_teachers_is_refused(factored_folder: Path, tmp_path: Path) -> None:
    plan = plan_of("qwenimage", {0: {"modulation": Modulation(rank=5)}})
    with pytest.raises(BadInput) as error:
        build(factored_folder, plan, tmp_path / "second")
    assert error.value.expected == "a rank of at most 4"


def test_every_family_says_whether_it_can() -> None:
    for name in CONFIGS:
        teacher = models.describe_module(family_model(name))
        first = FAMILIES[name].stacks[0].path
        plan = plan_of(name, {1: {"modulation": Modulation(rank=2)}}, first)
        if name in FACTORED:
            plans.check(plan, teacher)
        else:
            with pytest.raises(BadInput):
                plans.check(plan, teacher)
            with pytest.raises(BadInput):
                plans.with_modulation(plan, teacher, 2)
