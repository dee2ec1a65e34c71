"""What a model on the Hub is made of, from its config and the headers of its safetensors files:
some kilobytes a file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub import errors as hub

from ..records import BadInput, Teacher, read_text
from .checkpoints import DTYPES, STEM
from .describing import describe_headers, read_config


def describe_hub(repo: str, revision: str | None = None, endpoint: str | None = None) -> Teacher:
    """Describe a pipeline or transformer repository by range requests; no weights are downloaded.

    `endpoint` None is the Hub's client's own (HF_ENDPOINT). The record has no fingerprint: that
    needs samples of the weights. Raises BadInput for a repository that is not there, private,
    without safetensors or of an unknown class, and when offline.
    """
    api = HfApi(endpoint=endpoint)
    name = f"{repo}@{revision}" if revision else repo
    with _explained(name):
        files = {file.rfilename for file in api.model_info(repo, revision=revision).siblings or ()}
        folder = _folder(name, files)
        config = read_config(
            Path(api.hf_hub_download(repo, f"{folder}config.json", revision=revision))
        )
        tensors = {}
        for file in _weights(api, repo, revision, folder, files):
            header = api.parse_safetensors_file_metadata(repo, file, revision=revision)
            tensors.update(
                {key: (str(info.dtype), list(info.shape)) for key, info in header.tensors.items()}
            )
    for key, (dtype, _) in tensors.items():
        if dtype not in DTYPES:
            raise BadInput(
                f"{name}: tensor {key} is of dtype {dtype}",
                "one of " + ", ".join(DTYPES),
                "use an unquantized checkpoint",
            )
    return describe_headers(name, config, tensors, name, "")


def _folder(name: str, files: set[str]) -> str:
    """Where in the repository the transformer lies."""
    if "transformer/config.json" in files:
        return "transformer/"
    if "config.json" in files and "model_index.json" not in files:
        return ""
    found = (
        "a pipeline without transformer/config.json"
        if "model_index.json" in files
        else "neither model_index.json nor config.json"
    )
    raise BadInput(
        f"{name} has {found}",
        "a diffusion transformer pipeline, or a transformer",
        "choose another repository",
    )


def _weights(
    api: HfApi, repo: str, revision: str | None, folder: str, files: set[str]
) -> list[str]:
    """The safetensors files of the transformer."""
    index = f"{folder}{STEM}.safetensors.index.json"
    if index in files:
        text = read_text(Path(api.hf_hub_download(repo, index, revision=revision)), "index")
        return [folder + file for file in sorted(set(json.loads(text)["weight_map"].values()))]
    if f"{folder}{STEM}.safetensors" in files:
        return [f"{folder}{STEM}.safetensors"]
    held = ", ".join(sorted(file for file in files if file.startswith(folder))[:6])
    raise BadInput(
        f"{repo} has no {STEM}.safetensors ({held})",
        "safetensors weights under diffusers' names",
        "use a converted checkpoint",
    )


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn what the Hub's client raises into one line."""
    try:
        yield
    except hub.GatedRepoError:
        raise BadInput(
            f"{name} is gated",
            "a repository you may read",
            "accept its terms on the Hub and log in (hf auth login)",
        ) from None
    except hub.RevisionNotFoundError:
        raise BadInput(
            f"{name}: there is no such revision",
            "a branch, tag or commit",
            "correct the part behind the @",
        ) from None
    except hub.RepositoryNotFoundError:
        raise BadInput(
            f"{name} is not on the Hub, or private",
            "a public repository, or one you may read",
            "check the name, or log in (hf auth login)",
        ) from None
    except hub.OfflineModeIsEnabled:
        raise BadInput(
            f"{name} cannot be asked for: the Hub is switched off (HF_HUB_OFFLINE)",
            "a network, or a folder",
            "unset HF_HUB_OFFLINE or give a folder",
        ) from None
    except hub.SafetensorsParsingError as error:
        raise BadInput(
            f"{name} has a broken safetensors header ({_short(error)})",
            "sound files",
            "tell its owner",
        ) from None
    except BadInput:
        raise
    except Exception as error:  # the client's HTTP library raises kinds of its own
        raise BadInput(
            f"{name} cannot be read from the Hub ({_short(error)})",
            "a Hub that answers",
            "check the network, or give a folder",
        ) from None


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
