"""Which backend a run talks to, and what it can do beyond the published API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pytest_synth.errors import AuthenticationError, NotFoundError, SynthError

if TYPE_CHECKING:
    from pytest_synth.client import SynthClient

SERVICE = "pytest-synth"  # how a backend of ours calls itself


@dataclass(frozen=True)
class Backend:
    """A backend, and what it said of itself.

    Attributes:
        is_ours: It is one of this package, in this process or elsewhere.
        takes_extensions: Jobs of our key may have what the published API has no field for.
        is_near: Its URL says that it runs on this machine, so that it reaches loopback.
    """

    client: SynthClient
    is_ours: bool
    takes_extensions: bool
    is_near: bool

    @property
    def url(self) -> str:
        return self.client.base_url

    @property
    def wants_key_upload(self) -> bool:
        """Whether it has to be told the task app's key beforehand; one of ours here gets it with each job."""
        return not (self.is_ours and self.is_near)


def ask_backend(client: SynthClient) -> Backend:
    """Ask a backend what it is.

    Raises:
        SynthError: If it does not answer, or does not accept the key.
    """
    from pytest_synth.client.answers import object_of
    from pytest_synth.client.exchange import exchange
    from pytest_synth.client.flows import Flow, Json

    def health() -> Flow[Json]:
        return object_of((yield from exchange("GET", "/api/health")))

    try:
        told = client.run(health())
    except NotFoundError:
        told = {}  # a backend without the route is none of ours
    except AuthenticationError as error:
        raise SynthError(
            f"the backend at {client.base_url} does not accept this SYNTH_API_KEY ({error.status_code}); "
            "set one of that backend"
        ) from error
    is_ours = told.get("service") == SERVICE
    return Backend(client, is_ours, is_ours and told.get("extensions") is True, is_near(client.base_url))


def is_near(url: str) -> bool:
    """Whether a URL names this machine itself."""
    from pytest_synth.client.transport import is_loopback

    return is_loopback(urlsplit(url).hostname or "")
