"""Who may talk to the app: asked as other sites, rebound names and guessers of passwords would."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from workbench.ui import app
from workbench.web.guard import MOST_BYTES, Guard


async def hear(request: Request) -> PlainTextResponse:
    body = await request.body()
    return PlainTextResponse("heard", status_code=401 if body == b"wrong" else 200)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def client(clock: Clock) -> TestClient:
    routes = [Route("/{path:path}", hear, methods=["GET", "POST"])]
    guard = Guard(Starlette(routes=routes), hosts=["lab.example", "proxy:8443"], clock=clock)
    return TestClient(guard, base_url="http://127.0.0.1:7860")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:7860", 200),
        ("localhost:7860", 200),
        ("192.168.1.20", 200),
        ("[::1]:7860", 200),
        ("lab.example", 200),
        ("LAB.example:443", 200),
        ("proxy:8443", 200),
        ("proxy", 403),
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("lab.example.evil.example", 403),
        ("", 403),
    ],
)
def test_a_name_that_is_not_the_apps_is_turned_away(client: TestClient, host: str, status: int):
    for method in ("GET", "POST"):
        assert client.request(method, "/config", headers={"host": host}).status_code == status


@pytest.mark.parametrize(
    ("headers", "get", "post"),
    [
        ({}, 200, 200),  # a client that is no browser
        ({"origin": "http://127.0.0.1:7860", "sec-fetch-site": "same-origin"}, 200, 200),
        ({"origin": "https://lab.example", "sec-fetch-site": "cross-site"}, 200, 200),
        ({"origin": "http://127.0.0.1:9999", "sec-fetch-site": "same-site"}, 403, 403),
        ({"origin": "https://evil.example"}, 403, 403),
        ({"origin": "null"}, 403, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 200, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403, 403),
    ],
)
def test_other_sites_may_link_here_and_nothing_else(
    client: TestClient, headers: dict[str, str], get: int, post: int
):
    assert client.get("/", headers=headers).status_code == get
    assert client.post("/gradio_api/queue/join", headers=headers).status_code == post


def test_no_uploads_and_no_endless_requests(client: TestClient):
    assert client.post("/gradio_api/upload", content=b"x").status_code == 403
    assert client.post("/wb/gradio_api/upload/", content=b"x").status_code == 403
    assert client.post("/gradio_api/call", content=b"x" * (MOST_BYTES + 1)).status_code == 413

    def stream():
        for _ in range(10):
            yield b"x" * (MOST_BYTES // 8)

    with pytest.raises(Exception):  # noqa: B017 (the app's reading of it ends: disconnected)
        client.post("/gradio_api/call", content=stream())


def test_logins_are_slowed(client: TestClient, clock: Clock):
    """Of 120 guesses in 20 minutes some 30 are heard; who knows the password waits once."""
    passed = 0
    for _ in range(120):
        clock.now += 10
        passed += client.post("/login", content=b"wrong").status_code == 401
    assert passed < 32
    answer = client.post("/login", content=b"right")
    assert answer.status_code == 429 and 0 < int(answer.headers["retry-after"]) <= 61
    clock.now += 61
    assert client.post("/login", content=b"right").status_code == 200
    for _ in range(4):
        assert client.post("/login", content=b"wrong").status_code == 401, "forgotten"


def test_an_app_for_everybody_says_so_loudly():
    assert app.is_loopback("127.0.0.1") and app.is_loopback("localhost") and app.is_loopback("::1")
    assert not app.is_loopback("0.0.0.0") and not app.is_loopback("lab.example")
    warning = app.open_to_all("0.0.0.0", read_only=False)
    assert "WARNING" in warning and "run jobs" in warning and "--auth" in warning
    assert "see everything" in app.open_to_all("0.0.0.0", read_only=True)
