"""A free port on this machine, a token, and a server that runs until it is interrupted."""

from __future__ import annotations

import importlib.util
import secrets
import socket
import webbrowser
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pathopan.errors import ConfigError, MissingExtra
from pathopan.result import open_result

if TYPE_CHECKING:
    import uvicorn

ADDRESS = "127.0.0.1"
STATIC = Path(__file__).parent / "static"

_TOKEN_BYTES = 24
_PATIENCE_S = 3  # for answers under way when the viewer is stopped
_IN_TERMINAL = ("www-browser", "links", "elinks", "lynx", "w3m")


@dataclass(frozen=True)
class Viewer:
    """A server that is ready: its socket listens, so a browser may come before `serve` is called."""

    url: str
    server: uvicorn.Server
    listening: socket.socket

    def open_browser(self) -> bool:
        """Show the viewer in the user's browser; false if there is none with windows."""
        try:
            browser = webbrowser.get()
        except webbrowser.Error:
            return False
        return getattr(browser, "name", "") not in _IN_TERMINAL and browser.open(self.url)

    def serve(self) -> None:
        """Answer until interrupted; answers under way are finished."""
        with self.listening, suppress(KeyboardInterrupt):
            self.server.run(sockets=[self.listening])


def open_viewer(out: Path, *, port: int = 0) -> Viewer:
    """Prepare to show a finished run.

    Parameters
    ----------
    out : Path
        Folder of the run; nothing is written to it.
    port : int
        Port on 127.0.0.1; 0 takes a free one.

    Raises
    ------
    MissingExtra
        If the server's libraries are not installed.
    ResultError
        If the folder holds no finished run.
    ConfigError
        If the port cannot be had.
    """
    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        msg = f"the viewer needs {' and '.join(missing)}: pip install 'pathopan[view]'"
        raise MissingExtra(msg)
    import uvicorn

    from pathopan.viewer.app import make_app
    from pathopan.viewer.gallery import Gallery

    gallery = Gallery(open_result(out))
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    listening = _listen(port)
    config = uvicorn.Config(
        make_app(gallery, token),
        log_config=None,  # an access log would hold the token
        log_level="warning",
        access_log=False,
        lifespan="on",
        ws="none",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_PATIENCE_S,
    )
    url = f"http://{ADDRESS}:{listening.getsockname()[1]}/{token}/"
    return Viewer(url, uvicorn.Server(config), listening)


def _listen(port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((ADDRESS, port))
        listening.listen()
    except (OSError, OverflowError) as error:
        listening.close()
        msg = f"port {port} cannot be used ({error}); choose another with --port, or leave it out for a free one"
        raise ConfigError(msg) from error
    return listening
