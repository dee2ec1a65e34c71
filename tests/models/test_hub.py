"""Describing a repository of the Hub from headers alone, against a small Hub on loopback."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from tests.refusals import refused
from tests.tiny import tiny_transformer
from workbench import models, tasks
from workbench.models.headers import STEM
from workbench.models.hub import doubled, is_complete

COMMIT = "a" * 40


class Hub(BaseHTTPRequestHandler):
    """Enough of the Hub: a repository's file list, and its files whole or by range."""

    repos: dict[str, Path]
    served: dict[str, int]  # file -> bytes sent
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_GET(self) -> None:
        if listed := re.fullmatch(
            r"/api/models/([^/]+/[^/?]+)(?:/revision/([^/?]+))?(?:\?.*)?", self.path
        ):
            self.list_files(*listed.groups())
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path):
            self.send_file(self.repos[match[1]] / match[3])
        else:
            self.answer(404, b"", X_Error_Code="RepoNotFound")

    do_HEAD = do_GET

    def list_files(self, repo: str, revision: str | None) -> None:
        if repo == "some/gated":
            return self.answer(403, b"{}", X_Error_Code="GatedRepo")
        if repo not in self.repos:
            return self.answer(401, b"{}", X_Error_Code="RepoNotFound")
        if revision not in (None, "v2"):
            return self.answer(404, b"{}", X_Error_Code="RevisionNotFound")
        files = [
            {"rfilename": str(f.relative_to(self.repos[repo]))}
            for f in self.repos[repo].rglob("*")
            if f.is_file()
        ]
        return self.answer(
            200,
            json.dumps({"id": repo, "sha": COMMIT, "siblings": files}).encode(),
            Content_Type="application/json",
        )

    def send_file(self, file: Path) -> None:
        if not file.is_file():
            return self.answer(404, b"", X_Error_Code="EntryNotFound")
        body, headers = (
            file.read_bytes(),
            {"ETag": f'"{sha1(file.read_bytes()).hexdigest()}"', "X_Repo_Commit": COMMIT},
        )
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
        part = body[int(wanted[1]) : int(wanted[2]) + 1] if wanted else body
        if self.command == "GET":
            self.served[file.name] = self.served.get(file.name, 0) + len(part)
        more = (
            {"Content_Range": f"bytes {wanted[1]}-{int(wanted[1]) + len(part) - 1}/{len(body)}"}
            if wanted
            else {}
        )
        return self.answer(206 if wanted else 200, part, **headers, **more)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Repositories: a pipeline of one file, a transformer in shards, a pipeline without one,
    pickled weights only.
    """
    root = tmp_path_factory.mktemp("hub")
    # large enough that a header's request does not hold the whole file
    model = tiny_transformer(depth=5, heads=4)
    model.save_pretrained(root / "pipeline" / "transformer")
    (root / "pipeline" / "model_index.json").write_text("{}")
    model.save_pretrained(root / "shards", max_shard_size="1MB")
    (root / "unet").mkdir()
    (root / "unet" / "model_index.json").write_text("{}")
    (root / "empty").mkdir()
    (root / "empty" / "README.md").write_text("nothing")
    model.save_pretrained(root / "pickled", safe_serialization=False)
    model.save_pretrained(root / "variant", variant="fp16")
    model.save_pretrained(root / "quantised")
    config = root / "quantised" / "config.json"
    quantised = {"quantization_config": {"quant_method": "torchao"}}
    config.write_text(json.dumps({**json.loads(config.read_text()), **quantised}))
    return root


@pytest.fixture
def hub(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The server's address. The client's cache is empty, and on."""
    Hub.repos, Hub.served = {f"some/{folder.name}": folder for folder in root.iterdir()}, {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("repo", "inner"), [("pipeline", "transformer"), ("shards", "")])
def test_headers_say_what_the_folder_says(hub: str, root: Path, repo: str, inner: str) -> None:
    local, found = (
        models.describe(root / repo / inner, "x"),
        models.describe_hub(f"some/{repo}", endpoint=hub),
    )
    assert found == local.model_copy(update={"name": f"some/{repo}", "fingerprint": ""})
    weights = {
        file.name: file.stat().st_size for file in (root / repo / inner).glob("*.safetensors")
    }
    assert len(weights) == (1 if inner else 4)
    assert all(
        Hub.served[name] <= 100_001 < size for name, size in weights.items() if size > 200_000
    )


def test_a_revision(hub: str) -> None:
    assert models.describe_hub("some/pipeline", "v2", endpoint=hub).name == "some/pipeline@v2"
    with refused(found="some/pipeline@v9", do="behind the @"):
        models.describe_hub("some/pipeline", "v9", endpoint=hub)


@pytest.mark.parametrize(
    ("repo", "field"),
    [
        ("some/nothing", {"do": "hf auth login"}),
        ("some/gated", {"found": "gated", "do": "hf auth login"}),
        ("some/unet", {"found": "transformer/config.json"}),
        ("some/empty", {"found": "model_index.json nor config.json"}),
        ("some/pickled", {"found": "diffusion_pytorch_model.bin"}),
    ],
)
def test_what_cannot_be_described(hub: str, repo: str, field: dict) -> None:
    with refused(**field) as error:
        models.describe_hub(repo, endpoint=hub)
    assert error.value.found.startswith(repo) and len(str(error.value)) < 400


def test_info_of_a_hub_id(
    hub: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`info` reads headers by range requests; what it found serves when the Hub is out of reach."""
    monkeypatch.setattr(models, "describe_hub", partial(models.describe_hub, endpoint=hub))
    found = tasks.run("info", {"teacher": "some/shards"}, tmp_path / "ws", device="cpu")
    local = tasks.run("info", {"teacher": str(root / "shards")}, tmp_path / "ws", device="cpu")
    same = ("family", "class", "parameters", "stacks", "parts", "memory")
    assert {key: found[key] for key in same} == {key: local[key] for key in same} and found[
        "teacher"
    ] == "some/shards"
    weights = {name: sent for name, sent in Hub.served.items() if name.endswith(".safetensors")}
    assert (
        len(weights) == 4
        and sum(weights.values())
        < sum(file.stat().st_size for file in (root / "shards").glob("*.safetensors")) / 2
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert (
        tasks.run("info", {"teacher": "some/shards"}, tmp_path / "ws", device="cpu")["parameters"]
        == local["parameters"]
    )
    with refused(found="some/nothing"):
        tasks.run("info", {"teacher": "some/nothing"}, tmp_path / "ws", device="cpu")


def test_without_a_network(hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with refused(found="some/pipeline", do="network"):
        models.describe_hub("some/pipeline", endpoint="http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with refused(found="some/pipeline", do="HF_HUB_OFFLINE"):
        models.describe_hub("some/pipeline", endpoint=hub)


def test_a_variant_alone_is_described(hub: str, root: Path) -> None:
    assert models.describe_hub("some/variant", endpoint=hub) == models.describe_hub(
        "some/shards", endpoint=hub
    ).model_copy(update={"name": "some/variant"})


def test_a_quantised_repository_is_not_described_from_its_config(
    hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "describe_hub", partial(models.describe_hub, endpoint=hub))
    with refused(found="torchao", do="unquantised"):
        tasks.run("info", {"teacher": "some/quantised"}, tmp_path / "ws", device="cpu")


def test_what_is_stored_twice_is_not_fetched() -> None:
    files = {
        "model_index.json",
        "flux1-dev.safetensors",
        f"transformer/{STEM}.safetensors.index.json",
        f"transformer/{STEM}-00001-of-00002.safetensors",
        f"transformer/{STEM}.fp16.safetensors",
        "text_encoder/model.safetensors",
        "text_encoder/model.fp16.safetensors",
        "text_encoder_2/model.fp16-00001-of-00002.safetensors",
        "text_encoder_2/model.safetensors.index.fp16.json",
    }
    assert doubled(files) == [
        "flux1-dev.safetensors",
        "text_encoder/model.fp16.safetensors",
        f"transformer/{STEM}.fp16.safetensors",
    ]
    # a transformer's own repository keeps the file at its root
    assert doubled({"config.json", f"{STEM}.safetensors"}) == []


def test_a_half_fetched_repository_is_not_taken_for_whole(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "transformer"
    shutil.copytree(root / "shards", folder)
    assert is_complete(folder)
    sorted(folder.glob("*.safetensors"))[0].unlink()
    assert not is_complete(folder)
    (folder / f"{STEM}.safetensors.index.json").unlink()
    for shard in folder.glob("*.safetensors"):
        shard.unlink()
    assert not is_complete(folder)
