"""Serve an ASGI app on a loopback socket in a thread of its own, and stop it for certain."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from types import TracebackType
from typing import Any, Self

GRACE_S = 1  # what requests in flight get at the stop; uvicorn's default waits for ever (measured)
START_S = 30.0  # an app that loads data in its lifespan may take a while
_POLL_S = 0.002

monotonic = time.monotonic  # taken at import: a clock frozen by a test must not stop our deadlines


class ServerDied(RuntimeError):
    """The server's thread ended before it served; the app's own exception is the cause, if known."""


def bind_loopback(port: int = 0, host: str = "127.0.0.1") -> socket.socket:
    """Bind a listening TCP socket; port 0 lets the system choose.

    A client that connects before the server runs waits in the backlog, so there is no race.

    Raises:
        OSError: If the port is taken; nothing is ever killed to free it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # TCP is named, as asyncio switches Nagle's algorithm off only for sockets that name it; with it, head and
    # body of an answer go out 40 ms apart (measured: 48 ms on top of each rollout, without it 8).
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # on Windows the option would let two servers share a port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(2048)
    except OSError:
        sock.close()
        raise
    return sock


class _LifespanWatch:
    """Passes everything on to the app and keeps what its start-up raised; uvicorn would only log it."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.failure: BaseException | None = None
        self.said = ""  # by an app that reports its failure and raises nothing

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return

        async def listen(message: Any) -> None:
            if message["type"] == "lifespan.startup.failed":
                self.said = message.get("message", "")
            await send(message)

        try:
            await self._app(scope, receive, listen)
        except BaseException as error:
            self.failure = error
            raise


class ServerThread:
    """An ASGI app served by uvicorn in a daemon thread with its own event loop.

    `with ServerThread(app) as server: server.url` starts and stops it. Leaving waits `GRACE_S` seconds
    for requests in flight, then cuts them.

    Args:
        app: An ASGI application.
        sock: A bound, listening socket (see `bind_loopback`); default: a free loopback port.
        name: Name of the thread.
    """

    def __init__(self, app: Any, *, sock: socket.socket | None = None, name: str = "synth-server") -> None:
        import uvicorn

        self._sock = sock if sock is not None else bind_loopback()
        host, port = self._sock.getsockname()[:2]
        self.host: str = host
        self.port: int = port
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._watch = _LifespanWatch(app)
        config = uvicorn.Config(
            self._watch,
            log_config=None,
            log_level=logging.CRITICAL,
            access_log=False,
            http="httptools",
            ws="none",
            lifespan="auto",
            timeout_graceful_shutdown=GRACE_S,
        )
        self._server = uvicorn.Server(config)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._sock])
        except BaseException as error:
            self._failure = error

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> Self:
        """Start the thread and return once the app serves.

        Raises:
            ServerDied: If the app's start-up fails or takes longer than `START_S` seconds.
        """
        self._thread.start()
        deadline = monotonic() + START_S
        while not self._server.started:
            if not self._thread.is_alive():
                self._sock.close()
                raise self._died()
            if monotonic() > deadline:
                self.stop()
                raise ServerDied(f"the app did not finish its start-up within {START_S:.0f} s")
            time.sleep(_POLL_S)
        return self

    def _died(self) -> ServerDied:
        """Say why the thread has ended; uvicorn itself leaves by a SystemExit that tells nothing."""
        watch, text = self._watch, "the app ended during its start-up"
        died = ServerDied(f"{text}: {watch.said}" if watch.said and watch.failure is None else text)
        died.__cause__ = watch.failure or (None if isinstance(self._failure, SystemExit) else self._failure)
        return died

    def begin_stop(self) -> None:
        """Take no new connection from now on; `stop` waits for the end."""
        self._server.should_exit = True

    def stop(self) -> None:
        """Stop serving; returns once the thread has ended, or after the grace time and 2 s more.

        A rollout that blocks its thread cannot be cut; the thread is a daemon and ends with it.
        """
        self.begin_stop()
        self._thread.join(GRACE_S + 1.0)
        if self._thread.is_alive():
            self._server.force_exit = True
            self._thread.join(1.0)
        self._sock.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
