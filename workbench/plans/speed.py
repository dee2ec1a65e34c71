"""How long a step takes, foretold from tensor layouts: multiply-adds per sample, stack by stack.

Counted: every weight matrix times the tokens that pass through it, and attention's two products. In
a dual-stream block image weights see image tokens and text weights text tokens; shared weights see
both; an AdaLN linear sees one vector per sample. Attention: 2 x queries x keys x width. Not
counted: norms, activations, rotary embeddings, what stands outside the stacks, and memory traffic;
SANA's linear attention counts as its matrices alone. So it is a share of the teacher's work, which
is its time where a GPU is busy with large products; at a batch of one and short sequences the
saving is smaller than foretold.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..families import StackRow, inside
from ..records import Plan, Span, StackInfo, Teacher, numel
from .spans import family_of, identity


@dataclass(frozen=True)
class Tokens:
    """Sequence lengths of one sample: 1024 x 1024 pixels, and a prompt of some 200 words, unless
    said otherwise.
    """

    image: int = 4096
    text: int = 256


def span_work(span: Span, stack: StackInfo, row: StackRow, tokens: Tokens) -> float:
    """Multiply-adds per sample of the student block that this span makes."""
    layout = row.student_layout(stack.tensors(span.source[0]), span.stream, span.drop)
    dual = row.fitted(layout).kind == "dual"
    vectors = tuple(
        m for name, part in row.parts.items() if name.endswith("modulation") for m in part.modules
    )
    # gates of an AdaLN linear that is no part
    vectors += tuple(rows.tensor for rows in row.gain if rows.of != 1)
    # the text comes in by cross-attention: one stream of image tokens
    crossed = "cross" in row.parts
    both = tokens.image + (0 if crossed else tokens.text)
    total = 0.0
    for name, shape in layout.items():
        if len(shape) > 1:
            seen = (
                1
                if inside(name, vectors)
                else (tokens.text if inside(name, row.text) else tokens.image)
                if dual
                else both
            )
            total += seen * numel(shape)
    return total + _attention(layout, row, tokens, dual, both)


def _attention(
    layout: dict[str, list[int]], row: StackRow, tokens: Tokens, dual: bool, both: int
) -> float:
    """2 x queries x keys x width; no queries where attention is gone."""
    matrices = sorted((shape for shape in layout.values() if len(shape) == 2), key=numel)
    if not matrices or any(len(shape) == 4 for shape in layout.values()):
        return 0.0  # convolutions beside attention: SANA, whose attention is linear
    width, gone = min(matrices[-1]), set(row.lacking(layout))
    if not dual:
        return 0.0 if "attn" in gone else 2.0 * both * both * width
    queries = (0 if "attn" in gone else tokens.image) + (
        0 if {"text.attn", "text.output"} & gone else tokens.text
    )
    return 2.0 * queries * both * width


def work(plan: Plan, teacher: Teacher, tokens: Tokens | None = None) -> dict[str, float]:
    """Stack -> multiply-adds per sample and step of the student."""
    family, sizes = family_of(teacher), tokens or Tokens()
    return {
        path: sum(span_work(span, teacher.stack(path), family.stack(path), sizes) for span in spans)
        for path, spans in plan.stacks.items()
    }


def predicted_latency(plan: Plan, teacher: Teacher, tokens: Tokens | None = None) -> float:
    """Share of the teacher's time per step that the student is foretold to take (see the module);
    lower is faster.
    """
    before = sum(work(identity(teacher), teacher, tokens).values())
    return sum(work(plan, teacher, tokens).values()) / before if before else 1.0


def predicted_speedup(plan: Plan, teacher: Teacher, tokens: Tokens | None = None) -> float:
    """The teacher's time per step over the student's; higher is faster."""
    return 1 / max(predicted_latency(plan, teacher, tokens), 1e-9)
