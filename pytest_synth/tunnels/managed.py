"""Managed tunnels: the backend gives the name and the token, the user's cloudflared carries the requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pytest_synth.errors import ApiError, AuthenticationError, SynthError, TunnelError
from pytest_synth.tunnels.source import Launch, Source
from pytest_synth.tunnels.tunnel import TunnelBackend

if TYPE_CHECKING:
    from pytest_synth.client import SynthClient

Post = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]
"""POST a JSON object to a path of the backend and return the object that it answers."""

ROOT = "/api/v1/tunnels"


def post_with(client: SynthClient) -> Post:
    """POST by a client of the backend; raises the client's errors. Nothing is tried twice."""
    from pytest_synth.client.answers import object_of
    from pytest_synth.client.exchange import exchange
    from pytest_synth.client.flows import Flow, Json

    def sent(path: str, body: Mapping[str, Any]) -> Flow[Json]:
        return object_of((yield from exchange("POST", path, body=body)))

    return lambda path, body: client.run(sent(path, body))


class ManagedSource(Source):
    """A name of the user's organisation, by `POST /api/v1/tunnels/rotate`.

    That gives the organisation's tunnel a new token: a run that holds the old one loses it.
    """

    backend = TunnelBackend.CloudflareManagedTunnel

    def __init__(self, port: int, post: Post) -> None:
        super().__init__(port)
        self._post = post

    def prepare(self) -> Launch:
        path = f"{ROOT}/rotate"
        answer = ask(self._post, path, {"local_port": self.port, "local_host": "127.0.0.1"})
        host = text_of(answer, "hostname", path)
        return Launch(("run",), text_of(answer, "tunnel_token", path), f"https://{host}")


def ask(post: Post, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
    """POST for a tunnel.

    Raises:
        TunnelError: If the backend gives none; it says why and what to do.
    """
    try:
        return post(path, body)
    except AuthenticationError as error:
        raise TunnelError(
            f"the backend gives this SYNTH_API_KEY no managed tunnel ({error}); set a key that may have one, "
            "or use the tunnel cloudflare_quick"
        ) from error
    except ApiError as error:
        if error.status_code not in (404, 405, 501):
            raise TunnelError(f"the backend gives no managed tunnel ({error}); try again later") from error
        raise TunnelError(
            f"this backend has no managed tunnels ({error}); use the tunnel cloudflare_quick, "
            "or localhost if the backend runs on this machine"
        ) from error
    except SynthError as error:
        raise TunnelError(f"the backend gives no managed tunnel: {error}") from error


def text_of(answer: Mapping[str, Any], name: str, path: str) -> str:
    """Read a field of the backend's answer.

    Raises:
        TunnelError: If it is no text, or empty; it names the field, and no other content of the answer.
    """
    value = answer.get(name)
    if not isinstance(value, str) or not value:
        raise TunnelError(
            f"the backend answered POST {path} without a {name}; use the tunnel cloudflare_quick"
        )
    return value
