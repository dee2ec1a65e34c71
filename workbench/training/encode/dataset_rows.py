"""Data sets that the `datasets` library reads: parquet, Arrow folders, image folders whose table is
parquet, and data sets of the Hub.

The library is an optional extra, imported where one is used. It reads rows; the pictures in them
are decoded as those of folders are (docs/decisions/0019-datasets-library.md).
"""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ...models import Pipeline
from ...records import BadInput, Progress
from ...records.text_rows import first_text
from ..data_sources import CacheRequest, DataSource
from .image_folders import CAPTION_KEYS, FILE_KEYS, SUFFIXES, metadata_files, visible
from .pictures import Pair, file_identity, tar_shards
from .readers import encode_pairs

HUB = re.compile(
    r"hub:(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.-]+))?"
    r"(?::(?P<split>[\w.-]+))?(?:\[:(?P<first>\d+)\])?"
)
SAVED = ("state.json", "dataset_dict.json")  # of Dataset.save_to_disk
PICTURES = (*FILE_KEYS, *SUFFIXES)  # names of columns; the suffixes are those of WebDataset shards
CAPTIONS = (*CAPTION_KEYS, "txt", "json")
EXPECTED = "a column of pictures (image) and one of captions (text, caption, prompt)"


@dataclass(frozen=True)
class Row:
    """A picture in a row of a data set. content: what tells the data set from another one."""

    rows: Any  # datasets.Dataset
    column: str
    number: int
    folder: Path  # that paths in the rows are relative to
    content: str

    def __str__(self) -> str:
        return f"row {self.number}"

    @property
    def identity(self) -> str:
        return f"{self.content} {self.number}"

    def read(self) -> io.BytesIO:
        """The file's bytes: from the row, or from the path that it has."""
        value = self.rows[self.number][self.column]
        path = value
        if isinstance(value, Mapping):
            path, value = value.get("path"), value.get("bytes")
        if isinstance(value, bytes):
            return io.BytesIO(value)
        if not isinstance(path, str):
            raise ValueError("the row has no picture")
        return io.BytesIO((self.folder / path).read_bytes())


# --- what a text names ------------------------------------------------------------------------------


def is_dataset(data: str) -> bool:
    """Whether a text names such a data set: `hub:OWNER/NAME`, a parquet or Arrow file, a folder
    that `save_to_disk` wrote, or one of parquet without another table.
    """
    if data.startswith("hub:"):
        return True
    path = Path(data)
    if path.is_file():
        return path.suffix.lower() in (".parquet", ".arrow")
    if not path.is_dir() or tar_shards(path):
        return False
    if is_saved(path):
        return True
    return not metadata_files(path) and bool(visible(path, "*.parquet"))


def is_saved(folder: Path) -> bool:
    return any((folder / name).is_file() for name in SAVED)


def hub_name(data: str) -> re.Match[str]:
    match = HUB.fullmatch(data)
    if match is None:
        raise BadInput(
            f"training data {data}",
            "hub:OWNER/NAME, with @REVISION, :SPLIT or [:NUMBER] behind it",
            "correct the name",
        )
    return match


def library() -> Any:
    """The `datasets` package, quiet. Raises BadInput where it is not installed."""
    try:
        import datasets
    except ImportError:
        raise BadInput(
            "parquet, Arrow and data sets of the Hub need the datasets library",
            "it to be installed",
            "pip install 'dit-workbench[datasets]'",
        ) from None
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    return datasets


def content_key(request: CacheRequest) -> str:
    """Path, size and time of change of the files; of a data set of the Hub its name.

    Raises BadInput for columns that cannot be used, before anything is read.
    """
    library()
    if request.data.startswith("hub:"):
        return hub_name(request.data)[0]
    path = Path(request.data)
    columns_of(features_of(path), request.data)
    return files_identity(path)


def files_identity(path: Path) -> str:
    files = [path] if path.is_file() else visible(path, "*")
    return "\n".join(file_identity(file) for file in files)


def features_of(path: Path) -> Mapping[str, Any]:
    """Names and types of the columns, from a schema."""
    datasets = library()
    if path.suffix.lower() == ".arrow" or is_saved(path):
        found: Mapping[str, Any] = loaded(str(path), path, None).features
        return found
    from pyarrow import ArrowException
    from pyarrow.parquet import read_schema

    file = path if path.is_file() else visible(path, "*.parquet")[0]
    try:
        found = datasets.Features.from_arrow_schema(read_schema(file))
    except (OSError, ValueError, ArrowException) as error:
        raise unreadable(str(file), error) from None
    return found


# --- rows -------------------------------------------------------------------------------------------


def pairs_of(data: str, folder: Path) -> list[Pair]:
    """(picture, caption) pairs of a data set. folder: for the rows that are fetched one by one.

    Raises BadInput for one that the library cannot read, and for columns that cannot be used.
    """
    if data.startswith("hub:"):
        rows = hub_rows(hub_name(data), folder)
        return pairs(rows, Path(), data, data)
    path = Path(data)
    rows = loaded(data, path, None)
    return pairs(rows, path if path.is_dir() else path.parent, data, files_identity(path))


def pairs(rows: Any, folder: Path, data: str, content: str) -> list[Pair]:
    """The pictures of a `datasets.Dataset`, unread, with their captions."""
    picture, caption = columns_of(rows.features, data)
    if isinstance(rows.features[picture], library().Image):
        rows = rows.cast_column(picture, library().Image(decode=False))
    files = rows.select_columns([picture])
    out: list[Pair] = []
    for number, value in enumerate(rows.select_columns([caption])):
        row = Row(files, picture, number, folder, content)
        text = value[caption]
        out.append((row, first_text(text if isinstance(text, dict) else {"text": text}, CAPTIONS)))
    return out


def loaded(data: str, path: Path, split: str | None) -> Any:
    """The rows of local files, on disk."""
    datasets = library()

    def load() -> Any:
        if path.suffix.lower() == ".arrow":
            return datasets.Dataset.from_file(str(path))
        if path.is_file():
            return datasets.load_dataset("parquet", data_files=str(path), split="train")
        if is_saved(path):
            return datasets.load_from_disk(str(path))
        return datasets.load_dataset(str(path))

    return one_split(read(load, data), split, data)


def hub_rows(named: re.Match[str], folder: Path) -> Any:
    """The rows of a data set of the Hub: all of them, through the library's cache, or the first
    ones, streamed into `folder`.
    """
    data = named[0]
    options = {"path": named["name"], "revision": named["revision"]}
    if named["first"] is None:
        load = library().load_dataset
        return one_split(read(lambda: load(**options), data), named["split"], data)
    kept = folder / "rows"
    if not is_saved(kept):
        stream = read(lambda: library().load_dataset(**options, streaming=True), data)
        keep_first(one_split(stream, named["split"], data), int(named["first"]), kept, data)
    return library().load_from_disk(str(kept))


def keep_first(stream: Any, count: int, folder: Path, data: str) -> None:
    """Write the first rows of a streamed data set, pictures as they are, as a data set on disk."""
    datasets = library()
    for name, feature in (stream.features or {}).items():
        if isinstance(feature, datasets.Image):
            stream = stream.cast_column(name, datasets.Image(decode=False))
    draft = folder.with_name(".rows")
    shutil.rmtree(draft, ignore_errors=True)

    def rows() -> Iterator[Any]:
        yield from islice(stream, count)

    made = read(lambda: datasets.Dataset.from_generator(rows, cache_dir=str(draft / "cache")), data)
    made.save_to_disk(str(draft / "rows"))
    folder.parent.mkdir(parents=True, exist_ok=True)
    (draft / "rows").rename(folder)
    shutil.rmtree(draft, ignore_errors=True)


def one_split(found: Any, split: str | None, data: str) -> Any:
    """The split that is asked for; else `train`, or the only one."""
    if not isinstance(found, dict):
        return found
    names = list(found)
    chosen = split or ("train" if "train" in names or len(names) != 1 else names[0])
    if chosen not in names:
        raise BadInput(
            f"{data} has the splits {', '.join(names)}", f"a split {chosen}", "name one of them"
        )
    return found[chosen]


def columns_of(features: Mapping[str, Any], data: str) -> tuple[str, str]:
    """The columns of pictures and of captions. Raises BadInput where one is missing."""
    datasets = library()
    pictures = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
    pictures += [name for name in PICTURES if name in features and name not in pictures]
    captions = [name for name in CAPTIONS if name in features and name not in pictures[:1]]
    texts = [name for name, kind in features.items() if getattr(kind, "dtype", "") == "string"]
    if not captions and len(texts) == 1 and texts != pictures[:1]:
        captions = texts
    if not pictures or not captions:
        columns = ", ".join(features) or "none"
        raise BadInput(f"{data} has the columns {columns}", EXPECTED, "rename the columns")
    return pictures[0], captions[0]


def read(load: Callable[[], Any], data: str) -> Any:
    """What the library reads. Raises BadInput with its reason where it cannot."""
    from datasets.exceptions import DatasetsError
    from pyarrow import ArrowException

    try:
        return load()
    except (OSError, ValueError, RuntimeError, DatasetsError, ArrowException) as error:
        raise unreadable(data, error) from None


def unreadable(data: str, error: Exception) -> BadInput:
    cause = error.__cause__ or error
    reason = " ".join(str(cause).split())[:160] or type(cause).__name__
    return BadInput(
        f"{data} cannot be read as a data set ({reason})",
        "parquet, an Arrow folder, or hub:OWNER/NAME of a data set that the datasets library reads",
        "check the files, the name and the network",
    )


def encode(
    pipe: Pipeline, request: CacheRequest, folder: Path, stop: Callable[[], bool]
) -> Iterator[Progress]:
    return encode_pairs(pipe, request, pairs_of(request.data, folder), folder, stop)


DATASET = DataSource(
    "Parquet, Arrow folders and data sets of the Hub, through the datasets library.",
    is_dataset,
    content_key,
    encode,
)
