"""Which address gives what, and who may ask: only a browser on this machine that knows the token, and only to read."""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio.to_thread
import orjson
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pathopan.errors import PathopanError
from pathopan.geometry import Window
from pathopan.viewer.answers import check_bounds, describe, list_slides, outlines_in, pick, region_card
from pathopan.viewer.gallery import Exhibit, Gallery
from pathopan.viewer.serve import STATIC

HOSTS = ("127.0.0.1", "localhost")
"""Names under which a browser may know this machine; any other was rebound to it by someone else's DNS."""

_LIBRARY_STYLE = "'sha256-9xTiqzfwFaL2SGb1rmr8gysEwVVjIvqWAgmZgqFqpEE='"  # the one rule that OpenSeadragon 6.1.1 adds
_HOUR = "private, max-age=3600"
_HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; script-src 'self'; style-src 'self' {_LIBRARY_STYLE}; img-src 'self' data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_REFUSAL = "The address lacks the token of this viewer. Open the address that `pathopan view` printed.\n"


class Guard:
    """Lets a request in only if its path starts with the token, and says on every answer what a browser may do.

    Parameters
    ----------
    app : ASGI application
        What lies behind; it sees the token as its root path.
    token : str
        The first part of every path.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        """Keep the token."""
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        first, slash, _ = scope["path"].removeprefix("/").partition("/")
        if not secrets.compare_digest(first.encode("utf-8", "surrogatepass"), self._token):
            answer: ASGIApp = PlainTextResponse(_REFUSAL, status_code=403)
        elif not slash:
            answer = RedirectResponse(f"/{first}/")
        else:
            answer, scope = self._app, {**scope, "root_path": f"/{first}"}
        await answer(scope, receive, send_with_headers)


def make_app(gallery: Gallery, token: str) -> Starlette:
    """Build the application.

    Parameters
    ----------
    gallery : Gallery
        The slides to show; closed when the application ends.
    token : str
        What every path must start with.
    """

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = min(8, 2 + (os.cpu_count() or 1))
        yield
        gallery.close()

    guards = [
        Middleware(TrustedHostMiddleware, allowed_hosts=list(HOSTS), www_redirect=False),
        Middleware(Guard, token=token),
    ]
    routes = [*_page_routes(), *_tile_routes(gallery), *_row_routes(gallery)]
    return Starlette(
        routes=routes, middleware=guards, exception_handlers={PathopanError: _say_failure}, lifespan=lifespan
    )


def _page_routes() -> list[Route | Mount]:
    """List the addresses of the page itself."""

    def page(_request: Request) -> Response:
        return FileResponse(STATIC / "viewer.html", headers={"Cache-Control": "no-store"})

    def icon(_request: Request) -> Response:
        return FileResponse(STATIC / "icon.svg", media_type="image/svg+xml", headers={"Cache-Control": _HOUR})

    return [Route("/", page), Route("/favicon.ico", icon), Mount("/static", StaticFiles(directory=STATIC))]


def _tile_routes(gallery: Gallery) -> list[Route]:
    """List the addresses of images. Slides go by number: no part of an address names a file."""

    def tiles(layer: str, kind: str, draw: Callable[[Exhibit, Request, Window, float], bytes]) -> Route:
        def answer(request: Request) -> Response:
            shown = _exhibit(gallery, request)
            level, column, row = (request.path_params[name] for name in ("level", "column", "row"))
            with _told(IndexError, 404):
                window, mpp = shown.plane.tile(level, column=column, row=row)
            return _image(draw(shown, request, window, mpp), kind)

        return Route(f"/slides/{{slide:int}}/{layer}/{{level:int}}/{{column:int}}_{{row:int}}.{kind}", answer)

    def thumbnail(request: Request) -> Response:
        with _told(IndexError, 404):
            return _image(gallery.thumbnail(request.path_params["slide"]), "jpeg")

    return [
        Route("/slides/{slide:int}/thumbnail.jpeg", thumbnail),
        tiles("picture", "jpeg", lambda shown, _, window, mpp: shown.picture_tile(window, mpp)),
        tiles("regions", "png", lambda shown, r, window, mpp: shown.region_tile(window, mpp, hidden=_hidden(r))),
        tiles("nuclei", "png", lambda shown, r, window, mpp: shown.nucleus_tile(window, mpp, hidden=_hidden(r))),
        tiles("density", "png", lambda shown, _, window, mpp: shown.density_tile(window, mpp)),
    ]


def _row_routes(gallery: Gallery) -> list[Route]:
    """List the addresses of numbers and outlines."""

    def outlines(request: Request) -> Response:
        x0, y0, x1, y1 = (_number(request, name) for name in ("x0", "y0", "x1", "y1"))
        with _told(ValueError, 400):
            check_bounds((x0, y0, x1, y1))
        return _json(outlines_in(_exhibit(gallery, request), (x0, y0, x1, y1)), cache=_HOUR)

    def picked(request: Request) -> Response:
        place_um = _number(request, "x"), _number(request, "y")
        return _json(pick(_exhibit(gallery, request), place_um, mpp=_mpp(request)))

    def region(request: Request) -> Response:
        shown, mpp = _exhibit(gallery, request), _mpp(request)
        with _told(IndexError, 404):
            return _json(region_card(shown, request.path_params["region"], mpp=mpp))

    return [
        Route("/slides", lambda _request: _json(list_slides(gallery))),
        Route("/slides/{slide:int}", lambda request: _json(describe(_exhibit(gallery, request)))),
        Route("/slides/{slide:int}/outlines", outlines),
        Route("/slides/{slide:int}/pick", picked),
        Route("/slides/{slide:int}/regions/{region:int}", region),
    ]


@contextmanager
def _told(kind: type[Exception], status: int) -> Iterator[None]:
    """Turn an error that the request caused into an answer."""
    try:
        yield
    except kind as error:
        raise HTTPException(status, str(error)) from error


def _exhibit(gallery: Gallery, request: Request) -> Exhibit:
    with _told(IndexError, 404):
        return gallery.exhibit(request.path_params["slide"])


def _hidden(request: Request) -> frozenset[int]:
    """Read the class ids to leave out, such as ``hide=2-4``."""
    with _told(ValueError, 400):
        return frozenset(int(part) for part in request.query_params.get("hide", "").split("-") if part)


def _number(request: Request, name: str) -> float:
    with _told(ValueError, 400):
        value = float(request.query_params.get(name, "nan"))
    if not math.isfinite(value):
        raise HTTPException(400, f"{name} must be a number")
    return value


def _mpp(request: Request) -> float:
    mpp = _number(request, "mpp")
    if mpp <= 0:
        raise HTTPException(400, "mpp must be positive")
    return mpp


def _image(content: bytes, kind: str) -> Response:
    return Response(content, media_type=f"image/{kind}", headers={"Cache-Control": _HOUR})


def _json(content: Any, *, cache: str = "no-store") -> Response:
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY, default=str)
    return Response(body, media_type="application/json", headers={"Cache-Control": cache})


def _say_failure(_request: Request, error: Exception) -> Response:
    return PlainTextResponse(str(error), status_code=500)
