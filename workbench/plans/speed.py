"""Predicted time of a sampling step, from tensor layouts: multiply-adds per sample, by stack.

Counted: every weight matrix times the tokens that pass through it, and attention's two products.
In a dual-stream block image weights see image tokens and text weights text tokens; shared weights
see both; an AdaLN linear sees one vector per sample. Attention: 2 x queries x keys x width.

Not counted: norms, activations, rotary embeddings, what stands outside the stacks, and memory
traffic; SANA's linear attention counts as its matrices alone. The result is a share of the
teacher's work. That is its share of the time where a GPU is busy with large products; at a batch
of one and short sequences the saving is smaller.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..families import StackRow, inside
from ..records import Plan, Span, StackInfo, Teacher, numel
from .spans import family_of, identity
from .tokens import Tokens, tokens_of

Layout = dict[str, list[int]]  # tensor name inside a block -> shape


@dataclass(frozen=True)
class Lengths:
    """Tokens per sample that pass through a block's image weights, its text weights, and its
    attention. A single-stream block has no text weights: `image` counts all tokens.
    """

    image: int
    text: int
    keys: int


def lengths(layout: Layout, row: StackRow, tokens: Tokens) -> Lengths:
    """The sequence lengths inside a block of this layout."""
    image = tokens.image * tokens.frames
    keys = image + tokens.text
    if "cross" in row.parts:  # the text comes in by cross-attention
        keys = image
    if row.fitted(layout).kind == "dual":
        return Lengths(image, tokens.text, keys)
    return Lengths(keys, 0, keys)


def span_work(span: Span, stack: StackInfo, row: StackRow, tokens: Tokens) -> float:
    """Multiply-adds per sample of the student block that a span makes.

    Its modulation counts in full: at a batch of one, reading fewer of its weights saves no time
    that is seen.
    """
    layout = row.student_layout(stack.tensors(span.source[0]), span.stream, span.drop)
    length = lengths(layout, row, tokens)
    per_sample = modulation_modules(row)
    total = _attention_work(layout, row, length)
    for name, shape in layout.items():
        if len(shape) < 2:  # a bias or the weight of a norm
            continue
        if inside(name, per_sample):
            total += numel(shape)
        elif inside(name, row.text):
            total += length.text * numel(shape)
        else:
            total += length.image * numel(shape)
    return total


def modulation_modules(row: StackRow) -> tuple[str, ...]:
    """The modules that see one vector per sample: AdaLN linears, removable or not."""
    modules: list[str] = []
    for name, part in row.parts.items():
        if name.endswith("modulation"):
            modules += part.modules
    modules += [rows.tensor for rows in row.gain if rows.of != 1]  # gates of an AdaLN linear
    return tuple(modules)


def _attention_work(layout: Layout, row: StackRow, length: Lengths) -> float:
    """2 x queries x keys x width; a stream whose attention was dropped has no queries."""
    if any(len(shape) == 4 for shape in layout.values()):
        return 0.0  # convolutions beside attention: SANA, whose attention is linear
    matrices = [shape for shape in layout.values() if len(shape) == 2]
    if not matrices:
        return 0.0
    width = min(sorted(matrices, key=numel)[-1])  # of the MLP's first linear, (4 D, D)
    dropped = set(row.lacking(layout))
    queries = 0
    if "attn" not in dropped:
        queries += length.image
    if not dropped & {"text.attn", "text.output"}:
        queries += length.text
    return 2.0 * queries * length.keys * width


def work(plan: Plan, teacher: Teacher, tokens: Tokens | None = None) -> dict[str, float]:
    """Stack -> multiply-adds per sample and step of the student.

    tokens: sequence lengths; None: those at which the teacher is sampled by default.
    """
    family = family_of(teacher)
    sizes = tokens or tokens_of(teacher)
    out: dict[str, float] = {}
    for path, spans in plan.stacks.items():
        stack = teacher.stack(path)
        out[path] = sum(span_work(span, stack, family.stack(path), sizes) for span in spans)
    return out


def predicted_latency(plan: Plan, teacher: Teacher, tokens: Tokens | None = None) -> float:
    """Predicted share of the teacher's time per step; lower is faster. See the module's docstring
    for what is counted.
    """
    before = sum(work(identity(teacher), teacher, tokens).values())
    if not before:
        return 1.0
    return sum(work(plan, teacher, tokens).values()) / before
