"""The kinds of training data: add one here, or with `workbench.register("data_source", ..)`.

A source fills a latent cache once per content and settings; training then reads the cache.
Importing this imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..plugins import registry
from ..plugins.registry import Lazy, imported
from ..records import BadInput, Progress, check_regular
from ..records.picture_size import Size

UNPACK = "unpack it and name the folder, or the tar files in it"
# how files begin that people name, and that are no training data by themselves
KNOWN_FILES = {
    b"PK\x03\x04": ("a zip archive", UNPACK),
    b"\x1f\x8b": ("compressed by gzip", UNPACK),
    b"7z\xbc\xaf": ("a 7z archive", UNPACK),
    b"Rar!": ("a rar archive", UNPACK),
    b"\x28\xb5\x2f\xfd": ("compressed by zstd", UNPACK),
    b"\x89PNG": ("one picture", "name the folder of the pictures and their captions"),
    b"\xff\xd8\xff": ("one picture", "name the folder of the pictures and their captions"),
}


@dataclass(frozen=True)
class CacheRequest:
    """What a latent cache is to hold."""

    data: str  # as the person wrote it: a path, or a name
    teacher: str  # the original teacher's name
    size: Size  # pixels a side, or "WIDTHxHEIGHT"
    steps: int  # of sampling: sets the noise levels, and samples latents from prompts
    guidance: float
    square: bool = False  # all pictures square, instead of aspect buckets
    count: int | None = None  # of samples, for endless sources; 0: no limit; None: the usual
    negative: str = " "  # the prompt of the unconditional branch


def open_cache(folder: Path, pipe: Any) -> Any:
    """A finished cache as a training source (training.source.LatentSource)."""
    return imported("workbench.training.batch_source:LatentSource").from_folder(folder)


@dataclass(frozen=True)
class DataSource:
    """One kind of training data.

    about: one sentence. matches: whether a text names such data. content_key: (CacheRequest) ->
    text that differs where the content does, cheaply; raises BadInput for what cannot be used.
    cache: (pipeline, CacheRequest, folder, stop) -> Progress rows while the folder becomes a latent
    cache; the last one's result is {"folder", "samples", "skipped": [{"item", "reason"}],
    "stopped"} (encode.cache_writer does it from prompts or pictures). open: (folder, pipeline) -> a
    training.source.Source; of several processes only the first has the pipeline, the others None.
    """

    about: str
    matches: Callable[[str], bool]
    content_key: Callable[[CacheRequest], str]
    cache: Callable[[Any, CacheRequest, Path, Callable[[], bool]], Iterator[Progress]]
    open: Callable[[Path, Any], Any] = open_cache


ROWS: dict[str, DataSource | Lazy] = {
    "prompts": Lazy(
        "workbench.training.encode.readers:PROMPTS",
        about="A file of prompts, one a line; the teacher samples their latents.",
    ),
    "general": Lazy(
        "workbench.training.encode.readers:GENERAL",
        about="A short general list of prompts; the teacher samples their latents.",
    ),
    "images": Lazy(
        "workbench.training.encode.readers:IMAGES",
        about="A folder of pictures with captions in metadata.jsonl, .csv or .tsv, or text files.",
    ),
    "tar": Lazy(
        "workbench.training.encode.readers:TAR",
        about="WebDataset shards: a tar file or a folder of them.",
    ),
    "dataset": Lazy(
        "workbench.training.encode.dataset_rows:DATASET",
        about="Parquet, an Arrow folder, or hub:OWNER/NAME, through the datasets library.",
    ),
    "scenes": Lazy(
        "workbench.demo.scene_data:SCENES",
        about="The bundled scenes, for students of the bundled teachers.",
    ),
}


def source_of(data: str) -> tuple[str, DataSource]:
    """The name and row of the data source that `data` names; later rows are asked first.

    Raises BadInput where none fits.
    """
    table = registry("data_source")
    for name in reversed(table.names()):
        row: DataSource = table[name]
        if row.matches(data):
            return name, row
    if not Path(data).is_dir():
        check_regular(Path(data), "training data")
    raise no_source(data, table.names())


def no_source(data: str, names: list[str]) -> BadInput:
    """The error for data of no known kind, by what it is."""
    expected = (
        "a folder of captioned pictures or tar files, a tar or parquet file, a file of prompts, "
        "hub:OWNER/NAME of a data set of the Hub, or one of " + ", ".join(names)
    )
    path = Path(data)
    if not path.exists():
        return BadInput(f"training data {data} does not exist", expected, "check the path")
    with suppress(OSError), open(path, "rb") as file:
        head = file.read(8)
        for magic, (kind, do) in KNOWN_FILES.items():
            if head.startswith(magic):
                return BadInput(f"training data {data} is {kind}", expected, do)
    found = f"training data {data} is of no known kind"
    return BadInput(found, expected, "name other training data")
