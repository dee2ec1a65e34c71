"""Models on the Hub: described from headers by range requests, or fetched into the local cache."""

from __future__ import annotations

from collections.abc import Iterator, Set
from contextlib import contextmanager, suppress
from pathlib import Path

from httpx import HTTPError, InvalidURL
from huggingface_hub import HfApi, hf_hub_download, snapshot_download, try_to_load_from_cache
from huggingface_hub import errors as hub

from ..records import BadInput, Teacher
from .describing import describe_headers
from .folders import read_config
from .headers import DTYPES, STEM, index_file, index_variant, read_index
from .stored_form import check_config
from .weight_files import named_variant

# What the Hub's client raises for a name, a network, a cache or a file that is not as it should be.
# Anything else is a fault of the workbench and surfaces as such.
HUB_ERRORS: tuple[type[Exception], ...] = (
    OSError,  # also HfHubHTTPError, OfflineModeIsEnabled, LocalEntryNotFoundError
    HTTPError,
    InvalidURL,
    hub.EntryNotFoundError,
    hub.HFValidationError,
    hub.RevisionResolutionError,
    hub.CachedRepoTreeNotFoundError,
    hub.CorruptedCacheException,
    hub.SafetensorsParsingError,
    hub.NotASafetensorsRepoError,
    hub.XetDownloadError,
)
NOT_NEEDED = ["*.bin", "*.ckpt", "*.pt", "*.pth", "*.onnx", "*.gguf", "*.msgpack", "*.h5"]


class Unreachable(BadInput):
    """The Hub does not answer, or may not be asked."""


def describe_hub(repo: str, revision: str | None = None, endpoint: str | None = None) -> Teacher:
    """Describe a pipeline or transformer repository from its config and the headers of its
    safetensors files: some kilobytes a file.

    `endpoint` None is the Hub's client's own (HF_ENDPOINT). The record has no fingerprint: that
    needs samples of the weights. Raises BadInput for a repository that is not there, private,
    without safetensors or of an unknown class, and when offline.
    """
    api = HfApi(endpoint=endpoint)
    name = f"{repo}@{revision}" if revision else repo
    tensors: dict[str, tuple[str, list[int]]] = {}
    with explained(name):
        siblings = api.model_info(repo, revision=revision).siblings or ()
        files = {file.rfilename for file in siblings}
        folder = _transformer_folder(name, files)
        config = read_config(
            Path(api.hf_hub_download(repo, f"{folder}config.json", revision=revision))
        )
        for file in _weight_files(api, repo, revision, folder, files):
            header = api.parse_safetensors_file_metadata(repo, file, revision=revision)
            for key, info in header.tensors.items():
                tensors[key] = (str(info.dtype), list(info.shape))
    check_config(config, name)
    for key, (dtype, _) in tensors.items():
        if dtype not in DTYPES:
            raise BadInput(
                f"{name}: tensor {key} is of dtype {dtype}",
                "one of " + ", ".join(DTYPES),
                "use an unquantized checkpoint",
            )
    return describe_headers(name, config, tensors, name, "")


def _transformer_folder(name: str, files: set[str]) -> str:
    """Where in the repository the transformer lies: "" or "transformer/"."""
    if "transformer/config.json" in files:
        return "transformer/"
    if "config.json" in files and "model_index.json" not in files:
        return ""
    found = "neither model_index.json nor config.json"
    if "model_index.json" in files:
        found = "a pipeline without transformer/config.json"
    raise BadInput(
        f"{name} has {found}",
        "a diffusion transformer pipeline, or a transformer",
        "choose another repository",
    )


def _weight_files(
    api: HfApi, repo: str, revision: str | None, folder: str, files: set[str]
) -> list[str]:
    """The safetensors files of the transformer."""
    index = f"{folder}{STEM}.safetensors.index.json"
    if index in files:
        shard_of = read_index(Path(api.hf_hub_download(repo, index, revision=revision)))
        return [folder + file for file in sorted(set(shard_of.values()))]
    if f"{folder}{STEM}.safetensors" in files:
        return [f"{folder}{STEM}.safetensors"]
    weights = [file for file in sorted(files) if file.startswith(f"{folder}{STEM}")]
    variants = {file: named_variant(file.removeprefix(folder)) for file in weights}
    variants = {file: variant for file, variant in variants.items() if variant}
    if len(set(variants.values())) == 1:
        return list(variants)
    some = ", ".join(sorted(file for file in files if file.startswith(folder))[:6])
    raise BadInput(
        f"{repo} has no {STEM}.safetensors ({some})",
        "safetensors weights under diffusers' names",
        "use a converted checkpoint",
    )


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn what the Hub's client raises for a bad name or network into a BadInput."""
    try:
        yield
    except HUB_ERRORS as error:
        raise explanation(name, error) from None


def explanation(name: str, error: Exception) -> BadInput:
    """What went wrong on the way to the Hub, and what to do."""
    if isinstance(error, hub.GatedRepoError):
        return BadInput(
            f"{name} is gated",
            "a repository you may read",
            "accept its terms on the Hub and log in (hf auth login)",
        )
    if isinstance(error, hub.RevisionNotFoundError):
        return BadInput(
            f"{name}: there is no such revision",
            "a branch, tag or commit",
            "correct the part behind the @",
        )
    if isinstance(error, hub.RepositoryNotFoundError):
        return BadInput(
            f"{name} is not on the Hub, or private",
            "a public repository, or one you may read",
            "check the name, or log in (hf auth login)",
        )
    if isinstance(error, hub.OfflineModeIsEnabled):
        return Unreachable(
            f"{name} is not in the cache, and the Hub is switched off (HF_HUB_OFFLINE)",
            "a network, or a folder",
            "unset HF_HUB_OFFLINE or give a folder",
        )
    if isinstance(error, hub.LocalEntryNotFoundError):
        return Unreachable(
            f"{name} is not in the cache, and the Hub does not answer",
            "a network, or a folder",
            "check the network and HF_HUB_OFFLINE, or give a folder",
        )
    if isinstance(error, hub.SafetensorsParsingError):
        return BadInput(
            f"{name} has a broken safetensors header ({short(error)})",
            "readable safetensors files",
            "report it to the repository's owner",
        )
    return Unreachable(
        f"{name} cannot be read from the Hub ({short(error)})",
        "a folder, or a Hub id that can be reached",
        "check the name and the network; with HF_HUB_OFFLINE=1 it must be in the cache",
    )


def short(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


# --- the local cache ------------------------------------------------------------------------------


def cached_transformer(repo: str, revision: str | None = None) -> Path | None:
    """The transformer's folder in the Hub's local cache, if its weights are there."""
    config = try_to_load_from_cache(repo, "transformer/config.json", revision=revision)
    if isinstance(config, str) and is_complete(Path(config).parent):
        return Path(config).parent
    return None


def is_complete(folder: Path) -> bool:
    """Whether a folder holds its weights: all shards of its index, or a file."""
    index = index_file(folder)
    if index is not None:
        return all((folder / shard).is_file() for shard in read_index(index).values())
    return any(file.is_file() for file in folder.glob("*.safetensors"))


def fetch(repo: str, revision: str | None = None) -> Path:
    """A repository in the local cache, fetched where it is missing: what a pipeline loads, without
    other variants and single files.

    Honours HF_HUB_OFFLINE and HF_HOME. Raises BadInput where it cannot be had.
    """
    ignored = [*NOT_NEEDED]
    with suppress(*HUB_ERRORS):  # offline: snapshot_download answers from the cache, or says why
        siblings = HfApi().model_info(repo, revision=revision).siblings or ()
        ignored += doubled({file.rfilename for file in siblings})
    with explained(repo):
        return Path(snapshot_download(repo, revision=revision, ignore_patterns=ignored))


def doubled(files: Set[str]) -> list[str]:
    """Weights of a repository that hold once more what others hold: variants beside the standard
    file, and single files beside a pipeline's folders.
    """
    standard: set[str] = set()
    variants: dict[str, str] = {}  # file, folder
    for file in files:
        folder, _, name = file.rpartition("/")
        if index_variant(name) or named_variant(name):
            variants[file] = folder
        elif name.endswith(".safetensors"):
            standard.add(folder)
    out = [file for file, folder in variants.items() if folder in standard]
    if "model_index.json" in files:
        out += [file for file in files if "/" not in file and file.endswith(".safetensors")]
    return sorted(set(out))


def fetch_config(repo: str, revision: str | None = None) -> Path:
    """The transformer's config in the local cache, fetched where it is missing."""
    with explained(repo):
        return Path(hf_hub_download(repo, "transformer/config.json", revision=revision))
