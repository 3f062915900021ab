"""Runs the application on a port of this machine."""

import secrets
import socket
import threading
from collections.abc import Callable

import uvicorn

from tavq.core.errors import UsageError
from tavq.explore.explorer import Explorer
from tavq.explore.server.app import make_app

HOST = "127.0.0.1"
BACKLOG = 512
TOKEN_BYTES = 16


def serve(explorer: Explorer, port: int = 0, ready: Callable[[str], None] | None = None) -> None:
    """Answer requests from this machine until the process is interrupted.

    Args:
        explorer: what the server shows.
        port: to listen on; 0 takes a free one.
        ready: called with the address of the page, once requests are accepted.

    Raises:
        UsageError: the port cannot be used.
    """
    listener = _listen(port)
    port = listener.getsockname()[1]
    token = secrets.token_urlsafe(TOKEN_BYTES)
    config = uvicorn.Config(
        make_app(explorer, token, port), log_level="warning", access_log=False, server_header=False,
        timeout_keep_alive=5, timeout_graceful_shutdown=3, ws="none",
    )  # fmt: skip
    if ready is not None:
        ready(f"http://{HOST}:{port}/?token={token}")
    for model in explorer.models:
        threading.Thread(target=model.warm_up, daemon=True).start()
    with listener:
        uvicorn.Server(config).run(sockets=[listener])


def check_port(port: int) -> None:
    """Raise UsageError where the port cannot be used."""
    _listen(port).close()


def _listen(port: int) -> socket.socket:
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        raise UsageError(f"Port {port} cannot be used ({error}); choose another --port, or none.") from error
    return listener
