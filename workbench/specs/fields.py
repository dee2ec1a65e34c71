"""Fields that several verbs have, declared once so that a flag means one thing everywhere."""

from __future__ import annotations

from typing import Any

from .base import option


def teacher() -> Any:
    return option(
        about="demo, demo-12, a folder, or a Hub id[@revision].",
        positional=True,
        metavar="TEACHER",
        place="model",
    )


def out(what: str) -> Any:
    return option(
        None,
        f"Where {what} goes.",
        flag="--out",
        short="-o",
        metavar="PATH",
        place="output",
        usual="the workspace",
    )


def sensitivity() -> Any:
    return option(
        None,
        "Sensitivity map: a file, or its id in the workspace.",
        metavar="MAP",
        place="file-or-name",
        usual="the newest one of this teacher, where a map is needed",
    )


def prompts(what: str) -> Any:
    return option(
        None,
        f"File of {what} prompts, one per line.",
        metavar="FILE",
        place="file",
        usual="the bundled scenes for demo, else a general list",
    )


def sampling_steps() -> Any:
    return option(None, "Sampling steps per image.", unit="steps", ge=1, usual="the teacher's own")


def guidance() -> Any:
    return option(
        None, "Classifier-free guidance scale.", ge=0, usual="the teacher's own", advanced=True
    )


def size() -> Any:
    return option(
        None,
        "Height and width of the images in pixels.",
        unit="pixels",
        ge=8,
        usual="the teacher's own",
    )


def seeds(default: int = 1) -> Any:
    return option(default, "Images per prompt, one per seed.", ge=1)


def processes() -> Any:
    return option(
        1, "Processes that share the work: one per GPU, or several on a CPU.", ge=1, advanced=True
    )


def dtype(usual: str) -> Any:
    return option(None, "Precision of the weights.", usual=usual, advanced=True)


def resume() -> Any:
    return option(False, "Continue where a stopped run with the same output ended.", advanced=True)


def prompts_per_category(usual: str) -> Any:
    return option(
        None, "Prompts per category of the bundled scenes.", ge=1, usual=usual, advanced=True
    )
