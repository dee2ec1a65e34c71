"""Serve the app in this process, ask it as a browser would, and print what came of it as JSON."""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request

from workbench import ui

HEAVY = ("torch", "diffusers", "transformers", "rfc3987_syntax")


def ask(url: str, body: bytes | None = None, **headers: str) -> int:
    """The status of an answer."""
    request = urllib.request.Request(url, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def main() -> None:
    workspace, port = sys.argv[1], int(sys.argv[2])
    ui.launch(workspace, "127.0.0.1", port, auth=("a", "b"), block=False)
    url = f"http://127.0.0.1:{port}/"
    print(
        json.dumps(
            {
                "page": ask(url),
                "config": ask(url + "config"),
                "rebound": ask(url, Host="evil.example"),
                "upload": ask(url + "gradio_api/upload", b"x"),
                "foreign": ask(url + "login", b"x", Origin="https://evil.example"),
                "logins": [ask(url + "login", b"username=a&password=x") for _ in range(6)],
                "heavy": [name for name in HEAVY if name in sys.modules],
                "trust": os.environ.get("WORKBENCH_TRUST_REMOTE_CODE"),
            }
        )
    )
    sys.stdout.flush()
    os._exit(0)


main()
