"""The families table: what a diffusers transformer class is made of, as data (DESIGN section 3). No torch here.

A new family is one row. Names of tensors are relative to the block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .records import BadInput


@dataclass(frozen=True)
class Rows:
    """Some rows of a tensor: chunk numbers out of `of` equal chunks along dimension 0."""

    tensor: str  # module path inside the block, e.g. "txt_mod.1"
    chunks: tuple[int, ...]
    of: int


@dataclass(frozen=True)
class Part:
    """A removable piece of a block: modules that go whole, and rows of shared linears that go with them."""

    modules: tuple[str, ...]
    rows: tuple[Rows, ...] = ()
    last_only: bool = False  # exists only in the last block of the stack


@dataclass(frozen=True)
class StackRow:
    """One ModuleList.

    inputs/returns name the streams in the block's signature and in its return order; a block that returns one
    tensor has one name. `text` lists the modules that only the text stream uses: they go when a dual block becomes
    single. `gain` lists the rows that scale the residual branches (DESIGN section 2, gain).
    """

    path: str
    depth_key: str
    kind: str  # dual | single
    inputs: tuple[str, ...]
    returns: tuple[str, ...]
    parts: Mapping[str, Part]
    text: tuple[str, ...] = ()
    gain: tuple[Rows, ...] = ()
    pinned: tuple[int, ...] = ()  # blocks that must stay as they are; negative counts from the end
    per_index: tuple[str, ...] = ()  # config keys that list block numbers


@dataclass(frozen=True)
class Family:
    name: str
    transformer: str  # diffusers class name
    pipeline: str
    stacks: tuple[StackRow, ...]
    guidance: str = "true_cfg_scale"  # the pipeline's argument for classifier-free guidance
    negative: bool = True  # whether guidance needs a negative prompt
    config: Mapping[str, object] = field(default_factory=dict)

    def stack(self, path: str) -> StackRow:
        for row in self.stacks:
            if row.path == path:
                return row
        raise BadInput(f"stack {path!r} is not in family {self.name}", "one of " + ", ".join(s.path for s in self.stacks),
                       "rename it")


QWEN_PARTS = {
    "attn": Part(("attn.to_q", "attn.norm_q", "attn.to_out")),
    "mlp": Part(("img_mlp",)),
    "modulation": Part(("img_mod",)),
    "text.attn": Part(("attn.add_q_proj", "attn.norm_added_q", "attn.to_add_out")),
    "text.mlp": Part(("txt_mlp",)),
    "text.modulation": Part(("txt_mod",)),
    # In the last dual block the text stream's output is discarded: only its keys and values are read.
    "text.output": Part(("attn.add_q_proj", "attn.norm_added_q", "attn.to_add_out", "txt_mlp"),
                        (Rows("txt_mod.1", (2, 3, 4, 5), 6),), last_only=True),
}

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(
            name="qwenimage",
            transformer="QwenImageTransformer2DModel",
            pipeline="QwenImagePipeline",
            stacks=(
                StackRow(
                    path="transformer_blocks",
                    depth_key="num_layers",
                    kind="dual",
                    inputs=("hidden_states", "encoder_hidden_states"),
                    returns=("encoder_hidden_states", "hidden_states"),
                    parts=QWEN_PARTS,
                    text=("txt_mod", "txt_mlp", "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj",
                          "attn.norm_added_q", "attn.norm_added_k", "attn.to_add_out"),
                    gain=(Rows("img_mod.1", (2, 5), 6), Rows("txt_mod.1", (2, 5), 6)),
                ),
            ),
        ),
    )
}


def by_class(class_name: str) -> Family:
    """The family of a diffusers transformer class.

    Raises BadInput for a class the table lacks, and says how to add it.
    """
    for family in FAMILIES.values():
        if family.transformer == class_name:
            return family
    known = ", ".join(sorted(f.transformer for f in FAMILIES.values()))
    raise BadInput(f"transformer class {class_name} is not in the families table", f"one of {known}",
                   "add a row to workbench/families.py (docs/add-a-family.md)")


def inside(name: str, modules: tuple[str, ...]) -> bool:
    """Whether a tensor name lies in one of the modules."""
    return any(name == module or name.startswith(module + ".") for module in modules)
