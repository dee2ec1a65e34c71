"""Which files of a folder hold its weights, and what a file is that looks like weights and is none.

Names and the first bytes alone are looked at, so that a file of any size is answered at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from ..records import BadInput
from .headers import AGAIN, STEM, index_file

HEAD = 512  # bytes that tell what a file is
LARGEST_CONFIG = 2**24  # bytes; the largest config.json are some KiB
SINGLE = (".safetensors", ".gguf", ".ckpt", ".pt", ".pth", ".bin", ".sft")
UNFINISHED = (".incomplete", ".part", ".crdownload", ".aria2", ".download", ".tmp")
# diffusers' and transformers' names: STEM, a variant, a shard
WEIGHTS = re.compile(
    rf"(?:{STEM}|model)(?:\.(?P<variant>\w+))?(?:-\d{{5}}-of-\d{{5}})?"
    r"(?:\.(?P<older>\w+))?\.safetensors"
)
SHARD = re.compile(r".*\d{5}-of-\d{5}.*\.safetensors")


# --- one file -------------------------------------------------------------------------------------


def check_lone_file(path: Path) -> None:
    """Refuse a file that is not a config.json: a checkpoint of one file, or a special file."""
    if not path.is_file():
        found = f"{path} is neither a folder nor a regular file"
        raise BadInput(found, "a model folder or a config.json", "check the path")
    kind = kind_of(path)
    if path.suffix.lower() in SINGLE or kind:
        raise BadInput(
            f"{path} is {kind or 'a checkpoint in a single file'}, not a model folder",
            "a diffusers folder: config.json beside the weights",
            conversion(kind),
        )
    if path.stat().st_size > LARGEST_CONFIG:
        found = f"{path} is a file of {path.stat().st_size} bytes"
        raise BadInput(found, "a model folder or a config.json", "check the path")


def conversion(kind: str) -> str:
    """How to get from a single file to a folder."""
    if "GGUF" in kind:
        return "use the unquantised model in diffusers' layout"
    if "pointer" in kind or "web page" in kind or "empty" in kind:
        return f"{AGAIN} (git lfs pull, hf download)"
    return (
        "convert it with its transformer class of diffusers: "
        "CLASS.from_single_file(FILE).save_pretrained(FOLDER)"
    )


def kind_of(path: Path) -> str:
    """What a file is by its first bytes, in words; empty where they do not tell."""
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD)
    except OSError:
        return ""
    if not head:
        return "an empty file"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file itself"
    if head.startswith(b"GGUF"):
        return "a GGUF file (quantised)"
    if head.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x04")):
        return "a pickled checkpoint"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "a web page"
    if head[8:10] in (b'{"', b"{ ") and int.from_bytes(head[:8], "little") < 2**32:
        return "a safetensors file"
    return ""


def check_is_weights(path: Path) -> None:
    """Refuse what stands in place of a safetensors file: a pointer, a web page, a dead link."""
    if path.is_symlink() and not path.exists():
        found = f"{path} is a link to a file that is not there"
        raise BadInput(found, "the weights", "download the model again, or copy it without links")
    if not path.is_file():
        raise BadInput(f"{path} is not a regular file", "a safetensors file", "check the path")
    kind = kind_of(path)
    if kind and kind != "a safetensors file":
        raise BadInput(f"{path} is {kind}", "a safetensors file", conversion(kind))


# --- a folder -------------------------------------------------------------------------------------


def check_weight_files(folder: Path) -> None:
    """Refuse a folder whose weights diffusers would not load, with the reason.

    Of a transformer: renamed files, a lost index, unfinished downloads, pickled or GGUF files, links
    to nothing.
    """
    names = sorted(path.name for path in folder.iterdir())
    weights = [name for name in names if name.endswith(".safetensors")]
    for name in weights:
        check_is_weights(folder / name)
    if f"{STEM}.safetensors.index.json" in names or f"{STEM}.safetensors" in names:
        return
    if not weights:
        raise no_weights(folder, names)
    shards = [name for name in weights if SHARD.fullmatch(name)]
    if shards and index_file(folder) is None:
        raise BadInput(
            f"{folder} has {len(shards)} shards ({shards[0]}) without their index",
            f"{STEM}.safetensors.index.json beside them",
            "copy the index too",
        )
    if len(weights) == 1 and not named_variant(weights[0]):
        raise BadInput(
            f"{folder} has weights of another name ({weights[0]}), which diffusers does not load",
            f"{STEM}.safetensors",
            "rename the file, if it is this model's",
        )


def no_weights(folder: Path, names: Iterable[str]) -> BadInput:
    """The error of a folder without a safetensors file, by what is there instead."""
    expected = f"{STEM}.safetensors, or shards with an index"
    others = [name for name in names if name.lower().endswith((*UNFINISHED, *SINGLE))]
    if not others:
        some = ", ".join(list(names)[:6])
        found = f"{folder} has no safetensors file ({some})"
        return BadInput(found, expected, "copy or download the weights too")
    if others[0].lower().endswith(UNFINISHED):
        found = f"{folder} has an unfinished download ({others[0]})"
        return BadInput(found, expected, "download the rest")
    if others[0].lower().endswith(".gguf"):
        found = f"{folder} has GGUF weights ({others[0]}), which are quantised"
        return BadInput(found, expected, conversion("GGUF"))
    return BadInput(
        f"{folder} has no safetensors file, but {others[0]}",
        expected,
        "load the model with diffusers and save it with safe_serialization=True",
    )


# --- variants -------------------------------------------------------------------------------------


def named_variant(name: str) -> str:
    """The variant in a weights file's name (`fp16`); empty for the standard and for other names."""
    match = WEIGHTS.fullmatch(name)
    return (match["variant"] or match["older"] or "") if match else ""


def variant_of(folder: Path) -> str | None:
    """The variant that has to be named to load a component's folder; None where its weights have
    the standard name, or it has none.

    Raises BadInput for several variants without a standard one.
    """
    names = sorted(path.name for path in folder.glob("*.safetensors"))
    known = [name for name in names if WEIGHTS.fullmatch(name)]
    variants = sorted({named_variant(name) for name in known})
    if not variants or "" in variants:
        return None
    if len(variants) > 1:
        found = f"{folder} has the variants {', '.join(variants)} alone"
        raise BadInput(found, "one, or the standard names", "remove the others")
    return variants[0]
