"""Upload a released folder to the Hub, through huggingface_hub; nothing there is overwritten unless
the user says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from ..records import BadInput

Kind = Literal["model", "space"]
MADE_BY_HUB = {".gitattributes"}  # of an empty repository


def check_repo_name(repo: str) -> None:
    """Raises BadInput for what is not OWNER/NAME."""
    try:
        validate_repo_id(repo)
    except HFValidationError:
        repo = f"{repo!r}"
        valid = False
    else:
        valid = "/" in repo
    if not valid:
        raise BadInput(f"--push {repo}", "OWNER/NAME on the Hub", "correct the name")


def check_upload(repo: str, replace: bool, kind: Kind = "model") -> list[str]:
    """Names of the files that the repository has now; empty where there is no such repository.
    kind: of models and Spaces, which may have the same name.

    Raises BadInput where there are files and `replace` is false, and for a Hub that refuses.
    """
    try:
        files = HfApi(endpoint=constants.ENDPOINT).list_repo_files(repo, repo_type=kind)
    except RepositoryNotFoundError:
        return []  # or private to others: creating it says so
    except (HfHubHTTPError, OSError) as error:
        raise refused_by_hub(repo, error) from None
    present = [name for name in files if name not in MADE_BY_HUB]
    if present and not replace:
        raise BadInput(
            f"{'the Space ' if kind == 'space' else ''}{repo} has {len(present)} files on the Hub",
            "a new or empty repository",
            "choose another name, or add --replace to put this release in their place",
        )
    return present


def push(folder: Path, repo: str, *, public: bool, replace: bool, kind: Kind = "model") -> str:
    """Create the repository where there is none, and upload the folder in one commit. Files of the
    repository that the folder lacks are removed with `replace`. Returns the repository's address.

    Raises BadInput for a Hub that refuses.
    """
    check_upload(repo, replace, kind)
    api = HfApi(endpoint=constants.ENDPOINT)
    try:
        created = api.create_repo(
            repo,
            private=not public,
            exist_ok=True,
            repo_type=kind,
            space_sdk="gradio" if kind == "space" else None,
        )
        api.upload_folder(
            repo_id=created.repo_id,
            repo_type=kind,
            folder_path=folder,
            commit_message="Upload a release made with DiT Workbench",
            delete_patterns="*" if replace else None,
        )
    except (HfHubHTTPError, LocalTokenNotFoundError, OSError) as error:
        raise refused_by_hub(repo, error) from None
    folder_name = "spaces/" if kind == "space" else ""
    return f"{constants.ENDPOINT}/{folder_name}{created.repo_id}"


def refused_by_hub(repo: str, error: Exception) -> BadInput:
    """The Hub's refusal in one line."""
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    reason = " ".join(str(error).split())[:200]
    if status in (401, 403) or isinstance(error, LocalTokenNotFoundError):
        return BadInput(
            f"the Hub does not let you write to {repo} ({reason})",
            "a token that may",
            "run `hf auth login`, or set HF_TOKEN",
        )
    return BadInput(
        f"the Hub did not take {repo} ({reason})", "an answer from the Hub", "try again later"
    )
