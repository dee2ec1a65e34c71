"""A single-stream block's time beside that of the dual block it equals: `python
benchmarks/streams.py --json`.

Every family whose blocks can become single: one dual block of random float32 weights, its text
weights tied to the image's, and the single-stream block made of it, on the same tokens. They run in
turn (dual, single, single, dual, ..); `ratio` is the fastest round of the single block over the
fastest of the dual (other work on the machine only ever adds), at the top level that of the slowest
family. At most 1: no slower. Seconds are CPU seconds of this process, on a GPU (--device cuda,
bfloat16) seconds of its clock. `difference`: largest relative difference of the two blocks'
answers. `preview`: CPU seconds to re-wire a loaded model of Qwen-Image's 60 blocks as a student (15
dropped, 30 single, 15 without a part), the first time, and the median of the next ones; the blocks'
width does not matter, nothing of them is computed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from diffusers.models.attention import JointTransformerBlock
from diffusers.models.transformers.auraflow_transformer_2d import AuraFlowJointTransformerBlock
from diffusers.models.transformers.transformer_flux import FluxTransformerBlock
from diffusers.models.transformers.transformer_hunyuanimage import HunyuanImageTransformerBlock
from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformerBlock
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from workbench import students, surgery
from workbench.families import FAMILIES
from workbench.records import Plan, Span
from workbench.students import weights_from_span

# width of a head, as published
HEAD = {"qwenimage": 128, "flux": 128, "sd3": 64, "hunyuanimage": 128, "auraflow": 256}
BLOCKS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "qwenimage": lambda dim, heads, head: QwenImageTransformerBlock(dim, heads, head),
    "flux": lambda dim, heads, head: FluxTransformerBlock(dim, heads, head),
    "sd3": lambda dim, heads, head: JointTransformerBlock(dim, heads, head, qk_norm="rms_norm"),
    "hunyuanimage": lambda dim, heads, head: HunyuanImageTransformerBlock(heads, head, 4.0),
    "auraflow": lambda dim, heads, head: AuraFlowJointTransformerBlock(dim, heads, head),
}


def rotary(name: str, image: int, text: int, head: int) -> dict[str, Any]:
    """Rotary embeddings of random angles, in the form the family's blocks take them."""

    def angles(count: int, width: int) -> torch.Tensor:
        return torch.rand(count, width) * 6

    if name == "qwenimage":
        freqs = tuple(
            torch.polar(torch.ones(n, head // 2), angles(n, head // 2)) for n in (image, text)
        )
        return {"image_rotary_emb": freqs, "encoder_hidden_states_mask": None}
    if name in ("flux", "hunyuanimage"):
        turn = angles(image + (text if name == "flux" else 0), head // 2).repeat_interleave(2, 1)
        return {"image_rotary_emb": (turn.cos(), turn.sin())}
    return {}


def made(
    name: str, width: int, image: int, text: int
) -> tuple[nn.Module, nn.Module, dict[str, Any]]:
    """The tied dual block, the single one over the same weights, and a call's arguments."""
    torch.manual_seed(0)
    head, row = HEAD[name], FAMILIES[name].stack(FAMILIES[name].dual_stack)
    dual = BLOCKS[name](width, width // head, head).eval().requires_grad_(False)
    state = dual.state_dict()
    dual.load_state_dict(
        {
            key: state[weights_from_span.tied_name(key, row)][: len(tensor)].clone()
            for key, tensor in state.items()
        }
    )
    call = {
        "hidden_states": torch.randn(1, image, width),
        "encoder_hidden_states": torch.randn(1, text, width),
        "temb": torch.randn(1, width),
        **rotary(name, image, text, head),
    }
    return dual, students.student_block(dual, name, row, "single", ()), call


def placed(call: dict[str, Any], device: str, dtype: torch.dtype) -> dict[str, Any]:
    def one(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(item.to(device) for item in value)  # rotary embeddings stay in float32
        return value.to(device, dtype) if isinstance(value, torch.Tensor) else value

    return {key: one(value) for key, value in call.items()}


def seconds(block: nn.Module, call: dict[str, Any], device: str, calls: int) -> float:
    if device == "cpu":
        began = time.process_time()
        for _ in range(calls):
            block(**call)
        return (time.process_time() - began) / calls
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    begin.record()
    for _ in range(calls):
        block(**call)
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1000 / calls


@torch.no_grad()
def measured(name: str, args: argparse.Namespace) -> dict[str, float]:
    device, dtype = args.device, torch.float32 if args.device == "cpu" else torch.bfloat16
    dual, single, call = made(name, args.width, args.image, args.text)
    dual, single, call = (
        dual.to(device, dtype),
        single.to(device, dtype),
        placed(call, device, dtype),
    )
    difference = max(
        float((a - b).abs().max() / b.abs().max())
        for a, b in zip(single(**call), dual(**call), strict=True)
    )
    times: dict[str, list[float]] = {"dual": [], "single": []}
    for number in range(args.rounds):
        pair = [("dual", dual), ("single", single)]
        for which, block in pair if number % 2 == 0 else reversed(pair):
            times[which].append(seconds(block, call, device, args.calls))
    return {
        "ratio": min(times["single"]) / min(times["dual"]),
        "dual_seconds": min(times["dual"]),
        "single_seconds": min(times["single"]),
        "difference": difference,
    }


def preview() -> dict[str, float]:
    """Seconds in surgery.applied, entering alone: nothing is averaged."""
    import diffusers

    model = diffusers.QwenImageTransformer2DModel(
        num_attention_heads=1,
        attention_head_dim=16,
        joint_attention_dim=8,
        axes_dims_rope=(4, 6, 6),
    )
    spans = [
        Span(blocks=(0, 15)),
        *(Span(blocks=(b, b), stream="single") for b in range(16, 46)),
        *(Span(blocks=(b, b), drop=("text.mlp",)) for b in range(46, 60)),
    ]
    plan = Plan(teacher="-", family="qwenimage", stacks={"transformer_blocks": spans})
    times = []
    for _ in range(6):
        began = time.process_time()
        with surgery.applied(model, plan):
            times.append(time.process_time() - began)
    return {"first_seconds": times[0], "seconds": median(times[1:])}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--families", default=",".join(BLOCKS), help="of " + ", ".join(BLOCKS))
    parser.add_argument("--width", type=int, default=1536, help="SD3.5-Medium's; a multiple of 256")
    parser.add_argument(
        "--image",
        type=int,
        default=1024,
        help="image tokens: 512 pixels square at 16 pixels a token",
    )
    parser.add_argument("--text", type=int, default=256, help="text tokens")
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--calls", type=int, default=1, help="calls timed together in a round")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = {}
    for name in args.families.split(","):
        found[name] = measured(name, args)
        print(
            f"{name:13s} single/dual {found[name]['ratio']:.3f}  difference "
            f"{found[name]['difference']:.1e}",
            file=sys.stderr,
        )
    result = {
        "ratio": max(each["ratio"] for each in found.values()),
        "families": found,
        "width": args.width,
        "image_tokens": args.image,
        "text_tokens": args.text,
        "device": args.device,
        "preview": preview(),
    }
    print(
        f"preview {1000 * result['preview']['first_seconds']:.0f} ms, then "
        f"{1000 * result['preview']['seconds']:.0f} ms",
        file=sys.stderr,
    )
    if args.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
