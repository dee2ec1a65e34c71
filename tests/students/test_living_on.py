"""What works on a stock transformer works on one with single-stream blocks and removed parts."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FirstBlockCacheConfig
from diffusers.hooks import HookRegistry, ModelHook, TaylorSeerCacheConfig
from torch import nn
from torch.utils.checkpoint import checkpoint

from tests.students.helpers import SINGLE, answer, free, inputs_of, plan_of, relative
from tests.tiny_families import family_model
from workbench import models, surgery
from workbench.families import FAMILIES
from workbench.models import blocks

EVERY = pytest.mark.parametrize("name", SINGLE)
# the models that diffusers caches at all
CACHED = pytest.mark.parametrize("name", ["qwenimage", "flux", "hunyuanimage"])


def student_of(name: str) -> Any:
    """Dual and single blocks in turn, one of each without a part."""
    changed: dict[int, dict[str, Any]] = {b: {"stream": "single"} for b in free(name)[1::2]}
    changed[free(name)[0]] = {"drop": ("text.mlp",)}
    return surgery.student_transformer(family_model(name), plan_of(name, changed))


def singles(student: nn.Module) -> list[nn.Module]:
    return [block for block in student.modules() if isinstance(block, type(student).single_class)]


# --- the workbench's own --------------------------------------------------------------------------


@EVERY
def test_capture_bypass_and_inject(name: str) -> None:
    student, path = student_of(name), FAMILIES[name].dual_stack
    place = (
        path,
        next(i for i, block in enumerate(student.get_submodule(path)) if block in singles(student)),
    )
    whole = answer(student)
    with blocks.capture(student) as held:
        assert torch.equal(answer(student), whole)
    assert held.order == [block.place for block in blocks.all_blocks(student)]
    assert set(held.outputs[place]) == {"hidden_states", "encoder_hidden_states"}
    shapes = {stream: value.shape for stream, value in held.inputs[place].items()}
    assert shapes == {stream: value.shape for stream, value in held.outputs[place].items()}, (
        "streams in the stock order"
    )
    removed = copy.deepcopy(student)
    stack = removed.get_submodule(path)
    removed.set_submodule(
        path, nn.ModuleList(block for index, block in enumerate(stack) if index != place[1])
    )
    with blocks.bypass(student, [place]):
        assert torch.equal(answer(student), answer(removed))
    with blocks.inject(student, {place: held.inputs[place]}):
        assert torch.equal(answer(student), whole)
    with blocks.inject(student, {place: {k: v * 2 for k, v in held.inputs[place].items()}}):
        assert not torch.equal(answer(student), whole)


@EVERY
def test_every_parameter_of_a_single_block_learns(name: str) -> None:
    student = student_of(name).requires_grad_(True)
    models.prediction(student(**inputs_of(name)), student).square().mean().backward()
    for block in singles(student):
        assert all(
            p.grad is not None and p.grad.abs().sum() > 0
            for key, p in block.named_parameters()
            if "to_k.bias" not in key
        )


# --- diffusers ------------------------------------------------------------------------------------


@EVERY
def test_gradient_checkpointing(name: str) -> None:
    student = student_of(name).requires_grad_(True)
    grads = []
    for on in (False, True):
        student.zero_grad()
        # HunyuanImage's own forward passes keywords, which diffusers' default function does not
        # take
        if on:
            student.enable_gradient_checkpointing(
                lambda block, *args, **kwargs: checkpoint(
                    block, *args, use_reentrant=False, **kwargs
                )
            )
        models.prediction(student(**inputs_of(name)), student).square().mean().backward()
        grads.append([p.grad.clone() for p in student.parameters() if p.grad is not None])
    assert len(grads[0]) == len(grads[1]) and all(
        torch.allclose(a, b, atol=1e-6) for a, b in zip(*grads, strict=True)
    )


@EVERY
def test_attention_backends(name: str) -> None:
    student = student_of(name)
    before = answer(student)
    student.set_attention_backend("_native_math")
    try:
        assert all(
            block.attn.processor._attention_backend == "_native_math" for block in singles(student)
        )
        assert relative(answer(student), before) < 1e-5
        student.set_attention_backend("native")
        assert torch.equal(answer(student), before)
    finally:
        student.reset_attention_backend()
    assert all(block.attn.processor._attention_backend is None for block in singles(student))


@EVERY
def test_group_offload(name: str) -> None:
    student = student_of(name)
    before = answer(student)
    student.enable_group_offload(
        torch.device("cpu"), torch.device("cpu"), offload_type="block_level", num_blocks_per_group=1
    )
    assert torch.equal(answer(student), before)


@EVERY
def test_model_hooks_come_and_go(name: str) -> None:
    student = student_of(name)
    before, seen = answer(student), []

    class Watch(ModelHook):
        def post_forward(self, module: nn.Module, output: Any) -> Any:
            seen.append(module)
            return output

    for block in singles(student):
        HookRegistry.check_if_exists_or_initialize(block).register_hook(Watch(), "watch")
    assert torch.equal(answer(student), before) and seen == singles(student)
    for block in singles(student):
        HookRegistry.check_if_exists_or_initialize(block).remove_hook("watch")
    assert torch.equal(answer(student), before) and len(seen) == len(singles(student))


@EVERY
def test_layerwise_casting(name: str) -> None:
    student = student_of(name)
    before = answer(student)
    student.enable_layerwise_casting(storage_dtype=torch.bfloat16, compute_dtype=torch.float32)
    assert any(p.dtype == torch.bfloat16 for block in singles(student) for p in block.parameters())
    assert relative(answer(student), before) < 0.05


@CACHED
def test_first_block_cache(name: str) -> None:
    student = student_of(name)
    before, calls = answer(student), []
    singles(student)[-1].attn.to_q.register_forward_pre_hook(lambda *_: calls.append(1))
    student.enable_cache(FirstBlockCacheConfig(threshold=0.5))
    with student.cache_context("cond"):
        assert torch.equal(answer(student), before) and len(calls) == 1
        assert relative(answer(student), before) < 1e-4 and len(calls) == 1, (
            "the second call is told from the first block"
        )
    student.disable_cache()
    assert torch.equal(answer(student), before)


@CACHED
def test_first_block_cache_behind_a_single_block(name: str) -> None:
    """The first block may be the single-stream one: the registry knows which of its streams is
    which.
    """
    student = surgery.student_transformer(
        family_model(name), plan_of(name, {0: {"stream": "single"}})
    )
    before = answer(student)
    student.enable_cache(FirstBlockCacheConfig(threshold=0.5))
    with student.cache_context("cond"):
        assert torch.equal(answer(student), before) and relative(answer(student), before) < 1e-4


@CACHED
def test_taylorseer_cache(name: str) -> None:
    student = student_of(name)
    before = answer(student)
    student.enable_cache(
        TaylorSeerCacheConfig(
            cache_interval=2, disable_cache_before_step=1, taylor_factors_dtype=torch.float32
        )
    )
    with student.cache_context("cond"):
        assert torch.equal(answer(student), before)
        assert relative(answer(student), before) < 1e-4


@EVERY
def test_lora_is_added_trained_saved_and_loaded(name: str, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    student = student_of(name)
    before = answer(student)
    student.add_adapter(
        peft.LoraConfig(
            r=2,
            lora_alpha=2,
            target_modules=["to_q", "to_k", "to_v", "to_out.0"],
            init_lora_weights=False,
        )
    )
    adapted = answer(student)
    assert relative(adapted, before) > 1e-4
    models.prediction(student(**inputs_of(name)), student).square().mean().backward()
    trained = {key: p for key, p in student.named_parameters() if p.requires_grad}
    assert trained and all(
        "lora" in key and p.grad is not None for key, p in trained.items() if "attn2" not in key
    )
    assert any(
        id(p) in {id(q) for q in trained.values()}
        for block in singles(student)
        for p in block.parameters()
    )
    student.save_lora_adapter(tmp_path)
    other = student_of(name)
    other.load_lora_adapter(tmp_path, prefix=None, weight_name="pytorch_lora_weights.safetensors")
    assert relative(answer(other), adapted) < 1e-6
    other.disable_lora()
    assert relative(answer(other), before) < 1e-6


def test_lora_through_the_pipeline(student_folder: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    from diffusers.loaders.lora_pipeline import QwenImageLoraLoaderMixin
    from diffusers.utils import convert_state_dict_to_diffusers

    pipe = models.load_pipeline(student_folder)
    pipe.transformer.add_adapter(
        peft.LoraConfig(r=2, target_modules=["to_q", "to_k"], init_lora_weights=False)
    )
    state = convert_state_dict_to_diffusers(peft.get_peft_model_state_dict(pipe.transformer))
    QwenImageLoraLoaderMixin.save_lora_weights(tmp_path, transformer_lora_layers=state)
    other = models.load_pipeline(student_folder)
    other.load_lora_weights(tmp_path)
    loaded = peft.get_peft_model_state_dict(other.transformer, adapter_name="default_0")
    assert len(loaded) == len(state) and any("transformer_blocks.2.attn" in key for key in loaded)


# --- memory ---------------------------------------------------------------------------------------


@EVERY
def test_a_preview_copies_nothing(name: str) -> None:
    model = family_model(name)
    held = {p.untyped_storage().data_ptr() for p in model.parameters()}
    plan = plan_of(name, {free(name)[0]: {"stream": "single"}, free(name)[-1]: {"drop": ("mlp",)}})
    with surgery.applied(model, plan):
        assert {p.untyped_storage().data_ptr() for p in model.parameters()} < held
        own = list(model.get_submodule(FAMILIES[name].dual_stack))
    with surgery.applied(model, plan):
        assert list(model.get_submodule(FAMILIES[name].dual_stack)) == own, "made once"
    with pytest.raises(ZeroDivisionError), surgery.applied(model, plan):
        raise ZeroDivisionError
    assert type(model) is type(family_model(name)) and torch.equal(
        answer(model), answer(family_model(name))
    )
