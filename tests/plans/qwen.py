"""A Qwen-Image teacher, maps and plans of it, as records: no weights, no torch."""

from __future__ import annotations

from workbench.records import Plan, Row, SensitivityMap, Span, StackInfo, Teacher

D = 3072


def qwen_block(d: int = D) -> dict[str, list[int]]:
    """Tensor shapes of a Qwen-Image block of width d, written down independently of diffusers."""
    linears = {"img_mod.1": (6 * d, d), "txt_mod.1": (6 * d, d)}
    for name in (
        "to_q",
        "to_k",
        "to_v",
        "add_q_proj",
        "add_k_proj",
        "add_v_proj",
        "to_out.0",
        "to_add_out",
    ):
        linears[f"attn.{name}"] = (d, d)
    for stream in ("img_mlp", "txt_mlp"):
        linears[f"{stream}.net.0.proj"] = (4 * d, d)
        linears[f"{stream}.net.2"] = (d, 4 * d)
    shapes = {
        f"attn.{name}.weight": [128]
        for name in ("norm_q", "norm_k", "norm_added_q", "norm_added_k")
    }
    for name, (rows, columns) in linears.items():
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = [rows, columns], [rows]
    return shapes


def teacher(depth: int = 60, d: int = D, outside: int = 40_523_328) -> Teacher:
    stack = StackInfo(
        path="transformer_blocks", kind="dual", layouts=[qwen_block(d)], layout_of=[0] * depth
    )
    return Teacher(
        name="qwen",
        family="qwenimage",
        class_name="QwenImageTransformer2DModel",
        stacks=[stack],
        outside=outside,
    )


def sensitivity(
    depth: int, scores=None, edit: str = "drop", times=(900.0, 100.0)
) -> SensitivityMap:
    scores = scores or [1.0] * depth
    rows = [
        Row(stack="transformer_blocks", block=b, edit=edit, timestep=t, score=scores[b])
        for b in range(depth)
        for t in times
    ]
    return SensitivityMap(teacher="qwen", fingerprint="", family="qwenimage", rows=rows)


def plan(spans, family: str = "qwenimage") -> Plan:
    return Plan(
        teacher="qwen",
        family=family,
        stacks={"transformer_blocks": [Span.model_validate(s) for s in spans]},
    )
