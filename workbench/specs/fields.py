"""Fields that several verbs have, declared once so that a flag means one thing everywhere."""

from __future__ import annotations

from typing import Any

from .base import option
from .placements import AUTO
from .teacher_weights import AS_LOADED


def teacher() -> Any:
    return option(
        about="The model to compress: demo or demo-12 (bundled), a diffusers folder, or a Hub "
        "id[@revision].",
        label="Teacher",
        positional=True,
        metavar="TEACHER",
        place="model",
    )


def out(what: str) -> Any:
    return option(
        None,
        f"Write {what} to this path.",
        label="Output path",
        flag="--out",
        short="-o",
        metavar="PATH",
        place="output",
        usual="a new path in the workspace",
    )


def sensitivity() -> Any:
    return option(
        None,
        "Sensitivity map: a file, or its id in the workspace.",
        label="Sensitivity map",
        metavar="MAP",
        place="file-or-name",
        usual="the newest map of this teacher, if one is needed",
    )


def prompts(what: str) -> Any:
    return option(
        None,
        f"File of {what} prompts, one per line.",
        label="Prompts file",
        metavar="FILE",
        place="file",
        usual="the bundled scenes for demo, else a general list",
    )


def sampling_steps() -> Any:
    return option(
        None,
        "Sampling steps per image.",
        label="Sampling steps",
        unit="steps",
        ge=1,
        usual="the teacher's default",
    )


def guidance() -> Any:
    return option(
        None,
        "Classifier-free guidance scale.",
        label="Guidance scale",
        ge=0,
        usual="the teacher's default",
        advanced=True,
    )


def negative() -> Any:
    return option(
        None,
        "Negative prompt, for models that are guided with one.",
        label="Negative prompt",
        flag="--negative-prompt",
        usual="a blank",
        advanced=True,
    )


def size() -> Any:
    return option(
        None,
        "Size of the images in pixels: a square's side like 1024, or width x height like 1344x768.",
        label="Image size",
        unit="pixels",
        usual="the teacher's default",
    )


def seeds(default: int = 1) -> Any:
    return option(default, "Images per prompt, one per seed.", label="Seeds per prompt", ge=1)


def processes() -> Any:
    return option(
        1,
        "Processes that share the work: one per GPU, or several on a CPU.",
        label="Processes",
        ge=1,
        advanced=True,
    )


def dtype(usual: str) -> Any:
    return option(
        None, "Precision of the weights.", label="Weight precision", usual=usual, advanced=True
    )


def resume() -> Any:
    return option(
        False,
        "Continue an interrupted run that has the same output path.",
        label="Resume an interrupted run",
        advanced=True,
    )


def prompts_per_category(usual: str) -> Any:
    return option(
        None,
        "Prompts per category of the bundled scenes.",
        label="Prompts per category",
        ge=1,
        usual=usual,
        advanced=True,
    )


def conditioning() -> Any:
    return option(
        None,
        "Recorded conditioning vectors, which `profile` writes beside a map: for low-rank "
        "modulation where they depend on more than the timestep (docs/modulation.md).",
        usual="those of the teacher's newest map that has some",
        label="Conditioning vectors",
        metavar="FILE",
        place="file",
        advanced=True,
    )


def placement() -> Any:
    return option(
        AUTO,
        "How models are held in memory: whole; text-first (the text encoders are freed before the "
        "transformer is loaded); streamed (blocks are read from the disk as they run); auto: the "
        "first of these that fits into the free memory (docs/placement.md).",
        label="Placement of the models",
        advanced=True,
    )


def teacher_weights(of: str) -> Any:
    return option(
        AS_LOADED,
        f"How the weights of {of} are stored in memory: as-loaded; bf16, int8 or nf4: the linears in "
        "its blocks in fewer bits, unpacked as they run, which changes its numbers "
        "(docs/placement.md).",
        label="Weights of the teacher",
        advanced=True,
    )
