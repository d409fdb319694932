"""A look at the task app before a job is submitted that needs it."""

from __future__ import annotations

from urllib.parse import urlsplit

from pytest_synth.client.exchange import exchange
from pytest_synth.client.flows import Flow
from pytest_synth.errors import ApiError, BackendUnreachable, TaskAppError

_REFUSALS = (400, 401, 403)  # the published Local API answers 400 to a wrong key
TUNNEL_DOMAINS = (".trycloudflare.com", ".cfargotunnel.com")


def is_tunnel(url: str) -> bool:
    """Say whether a URL leads through a Cloudflare tunnel, whose name may take a while to resolve."""
    return (urlsplit(url).hostname or "").endswith(TUNNEL_DOMAINS)


def split_url(url: str) -> tuple[str, str]:
    """Split a task app's URL into its origin and its path, without a trailing slash."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")


def check_task_app(url: str, *, has_key: bool) -> Flow[None]:
    """Ask a task app for `/health` and `/task_info`; runs on a client of the task app's origin.

    Raises:
        TaskAppError: If it does not answer, or refuses one of the two; the message says which and why.
    """
    _, path = split_url(url)
    for route in ("/health", "/task_info"):
        try:
            yield from exchange("GET", path + route, authenticated=has_key)
        except BackendUnreachable as error:
            raise TaskAppError(
                f"the task app at {url} does not answer {route} ({error.__cause__}); is it running?"
            ) from error
        except ApiError as error:
            hint = "; its ENVIRONMENT_API_KEY differs from yours" if error.status_code in _REFUSALS else ""
            raise TaskAppError(
                f"the task app at {url} answered {route} with {error.status_code}: {error.detail}{hint}"
            ) from error
