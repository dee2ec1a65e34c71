"""A small teacher for trying everything on: text to 128 px pictures of shapes and words, and an
exact scorer for them.

Importing this imports no torch. `scenes`, `scorer`, `train` and `evaluate` are its modules;
docs/demo-teacher.md tells how it was made.
"""

from __future__ import annotations

from pathlib import Path

from ..records import link_or_copy

SIZE = 128
TEXT_TOKENS = 24  # of a caption, about
DEFAULT_STEPS = 20
DEFAULT_CFG = 3.0
NEGATIVE_PROMPT = " "

_PARTS = ("scheduler", "text_encoder", "tokenizer", "vae")


def weights_folder() -> Path:
    """The bundled pipeline folder: the grown 24-block teacher, and its 12-block parent in
    transformer-12/.
    """
    return Path(__file__).parent / "weights"


def _same(source: Path, target: Path) -> bool:
    return (
        target.exists()
        and target.stat().st_size == source.stat().st_size
        and target.read_bytes() == source.read_bytes()
    )


def teacher_folder(name: str, cache_dir: Path) -> Path:
    """A pipeline folder that diffusers loads: "demo" (24 blocks) or "demo-12" (before it was grown;
    linked in cache_dir).
    """
    source = weights_folder()
    if name == "demo":
        return source
    if name != "demo-12":
        raise ValueError(f"bundled teachers are demo and demo-12, not {name!r}")
    folder = Path(cache_dir) / name
    files = {Path("model_index.json"): source / "model_index.json"}
    files |= {
        path.relative_to(source): path for part in _PARTS for path in (source / part).iterdir()
    }
    files |= {
        Path("transformer") / path.name: path for path in (source / "transformer-12").iterdir()
    }
    for target, origin in files.items():
        if not _same(origin, folder / target):
            (folder / target).unlink(missing_ok=True)
            link_or_copy(origin, folder / target)
    return folder
