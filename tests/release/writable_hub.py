"""A Hub on loopback that repositories can be created on and written to, as huggingface_hub does."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from huggingface_hub import constants

API = r"/api/(models|spaces)/([^/]+/[^/?]+)"


def name_of(match: re.Match[str]) -> str:
    """A repository's name; that of a Space begins with spaces/, for a model may have the same."""
    return match[2] if match[1] == "models" else f"spaces/{match[2]}"


class WritableHub(BaseHTTPRequestHandler):
    """repos: name -> file -> bytes. commits: how many there were. writers: tokens that may write."""

    repos: dict[str, dict[str, bytes]]
    commits: int
    private: dict[str, bool]
    may_write: bool
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def answer(self, status: int, data: Any, **headers: str) -> None:
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        tree = re.match(API + r"/tree/", self.path)
        info = re.match(API + r"(/revision/|\?|$)", self.path)
        match = tree or info
        if match is None or name_of(match) not in self.repos:
            self.answer(404, {"error": "no such repository"}, X_Error_Code="RepoNotFound")
        elif tree:
            files = self.repos[name_of(match)]
            listed = []
            for path, data in files.items():
                listed.append({"type": "file", "path": path, "size": len(data), "oid": "0" * 40})
            self.answer(200, listed)
        else:
            self.answer(200, {"id": match[2], "sha": "a" * 40, "siblings": []})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/validate-yaml":
            self.answer(200, {"errors": [], "warnings": []})
        elif self.path == "/api/repos/create":
            self.create(json.loads(body))
        elif match := re.match(API + r"/preupload/", self.path):
            files = json.loads(body)["files"]
            answers = []
            for file in files:
                answers.append(
                    {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                )
            self.answer(200, {"files": answers})
        elif match := re.match(API + r"/commit/", self.path):
            self.commit(name_of(match), body)
        else:
            self.answer(404, {"error": self.path})

    def create(self, data: dict[str, Any]) -> None:
        if not self.may_write:
            self.answer(403, {"error": "no right to create repositories"})
            return
        name = f"{data['organization']}/{data['name']}"
        if data.get("type") == "space":
            assert data["sdk"] == "gradio"
            name = f"spaces/{name}"
        known = name in self.repos
        self.repos.setdefault(name, {".gitattributes": b""})
        if not known:
            self.private[name] = data.get("visibility") == "private"
        host = f"http://{self.headers['Host']}"
        self.answer(409 if known else 200, {"url": f"{host}/{name}"})

    def commit(self, repo: str, body: bytes) -> None:
        type(self).commits += 1
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                content = base64.b64decode(entry["value"]["content"])
                self.repos[repo][entry["value"]["path"]] = content
            elif entry["key"] == "deletedFile":
                del self.repos[repo][entry["value"]["path"]]
        url = f"http://{self.headers['Host']}/{repo}/commit/1"
        self.answer(200, {"commitUrl": url, "commitOid": "b" * 40})


@contextmanager
def running(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[WritableHub]]:
    """The Hub, asked instead of the real one."""
    hub = type("Hub", (WritableHub,), {"repos": {}, "private": {}, "commits": 0, "may_write": True})
    server = ThreadingHTTPServer(("127.0.0.1", 0), hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_loopback")
    yield hub
    server.shutdown()
    server.server_close()
