"""The server of one study: a page for raters, and nothing else.

The page is the same for everyone. A rater is known by a cookie; addresses hold a rater's position
and a place on the page, so that no address, file name or header says which model a picture is of.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from ..records import BadInput, jsonfile
from ..study.booth import Booth
from .guard import Guard

RATER = "rater"  # cookie: a rater's own code
INVITED = "link"  # cookie: the code of the link that was opened
MOST_BYTES = 4096  # of a vote
ASSETS = {
    "raters.js": "text/javascript; charset=utf-8",
    "raters.css": "text/css; charset=utf-8",
}
HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-robots-tag": "noindex",
}
NO_LINK = "Open the link that you were given."


class RaterPages:
    """What a booth's server answers. Handlers run one after the other: votes cannot cross."""

    def __init__(self, booth: Booth) -> None:
        self.booth = booth

    def app(self, hosts: Sequence[str] = ()) -> Starlette:
        """The ASGI application. hosts: further names under which it is reached (see Guard)."""
        routes = [
            Route("/", self.page),
            Route("/join/{code}", self.join),
            Route("/as/{code}", self.join),
            Route("/state", self.state),
            Route("/begin", self.begin, methods=["POST"]),
            Route("/vote", self.vote, methods=["POST"]),
            Route("/picture/{position:int}/{slot}", self.picture),
        ]
        routes += [Route(f"/{name}", self.asset) for name in ASSETS]
        return Starlette(routes=routes, middleware=[Middleware(Guard, hosts=hosts)])

    # --- the page ---------------------------------------------------------------------------------

    async def page(self, request: Request) -> Response:
        if self.rater_of(request) is None and not self.may_join(request):
            return refusal(404, NO_LINK)
        return Response(asset("raters.html"), headers=HEADERS, media_type="text/html")

    async def asset(self, request: Request) -> Response:
        name = request.url.path.removeprefix("/")
        return Response(asset(name), headers=HEADERS, media_type=ASSETS[name])

    async def join(self, request: Request) -> Response:
        """A link was opened. Nobody gets a place yet: chat programs open links to preview them."""
        code = request.path_params["code"]
        rater = self.booth.rater_of(code)
        is_open = code == self.booth.codes.open_link() and not self.booth.study.invited_only
        if rater is None and not is_open:
            return refusal(404, NO_LINK)
        response = RedirectResponse("/", 303, HEADERS)
        name = INVITED if rater is None else RATER
        set_cookie(response, name, code)
        return response

    # --- what it asks -----------------------------------------------------------------------------

    async def state(self, request: Request) -> Response:
        rater = self.rater_of(request)
        if rater is None and not self.may_join(request):
            return refusal(404, NO_LINK)
        return JSONResponse(self.look(rater), headers=HEADERS)

    async def begin(self, request: Request) -> Response:
        own = request.cookies.get(RATER, "")
        if self.booth.rater_of(own) is None and not self.may_join(request):
            return refusal(404, NO_LINK)
        try:
            code = self.booth.begin(own)
        except BadInput as error:
            return refusal(409, str(error))
        except OSError as error:
            return unsaved(error)
        response = JSONResponse(self.look(self.booth.rater_of(code)), headers=HEADERS)
        set_cookie(response, RATER, code)
        return response

    async def vote(self, request: Request) -> Response:
        rater = self.rater_of(request)
        if rater is None or not self.booth.has_begun(rater):
            return refusal(404, NO_LINK)
        try:
            self.booth.vote(rater, answer_in(await request.body()))
        except BadInput as error:
            return refusal(409, str(error))
        except OSError as error:
            return unsaved(error)
        return JSONResponse(self.look(rater), headers=HEADERS)

    async def picture(self, request: Request) -> Response:
        rater = self.rater_of(request)
        if rater is None or not self.booth.has_begun(rater):
            return refusal(404, NO_LINK)
        place = request.path_params
        png = self.booth.picture(rater, place["position"], place["slot"])
        if png is None:
            return refusal(404, "Not the picture you are at.")
        return Response(png, headers=HEADERS, media_type="image/png")

    # --- parts ------------------------------------------------------------------------------------

    def rater_of(self, request: Request) -> int | None:
        return self.booth.rater_of(request.cookies.get(RATER, ""))

    def may_join(self, request: Request) -> bool:
        """Whether this browser has opened the link for everyone."""
        is_open = not self.booth.study.invited_only
        return is_open and request.cookies.get(INVITED) == self.booth.codes.open_link()

    def look(self, rater: int | None) -> dict[str, Any]:
        """What the page may know: where the rater is, and the prompt."""
        shown: dict[str, Any] = {"kind": self.booth.study.kind, "slots": self.booth.slots()}
        if rater is None or not self.booth.has_begun(rater):
            return {**shown, "begun": False}
        place = self.booth.place(rater)
        shown |= {"begun": True, "position": place.position, "total": place.total}
        return {**shown, "prompt": place.prompt}


def answer_in(body: bytes) -> dict[str, Any]:
    """The object in a request. Raises BadInput for anything else."""
    if len(body) > MOST_BYTES:
        raise BadInput(f"a vote of {len(body)} bytes", f"at most {MOST_BYTES}", "reload the page")
    data = jsonfile.parse_as(body, "the vote", "vote")
    if not isinstance(data, dict):
        raise BadInput(f"a vote that is {type(data).__name__}", "an object", "reload the page")
    return data


def set_cookie(response: Response, name: str, code: str) -> None:
    """A cookie of the browser that scripts cannot read and other sites do not send."""
    response.set_cookie(name, code, max_age=90 * 24 * 3600, httponly=True, samesite="lax")


def refusal(status: int, line: str) -> Response:
    return JSONResponse({"error": line}, status, headers=HEADERS)


def unsaved(error: OSError) -> Response:
    return refusal(507, f"this could not be saved ({error.strerror}); try again later")


def asset(name: str) -> str:
    return (resources.files("workbench.web") / name).read_text("utf-8")


def serve(
    folder: Path, host: str = "127.0.0.1", port: int = 7870, hosts: Sequence[str] = ()
) -> None:
    """Serve a study until the process is stopped. Raises BadInput for a folder without a study, and
    one that is being served.
    """
    import uvicorn

    booth = Booth(folder)
    logging.getLogger("uvicorn.access").disabled = True  # it would list who voted when
    try:
        uvicorn.run(RaterPages(booth).app(hosts), host=host, port=port, log_level="warning")
    finally:
        booth.close()
