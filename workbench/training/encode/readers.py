"""The built-in data sources: files of prompts, image folders, tar shards (rows of data_sources)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ...models import Pipeline, family_of
from ...records import Progress
from ...records.prompts import GENERAL_PROMPTS, general_prompts, read_prompts
from ..data_sources import CacheRequest, DataSource
from .cache_writer import cache_images, cache_prompts, identity
from .pictures import Pair, check_plain, file_identity, pictures_in, tar_shards

Stop = Callable[[], bool]


def is_prompt_file(data: str) -> bool:
    return Path(data).is_file() and not is_tar(data) and not is_binary(Path(data))


def is_binary(path: Path) -> bool:
    """Whether a file is not text, by its first bytes: a picture, an archive, parquet."""
    with open(path, "rb") as file:
        head = file.read(4096)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return False  # UTF-16, which the reader of prompts names
    return b"\0" in head or head.startswith((b"PAR1", b"PK\x03\x04", b"\x1f\x8b"))


def is_tar(data: str) -> bool:
    path = Path(data)
    return path.exists() and bool(tar_shards(path))


def is_image_folder(data: str) -> bool:
    return Path(data).is_dir() and not is_tar(data)


def is_general(data: str) -> bool:
    return data == "general"


def prompts_of(request: CacheRequest) -> list[str]:
    return list(GENERAL_PROMPTS) if is_general(request.data) else read_prompts(request.data)


def prompts_for(pipe: Pipeline, request: CacheRequest) -> list[str]:
    """The same for a model: the general list of one whose prompts are classes has classes."""
    if is_general(request.data):
        return general_prompts(family_of(pipe.transformer).is_class_conditional)
    return prompts_of(request)


def prompts_key(request: CacheRequest) -> str:
    return "\n".join(prompts_of(request))


def sample_prompts(
    pipe: Pipeline, request: CacheRequest, folder: Path, stop: Stop
) -> Iterator[Progress]:
    return cache_prompts(
        pipe,
        prompts_for(pipe, request),
        folder,
        size=request.size,
        steps=request.steps,
        guidance=request.guidance,
        negative=request.negative,
        stop=stop,
    )


def pictures_key(request: CacheRequest) -> str:
    """Captions, and path, size and time of change of every picture."""
    return "\n".join(identity(pair) for pair in pictures_in(request.data))


def tar_key(request: CacheRequest) -> str:
    """Path, size and time of change of the shards, without reading them. Raises BadInput for
    compressed ones.
    """
    shards = tar_shards(Path(request.data))
    for shard in shards:
        check_plain(shard)
    return "\n".join(file_identity(shard) for shard in shards)


def encode_pictures(
    pipe: Pipeline, request: CacheRequest, folder: Path, stop: Stop
) -> Iterator[Progress]:
    return encode_pairs(pipe, request, pictures_in(request.data), folder, stop)


def encode_pairs(
    pipe: Pipeline, request: CacheRequest, pairs: Iterable[Pair], folder: Path, stop: Stop
) -> Iterator[Progress]:
    return cache_images(
        pipe,
        pairs,
        folder,
        size=request.size,
        steps=request.steps,
        guidance=request.guidance,
        negative=request.negative,
        buckets=not request.square,
        stop=stop,
    )


PROMPTS = DataSource("A file of prompts, one a line.", is_prompt_file, prompts_key, sample_prompts)
GENERAL = DataSource("A general list of prompts.", is_general, prompts_key, sample_prompts)
IMAGES = DataSource(
    "Pictures with captions in metadata.jsonl, .csv or .tsv, or text files beside them.",
    is_image_folder,
    pictures_key,
    encode_pictures,
)
TAR = DataSource("WebDataset shards.", is_tar, tar_key, encode_pictures)
