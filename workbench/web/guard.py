"""Who may talk to the app: requests by a name that is not its own, requests of other sites, uploads
and hurried logins are turned away before Gradio sees them.

A page of another site cannot read our answers, but it can send requests. And where its own name is
made to point at this machine (DNS rebinding), the browser takes our app for that site: only the
name in the Host header tells. An address in numbers cannot be rebound.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MOST_BYTES = 8 * 2**20  # of a request
FREE_TRIES = 5  # logins that may fail before one has to wait
LONGEST_WAIT = 60.0  # seconds between two logins of one address
MOST_ADDRESSES = 10_000  # whose failed logins are remembered


class Guard:
    """ASGI middleware. hosts: further names under which the app is reached, as a proxy has them.
    clock: seconds, for tests.
    """

    def __init__(
        self, app: Any, hosts: Iterable[str] = (), clock: Callable[[], float] = time.monotonic
    ):
        self.app = app
        self.hosts = {host.lower() for host in hosts}
        self.logins = Logins(clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        refusal = self.refusal(scope)
        if refusal is not None:
            await refuse(refusal, scope, receive, send)
        elif is_login(scope):
            await self.login(scope, receive, send)
        else:
            await self.app(scope, limited(receive), send)

    def refusal(self, scope: Scope) -> PlainTextResponse | None:
        """Why a request is turned away; None where it is not."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self.is_ours(host):
            return answer(
                403,
                "This name is not one of the app's. Open it by its address, or start it with "
                "--allow-host NAME.",
            )
        if self.is_foreign(scope, headers, host):
            return answer(403, "Requests of other sites are turned away.")
        if path_of(scope).endswith("/upload"):
            return answer(403, "This app takes no uploads.")
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > MOST_BYTES:
            return answer(413, f"A request has at most {MOST_BYTES // 2**20} MiB.")
        return None

    def is_ours(self, host: str) -> bool:
        """Whether a Host header names this app: numbers, this machine, or a name that was given."""
        name = name_of(host)
        return (
            is_address(name)
            or name == "localhost"
            or name.endswith(".localhost")
            or name == socket.gethostname().lower()
            or name in self.hosts
            or host.lower() in self.hosts
        )

    def is_foreign(self, scope: Scope, headers: Headers, host: str) -> bool:
        """Whether a page of another site sent this. A link followed from there is welcome; clients
        that are no browsers say nothing about where they are.
        """
        origin = headers.get("origin")
        if origin is not None:
            _, _, place = origin.lower().partition("://")
            if place != host.lower() and not {place, name_of(place)} & self.hosts:
                return True
        if headers.get("sec-fetch-site") != "cross-site":
            return False
        if origin is not None:  # it is one of our names: see above
            return False
        is_link = headers.get("sec-fetch-mode") == "navigate"
        return not (is_link and scope.get("method") == "GET")

    async def login(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a login on, unless this address failed often and has to wait."""
        client = (scope.get("client") or ("", 0))[0]
        wait = self.logins.wait(client)
        if wait > 0:
            refusal = answer(429, f"Too many logins failed: wait {wait:.0f} s.")
            refusal.headers["retry-after"] = str(int(wait) + 1)
            await refuse(refusal, scope, receive, send)
            return
        self.logins.failed(client)  # until it is known: several at once are several tries

        async def send_on(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start" and message["status"] < 400:
                self.logins.succeeded(client)
            await send(message)

        await self.app(scope, limited(receive), send_on)


class Logins:
    """Failed logins of each address, and how long it has to wait."""

    def __init__(self, clock: Callable[[], float]):
        self.clock = clock
        self.failures: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def wait(self, client: str) -> float:
        """Seconds until this address may try again: 1, 2, 4 .. after the free tries."""
        count, last = self.failures.get(client, (0, 0.0))
        if count < FREE_TRIES:
            return 0.0
        pause = min(LONGEST_WAIT, 2.0 ** min(count - FREE_TRIES, 10))
        return max(0.0, last + pause - self.clock())

    def failed(self, client: str) -> None:
        count, _ = self.failures.pop(client, (0, 0.0))
        self.failures[client] = (count + 1, self.clock())
        if len(self.failures) > MOST_ADDRESSES:
            self.failures.popitem(last=False)

    def succeeded(self, client: str) -> None:
        self.failures.pop(client, None)


# --- parts of a request ---------------------------------------------------------------------------


def name_of(host: str) -> str:
    """The name or address in a Host header, without its port."""
    host = host.lower().strip()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def path_of(scope: Scope) -> str:
    return str(scope.get("path", "")).rstrip("/")


def is_login(scope: Scope) -> bool:
    return scope.get("method") == "POST" and path_of(scope).endswith("/login")


def limited(receive: Receive) -> Receive:
    """The body of a request, broken off where it is longer than its length said or had none."""
    total = 0

    async def receive_on() -> MutableMapping[str, Any]:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > MOST_BYTES:
            return {"type": "http.disconnect"}
        return message

    return receive_on


# --- answers --------------------------------------------------------------------------------------


def answer(status: int, text: str) -> PlainTextResponse:
    return PlainTextResponse(text + "\n", status_code=status)


async def refuse(response: PlainTextResponse, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    await response(scope, receive, send)
