"""A small teacher for trying everything on: text to 128 px pictures of shapes and words, with an
exact scorer for them.

Importing this imports no torch. `scenes`, `render` and `shapes` make the pictures, `scorer` reads
them; `training` is how the teacher was made (docs/demo-teacher.md).
"""

from __future__ import annotations

from pathlib import Path

from ..records import link_or_copy

SIZE = 128  # pixels a side
TEXT_TOKENS = 24  # of a caption, about
DEFAULT_STEPS = 20
DEFAULT_CFG = 3.0
NEGATIVE_PROMPT = " "

HERE = Path(__file__).parent
SHARED_PARTS = ("scheduler", "text_encoder", "tokenizer", "vae")
MAPS = {"demo": "sensitivity.json", "demo-12": "sensitivity-12.json"}


def weights_folder() -> Path:
    """The bundled pipeline folder: the grown 24-block teacher, and its 12-block parent in
    transformer-12/.
    """
    return HERE / "weights"


def map_of(name: str) -> Path:
    """The sensitivity map that ships with a bundled teacher: "demo" or "demo-12"."""
    return HERE / MAPS[name]


def teacher_folder(name: str, cache_dir: Path) -> Path:
    """A pipeline folder that diffusers loads: "demo" (24 blocks) or "demo-12" (before it was grown;
    linked in cache_dir).
    """
    if name == "demo":
        return weights_folder()
    if name != "demo-12":
        raise ValueError(f"bundled teachers are demo and demo-12, not {name!r}")
    folder = Path(cache_dir) / name
    for target, source in files_of_demo_12().items():
        if not has_same_bytes(source, folder / target):
            (folder / target).unlink(missing_ok=True)
            link_or_copy(source, folder / target)
    return folder


def files_of_demo_12() -> dict[Path, Path]:
    """Path inside the folder of demo-12 -> the bundled file."""
    source = weights_folder()
    files = {Path("model_index.json"): source / "model_index.json"}
    for part in SHARED_PARTS:
        for path in (source / part).iterdir():
            files[path.relative_to(source)] = path
    for path in (source / "transformer-12").iterdir():
        files[Path("transformer") / path.name] = path
    return files


def has_same_bytes(source: Path, target: Path) -> bool:
    if not target.exists() or target.stat().st_size != source.stat().st_size:
        return False
    return target.read_bytes() == source.read_bytes()
