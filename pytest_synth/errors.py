"""Everything that pytest-synth raises.

    SynthError
    ├── ConfigError            a setting or argument is wrong (also a ValueError)
    ├── ApiError               the backend answered with an error status
    │   ├── AuthenticationError    401, 403
    │   ├── NotFoundError          404
    │   ├── InvalidRequestError    400, 422
    │   ├── RateLimitError         429
    │   └── ServerError            5xx
    ├── BackendUnreachable     no answer from the backend
    ├── UnexpectedAnswer       the backend's answer is outside the contract
    ├── JobTimeout             a job is still running after the time that the caller allowed
    ├── TaskAppError           the task app does not start, or is not what it should be
    ├── ModelCallError         the model, or the gateway before it, refused a call or did not answer
    ├── ModelAnswerError       the model's answer is not what was asked for (also a ValueError)
    ├── TunnelError            the tunnel to the task app cannot be opened or has died
    ├── OptimizationFailed     a search for a better prompt was refused, has failed or was cancelled
    └── MissingRewards         a mean was asked for, and some seeds have no reward

No message ever holds a key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class SynthError(Exception):
    """Base of all errors of this package."""


class ConfigError(SynthError, ValueError):
    """A setting or an argument is wrong; the message names it, its value and what is allowed."""


class ApiError(SynthError):
    """The backend answered with an error status.

    Attributes:
        status_code: HTTP status of the answer.
        method, url: The request that was refused.
        detail: What the backend says, already shortened; never a key.
    """

    def __init__(self, status_code: int, method: str, url: str, detail: str) -> None:
        super().__init__(f"{method} {url} answered {status_code}: {detail}")
        self.status_code = status_code
        self.method = method
        self.url = url
        self.detail = detail


class AuthenticationError(ApiError):
    """The backend does not accept the key (401, 403)."""


class NotFoundError(ApiError):
    """The backend does not know the job or route (404)."""


class InvalidRequestError(ApiError):
    """The backend refuses the request body (400, 422)."""


class RateLimitError(ApiError):
    """The backend asks for fewer requests (429)."""


class ServerError(ApiError):
    """The backend failed (5xx)."""


class BackendUnreachable(SynthError):
    """No answer from the backend; the cause is attached."""


class UnexpectedAnswer(SynthError):
    """The backend's answer is outside the contract: no JSON, a field missing, an unknown status word."""


class JobTimeout(SynthError):
    """A job is still running after the time that the caller allowed.

    Attributes:
        job_id: The job; it goes on running.
        document: The last status document that was read; empty if none was.
    """

    def __init__(self, message: str, *, job_id: str, document: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.job_id = job_id
        self.document = document


class TaskAppError(SynthError):
    """The task app does not start, does not answer, or is not a task app."""


class ModelCallError(SynthError):
    """The model, or the gateway before it, refused a call or did not answer.

    Attributes:
        status_code: HTTP status of the answer; None if there was none.
    """

    def __init__(self, message: str, *, status_code: int | None = None) -> None:
        super().__init__(message)
        self.status_code = status_code


class ModelAnswerError(SynthError, ValueError):
    """The model's answer is not what was asked for; the message quotes it, shortened."""


class TunnelError(SynthError):
    """The tunnel to the task app cannot be opened, or has died."""


class OptimizationFailed(SynthError):
    """A search for a better prompt was refused, has failed or was cancelled; the text says why."""


class MissingRewards(SynthError):
    """A mean was asked for, and some seeds have no reward.

    Attributes:
        seeds: The seeds without a reward, in order.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        super().__init__(f"no reward for seeds {', '.join(map(str, seeds))}")
        self.seeds = tuple(seeds)
