"""`workbench release`."""

from __future__ import annotations

from typing import ClassVar, Literal

from ..plugins import registry
from . import fields
from .base import VerbSpec, option


class ReleaseSpec(VerbSpec):
    """Make a student's folder ready for others: whole copies of its weights, its plan and lineage,
    a model card with what was lost, pictures beside the teacher's, and the teacher's licence.

    Nothing of this machine is in it. With --push, what would be uploaded is printed; with --yes too,
    it is uploaded.
    """

    verb: ClassVar[str] = "release"
    student: str = option(
        about="The student: a folder, or its name in the workspace.",
        label="Student",
        positional=True,
        metavar="STUDENT",
        place="model",
    )
    out: str | None = fields.out("the folder")
    runtime: str = option(
        "diffusers",
        "Program that is to load it: diffusers (a folder), comfyui or sd.cpp (one safetensors file of "
        "the transformer), gguf (one GGUF file). Students with blocks of their own load in diffusers "
        "alone (docs/releasing.md).",
        label="For",
        flag="--for",
        choices=registry("runtime").names,
    )
    gguf_weights: Literal["q8_0", "q4_0", "bf16"] = option(
        "q8_0",
        "With --for gguf: how the matrices of the blocks are stored.",
        label="Weights of a GGUF file",
        advanced=True,
    )
    comparison: str | None = option(
        None,
        "Comparison with the teacher for the card: its folder, comparison.json, or its id in the "
        "workspace.",
        label="Comparison",
        metavar="COMPARISON",
        place="file-or-folder",
        usual="the newest one of this student in the workspace",
    )
    license: str | None = option(
        None,
        "Identifier of the teacher's licence as the Hub writes it, like apache-2.0.",
        label="Licence",
        metavar="ID",
        usual="what the teacher's model card says",
    )
    space: bool = option(
        False,
        "Also write a Space, an app for the Hub in which the student draws beside the teacher's "
        "pictures, to a folder beside the release: RELEASE-space. Needs a comparison with the teacher.",
        label="Space with a demo",
    )
    push: str | None = option(
        None,
        "Repository on the Hub, OWNER/NAME, to upload to; a Space gets the same name.",
        label="Repository on the Hub",
        metavar="REPO",
    )
    yes: bool = option(
        False, "Upload now; without it, --push only prints what it would.", label="Upload now"
    )
    public: bool = option(
        False,
        "Make a new repository public.",
        label="Public repository",
        advanced=True,
    )
    replace: bool = option(
        False,
        "Let the release take the place of files that the repository has.",
        label="Replace the repository's files",
        advanced=True,
    )
