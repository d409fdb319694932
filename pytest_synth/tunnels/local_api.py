"""`TunneledLocalAPI`: the published SDK's way to serve a task app and to make it reachable."""

from __future__ import annotations

import asyncio
import sys
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from pytest_synth._serving import ServerDied, ServerThread, bind_loopback
from pytest_synth.errors import ConfigError, TaskAppError
from pytest_synth.tunnels.opening import make_tunnel, parse_kind
from pytest_synth.tunnels.tunnel import Tunnel, TunnelBackend

_MANAGED = (TunnelBackend.CloudflareManagedTunnel, TunnelBackend.CloudflareManagedLease)


class TunneledLocalAPI:
    """A task app's public URL, and what keeps it open.

    Made by `create` or `create_for_app`. Closed by `close`, by `with` or `async with`, or at the latest
    when the process ends.

    Attributes:
        local_port: Port of 127.0.0.1 that requests arrive at.
        backend: Kind of the tunnel.
    """

    def __init__(self, tunnel: Tunnel, server: ServerThread | None = None) -> None:
        self.local_port = tunnel.port
        self.backend = tunnel.backend
        self._tunnel = tunnel
        self._server = server

    @property
    def url(self) -> str:
        """Base URL of the task app; after a restart of a quick tunnel it is a new one."""
        return self._tunnel.url

    @property
    def hostname(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def is_alive(self) -> bool:
        return self._tunnel.is_alive

    @classmethod
    async def create(
        cls,
        local_port: int,
        backend: TunnelBackend = TunnelBackend.CloudflareManagedTunnel,
        *,
        api_key: str | None = None,
        env_api_key: str | None = None,
        backend_url: str | None = None,
        verify_dns: bool = True,
        progress: bool = False,
    ) -> Self:
        """Open a tunnel to a task app that listens on 127.0.0.1 already.

        Args:
            local_port: Where the task app listens.
            backend: Kind of the tunnel.
            api_key: For the backend, which gives managed tunnels; default: `SYNTH_API_KEY`.
            env_api_key: The task app's key; default: `ENVIRONMENT_API_KEY`. None is minted or uploaded.
            backend_url: Default: `SYNTH_BACKEND_URL`, else the hosted service.
            verify_dns: Wait until the task app answers through its public URL.
            progress: Say on stderr what is being waited for.

        Raises:
            ConfigError: If there is no such kind, or no API key for a managed one.
            TunnelError: If the tunnel cannot be opened; it says why and what to do.
        """
        from pytest_synth.client.credentials import environment_api_key

        client = None
        if parse_kind(backend) in _MANAGED:
            from pytest_synth.client import SynthClient

            client = SynthClient(backend_url, api_key)
        tunnel = make_tunnel(
            local_port,
            backend,
            client=client,
            probe_key=environment_api_key(env_api_key),
            probe=verify_dns,
            progress=_to_stderr if progress else None,
        )
        try:
            await asyncio.to_thread(tunnel.open)
        except BaseException:  # a cancelled task, too: the thread goes on waiting until the tunnel is closed
            tunnel.close()
            raise
        return cls(tunnel)

    @classmethod
    async def create_for_app(
        cls,
        app: Any,
        local_port: int | None = None,
        backend: TunnelBackend = TunnelBackend.CloudflareManagedTunnel,
        **options: Any,
    ) -> Self:
        """Serve an app on 127.0.0.1, in a thread of its own, and open a tunnel to it.

        Args:
            app: An ASGI application.
            local_port: Port to serve on; default: one that is free.
            backend, options: As for `create`.

        Raises:
            ConfigError: If the port is taken. Nothing is ever killed to free it.
            TaskAppError: If the app fails in its start-up.
        """
        server = await asyncio.to_thread(_serve, app, local_port)
        try:
            opened = await cls.create(server.port, backend, **options)
        except BaseException:
            server.stop()
            raise
        opened._server = server
        return opened

    def close(self) -> None:
        """Close the tunnel, then stop the app that `create_for_app` serves."""
        self._tunnel.close()
        if self._server is not None:
            self._server.stop()
            self._server = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _serve(app: Any, port: int | None) -> ServerThread:
    try:
        sock = bind_loopback(port or 0)
    except OSError as error:
        raise ConfigError(
            f"local_port {port} on 127.0.0.1 is not free ({error.strerror or error}); "
            "choose another, or leave it out to get a free one"
        ) from error
    server = ServerThread(app, sock=sock, name="synth-task-app")
    try:
        return server.start()
    except ServerDied as error:
        raise TaskAppError(f"the task app does not start: {error.__cause__ or error}") from error
