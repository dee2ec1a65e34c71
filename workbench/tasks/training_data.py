"""The training data of a run: encoded once, cached in the workspace, and opened as sources."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..models import Pipeline
from ..records import Progress
from ..training.batch_source import LatentSource
from ..training.data_sources import CacheRequest, source_of

LAYOUT = 3  # of the cache: older ones are made again


@dataclass(frozen=True)
class Skipped:
    """What of a data set could not be used."""

    count: int
    samples: int  # that could
    first: str  # the first item, and why

    def as_line(self, data: str) -> str:
        total = self.count + self.samples
        return f"data {data}: {self.count} of {total} skipped; the first: {self.first}"


@dataclass(frozen=True)
class CachedData:
    """A data set of a run and where its latent cache is. kind: name of its data source."""

    kind: str
    data: str
    folder: Path
    skipped: Skipped | None = None

    def open(self, pipe: Pipeline | None) -> LatentSource:
        """The source; pipe: only the first of several processes has it."""
        source: LatentSource = source_of(self.data)[1].open(self.folder, pipe)
        return source


@dataclass
class DataSets:
    """All data sets of a run, by the name that stages give them; None: the run's own."""

    cached: dict[str | None, CachedData] = field(default_factory=dict)
    stopped: bool = False

    def open(self, pipe: Pipeline | None) -> dict[str | None, LatentSource]:
        return {name: cached.open(pipe) for name, cached in self.cached.items()}

    @property
    def skipped(self) -> list[dict[str, Any]]:
        """For the run's result: one row per data set with something skipped."""
        return [
            {"data": cached.data, **asdict(cached.skipped)}
            for cached in self.cached.values()
            if cached.skipped is not None
        ]


def check_data(requests: dict[str | None, CacheRequest]) -> None:
    """Raise BadInput for data that does not exist or does not suit the teacher."""
    for request in requests.values():
        source_of(request.data)[1].content_key(request)


def requests_of(
    names: list[str | None], usual: CacheRequest, own: str | None
) -> dict[str | None, CacheRequest]:
    """What each data set's cache is to hold. usual: the settings, with the data that stands where
    the run names none; own: what it names.
    """
    requests = {}
    for name in names:
        data = own if name is None else name
        requests[name] = replace(usual, data=data) if data else usual
    return requests


def fill_caches(
    pipe: Pipeline,
    requests: dict[str | None, CacheRequest],
    fingerprint: str,
    workspace: Path,
    stop: Callable[[], bool],
    sets: DataSets,
) -> Iterator[Progress]:
    """Make the caches that are not there yet, into `sets`; what was skipped is said on stderr.

    fingerprint: of the teacher's weights. Asked to stop, it sets `sets.stopped`.
    """
    for name, request in requests.items():
        kind, source = source_of(request.data)
        folder = (
            workspace
            / "cache"
            / cache_name(kind, source.content_key(request), request, fingerprint)
        )
        result: dict[str, Any] = {}
        for progress in source.cache(pipe, request, folder, stop):
            if progress.result is not None:
                result = progress.result
            message = f"data: {progress.message or 'encoding'}"
            yield progress.model_copy(update={"message": message, "metrics": {}, "result": None})
        if result.get("stopped", True):
            sets.stopped = True
            return
        cached = CachedData(kind, request.data, folder, skipped_in(result))
        sets.cached[name] = cached
        if cached.skipped is not None:
            print(cached.skipped.as_line(request.data), file=sys.stderr, flush=True)


def cache_name(kind: str, content: str, request: CacheRequest, fingerprint: str) -> str:
    """A folder's name that differs where the latents would."""
    settings = asdict(request)
    del settings["data"], settings["teacher"]
    if request.negative == CacheRequest.negative:
        del settings["negative"]  # caches of older versions stay
    key = json.dumps([LAYOUT, fingerprint, kind, content, settings])
    return hashlib.sha256(key.encode()).hexdigest()[:12]


def skipped_in(result: dict[str, Any]) -> Skipped | None:
    skipped = result["skipped"]
    if not skipped:
        return None
    first = f"{skipped[0]['item']} ({skipped[0]['reason']})"
    return Skipped(len(skipped), result["samples"], first)
