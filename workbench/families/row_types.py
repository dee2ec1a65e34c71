"""The types of the families table: what a row says about a transformer class. No torch here.

Names of tensors are relative to the block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from ..records import BadInput
from .conditioning import Conditioning
from .inputs import Inputs
from .layouts import Fit, Layout, Part, Rows, factored, inside, left, linear_shape, rank_of


@dataclass(frozen=True)
class StackRow:
    """One ModuleList of blocks.

    inputs, returns: the streams in the block's signature and in its return order; a block that
    returns one tensor has one name. kind: dual (text and image have weights of their own) or
    single. tie: text module -> the image module whose weights it gets when a dual block becomes
    single; where the image's tensor is longer (SD3.5's dual attention), its leading rows are meant.
    gain: what scales the residual branches, so that a gain can be folded into it. modulation: the
    AdaLN linears, from the conditioning vector to shift, scale and gate.
    """

    path: str
    depth_key: str
    kind: str  # dual | single
    inputs: tuple[str, ...]
    returns: tuple[str, ...]
    parts: Mapping[str, Part]
    tie: Mapping[str, str] = field(default_factory=dict)
    gain: tuple[Rows, ...] = ()
    modulation: tuple[str, ...] = ()
    pinned: tuple[int, ...] = ()  # blocks that must stay as they are; negative counts from the end
    per_index: tuple[str, ...] = ()  # config keys that list block numbers
    # layout -> the row fitted to it: a preview fits the same few layouts for every block
    _fitted: dict[object, StackRow] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def text(self) -> tuple[str, ...]:
        """The modules that only the text stream uses: they go when a dual block becomes single."""
        return tuple(self.tie)

    def pinned_in(self, depth: int) -> frozenset[int]:
        """Numbers of the pinned blocks in a stack of this depth."""
        return frozenset(p % depth for p in self.pinned)

    @cached_property
    def single(self) -> StackRow:
        """The row of a block of this stack that was made single: no text modules, and all of the
        attention belongs to the one stream.
        """
        parts = {
            name: replace(part, modules=whole_attention(part.modules))
            for name, part in self.parts.items()
            if not name.startswith("text.")
        }
        gain = tuple(rows for rows in self.gain if not inside(rows.tensor, self.text))
        linears = tuple(linear for linear in self.modulation if not inside(linear, self.text))
        return replace(self, kind="single", parts=parts, tie={}, gain=gain, modulation=linears)

    def fitted(self, layout: Layout) -> StackRow:
        """The row of a block of this layout: every `of` known, parts that the block lacks left out.

        A student's block shows by its tensors what was done to it: one without text modules is
        single, one without a part lacks the part's modules, and linears that lost rows are
        counted as they are.
        """
        key = tuple((name, *shape) for name, shape in layout.items())
        if key not in self._fitted:
            self._fitted[key] = self._fit(layout)
        return self._fitted[key]

    def _fit(self, layout: Layout) -> StackRow:
        row = self
        if self.kind == "dual" and not any(inside(name, self.text) for name in layout):
            row = self.single
        removed = [part for part in row.parts.values() if part.is_removed_from(layout)]
        fit = Fit(layout, tuple(rows for part in removed for rows in part.rows))
        parts = {
            name: replace(part, rows=fit.all(part.rows), gates=fit.all(part.gates))
            for name, part in row.parts.items()
            if part not in removed
        }
        return replace(row, parts=parts, gain=fit.all(row.gain))

    def lacking(self, layout: Layout) -> tuple[str, ...]:
        """Parts that a teacher's block of this layout lacks: the teacher is a student."""
        fitted = self.fitted(layout)
        row = self if fitted.kind == self.kind else self.single
        return tuple(name for name in row.parts if name not in fitted.parts)

    def modulation_in(self, layout: Layout) -> tuple[str, ...]:
        """The modulation linears that a block of this layout has."""
        return tuple(
            linear for linear in self.modulation if linear_shape(layout, linear) is not None
        )

    def modulation_rank(self, layout: Layout) -> int | None:
        """The rank of the modulation of a block of this layout; None where it is in full."""
        ranks = [rank_of(layout, linear) for linear in self.modulation_in(layout)]
        return ranks[0] if ranks else None

    def student_layout(
        self,
        layout: Layout,
        stream: str | None,
        drop: Sequence[str],
        rank: int | None = None,
    ) -> dict[str, list[int]]:
        """Tensor name -> shape of the student block that a teacher block of this layout becomes.

        Text modules go with stream single, the modules of dropped parts go, and linears that they
        share with others lose their rows or columns. rank: of the modulation; None leaves it as in
        the teacher.
        """
        if rank is not None:
            layout = factored(layout, self.modulation, rank)
        if stream == "single" and self.kind == "dual":
            drop = (*drop, *self.lacking(layout))
            layout = {name: shape for name, shape in layout.items() if not inside(name, self.text)}
        parts = [part for name, part in self.fitted(layout).parts.items() if name in drop]
        modules = tuple(module for part in parts for module in part.modules)
        # two parts may share rows
        rows = tuple(dict.fromkeys(rows for part in parts for rows in part.rows))
        return {
            name: left(name, shape, rows)
            for name, shape in layout.items()
            if not inside(name, modules)
        }


def whole_attention(modules: Sequence[str]) -> tuple[str, ...]:
    """Modules with those inside `attn` replaced by `attn` itself, each once."""
    merged = ["attn" if inside(module, ("attn",)) else module for module in modules]
    return tuple(dict.fromkeys(merged))


@dataclass(frozen=True)
class FewSteps:
    """A kind of checkpoint that is sampled in a few steps, and how it is recognised.

    steps, guidance: as its authors sample it. config: values in the transformer's config or in
    model_index.json. name: a word in the model's name, where no config shows it. about: who says
    so, in words.
    """

    steps: int
    guidance: float
    about: str
    config: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""

    def describes(self, config: Mapping[str, Any], name: str) -> bool:
        """Whether a model with this config (its index's keys too) and name is of the kind."""
        if self.name and self.name not in name.lower():
            return False
        return all(key in config and config[key] == value for key, value in self.config.items())


@dataclass(frozen=True)
class Family:
    """One transformer class, how its pipeline is called and how it is trained.

    guidance: the pipeline's argument for the guidance scale; None where the workbench does not
    drive the sampler (recorded inputs serve instead). negative: guidance needs a negative prompt
    (classifier-free), else the model was distilled to take the scale itself. batched: the order of
    the branches where the pipeline runs both in one call. prompt: the pipeline's argument that
    takes the prompts; class_labels where they are classes. few_steps: checkpoints of the class that
    are sampled in a few steps. side: of pictures in pixels, where neither the pipeline's signature
    nor a config has a size.

    For training: inputs (None: cannot be trained) and encoder ("module:function" from a pipeline
    and pictures to latents; empty: trained on prompts only). single_block: "module:class" of
    single-stream blocks, called with a dual-stream block; empty: no block can become single.

    conditioning: what the vector depends on that the blocks' modulation linears see; None where no
    block has linears of its own, or none worth factoring.
    """

    name: str
    transformer: str  # name of the class
    pipeline: str
    stacks: tuple[StackRow, ...]  # in execution order
    library: str = "diffusers"  # the module that has the class
    guidance: str | None = None
    negative: bool = True
    off: float = 1.0  # the guidance that means none
    batched: tuple[str, ...] = ()
    prompt: str = "prompt"
    arguments: Mapping[str, Any] = field(default_factory=dict)  # passed to every pipeline call
    few_steps: tuple[FewSteps, ...] = ()
    side: int = 1024
    variance: bool = False  # the output may carry as many variance channels behind the prediction
    # side in pixels of the square that one image token covers: the VAE's stride times the patch
    token_pixels: int = 16
    frames: int = 1  # latent frames of a video, as the pipeline samples one by default
    inputs: Inputs | None = None
    encoder: str = ""
    single_block: str = ""
    conditioning: Conditioning | None = None

    def stack(self, path: str) -> StackRow:
        """The row of a stack. Raises BadInput for a path that the family does not have."""
        for row in self.stacks:
            if row.path == path:
                return row
        raise BadInput(
            f"stack {path!r} is not in family {self.name}",
            "one of " + ", ".join(s.path for s in self.stacks),
            "rename it",
        )

    @property
    def is_class_conditional(self) -> bool:
        """Whether its prompts are classes, by number or label."""
        return self.prompt == "class_labels"

    @property
    def dual_stack(self) -> str:
        """The stack whose blocks can become single-stream; empty where none can."""
        if self.single_block:
            for row in self.stacks:
                if row.kind == "dual":
                    return row.path
        return ""

    def can_single(self, path: str) -> bool:
        """Whether the dual-stream blocks of this stack can become single-stream."""
        return path != "" and path == self.dual_stack
