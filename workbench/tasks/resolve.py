"""From what a person types to files: the bundled teachers, a folder, a student of the workspace, or
a model on the Hub.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import demo
from ..records import BadInput, read_text
from ..workspace.store import Store, default_workspace

BUNDLED = ("demo", "demo-12")
HUB_ID = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
NOT_NEEDED = ["*.bin", "*.ckpt", "*.pt", "*.pth", "*.onnx", "*.gguf", "*.msgpack", "*.h5"]


@dataclass(frozen=True)
class Sampling:
    """How pictures of a model are sampled unless told otherwise."""

    steps: int = 30
    guidance: float = 4.0
    size: int = 1024


DEMO_SAMPLING = Sampling(steps=demo.DEFAULT_STEPS, guidance=demo.DEFAULT_CFG, size=demo.SIZE)


def locate(source: str, store: Store | None = None, *, weights: bool = True) -> tuple[Path, str]:
    """(path, name) of a model. The name goes into records: demo, demo-12, a Hub id[@revision] or an
    absolute path.

    Without `weights` only the transformer's config is fetched from the Hub; or the path is the
    workspace's record of the teacher. Raises BadInput where there is nothing.
    """
    if source in BUNDLED:
        if not (demo.weights_folder() / "model_index.json").is_file():
            raise BadInput(
                f"the bundled teacher {source} is not in {demo.weights_folder()}",
                "a whole installation",
                "install the package again",
            )
        cache = (store.workspace if store else default_workspace()) / "cache"
        return Path(demo.teacher_folder(source, cache)), source
    path = Path(source).expanduser()
    if path.exists():
        return path.resolve(), str(path.resolve())
    student = store.find("student", source) if store else None
    if student is not None:
        return Path(student["path"]), student["path"]
    if store and not weights and (record := published(source, store)):
        return record, source
    match = HUB_ID.fullmatch(source)
    if match is None or source.startswith((".", "/", "~")):
        raise BadInput(
            f"{source} does not exist",
            "demo, demo-12, a folder, a student of the workspace or a Hub id",
            "check the path",
        )
    return from_hub(match[1], match[2], weights), source


def at_hand(source: str, store: Store) -> bool:
    """Whether a name means something here, before the Hub is asked."""
    return bool(
        source in BUNDLED
        or Path(source).expanduser().exists()
        or store.find("student", source)
        or published(source, store)
    )


def published(source: str, store: Store) -> Path | None:
    """The workspace's record of a model known by its published config alone (import-map writes
    one).
    """
    found = next(
        (row for row in store.teachers() if row["teacher"] == source and not row["fingerprint"]),
        None,
    )
    return Path(found["path"]) if found else None


def from_hub(repo: str, revision: str | None, weights: bool) -> Path:
    """A repository's files in the Hub's local cache, fetched where they are missing. Honours
    HF_HUB_OFFLINE and HF_HOME.
    """
    from huggingface_hub import hf_hub_download, snapshot_download

    try:
        if not weights:
            return Path(hf_hub_download(repo, "transformer/config.json", revision=revision))
        return Path(snapshot_download(repo, revision=revision, ignore_patterns=NOT_NEEDED))
    except Exception as error:  # the Hub's client raises many kinds, of several libraries
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise BadInput(
            f"{repo} is no folder here and cannot be had from the Hub ({reason})",
            "a folder, or a Hub id that can be reached",
            "check the name and the network; with HF_HUB_OFFLINE=1 it must be in the cache",
        ) from None


def bundled(path: Path, name: str) -> bool:
    """Whether a model is a bundled teacher or comes from one."""
    if name in BUNDLED:
        return True
    card = path / "card.json"
    if not card.is_file():
        return False
    try:
        return json.loads(card.read_text(encoding="utf-8")).get("original") in BUNDLED
    except ValueError:
        return False


def sampling(path: Path, name: str, spec: dict[str, Any]) -> Sampling:
    """Steps, guidance and size: as the spec says, else as the model is meant to be sampled."""
    default = DEMO_SAMPLING if bundled(path, name) else Sampling()
    return Sampling(
        *(
            default_value if spec.get(key) is None else spec[key]
            for key, default_value in vars(default).items()
        )
    )


# --- prompts --------------------------------------------------------------------------------------

GENERAL_PROMPTS = tuple(
    """
a red bicycle leaning against a yellow wall
a portrait of an old fisherman, soft window light
two cats sleeping on a blue sofa
a bowl of ramen with an egg and spring onions, seen from above
a snowy mountain village at dusk
three green apples to the left of a glass jug
a shop window with the word BAKERY in golden letters
an astronaut riding a horse through a wheat field, oil painting
a narrow street in Lisbon after rain
a macro photograph of a dragonfly on a reed
a wooden toy robot on a white table
a poster that says OPEN AIR CINEMA above a film projector
a lighthouse in a storm, long exposure
five paper boats floating on a pond
a corgi wearing a chef's hat in a kitchen
an isometric drawing of a small library
""".strip().splitlines()
)


def prompts_for(path: Path, name: str, file: str | None, count: int) -> list[str]:
    """Calibration prompts: a file's lines, else the demo's own scenes, else a general list."""
    if file:
        return read_prompts(Path(file))
    if bundled(path, name):
        return [caption for caption, _ in scenes(max(1, count // 5), "validation")]
    return list(GENERAL_PROMPTS[:count])


def read_prompts(path: Path) -> list[str]:
    """One prompt a line; empty lines and lines that begin with # are left out."""
    text = read_text(path, "prompt file")
    prompts = [
        line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")
    ]
    if not prompts:
        raise BadInput(
            f"prompt file {path} is empty", "one prompt a line", "write a prompt into it"
        )
    return prompts


def scenes(per_category: int, split: str) -> list[tuple[str, dict[str, Any]]]:
    """(caption, item for the scene scorer) of the demo's prompts: the same ones each time."""
    from ..demo.scenes import caption, prompt_set

    return [(caption(scene), scene.as_dict()) for scene in prompt_set(per_category, split)]
