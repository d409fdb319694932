"""What the gateway refuses: a policy before the first rollout, a single call while running."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_synth.errors import SynthError


class PolicyRefused(SynthError):
    """A policy that cannot run; the message names the field and the remedy (422 on the wire)."""


class CallRefused(Exception):
    """One model call that gets no answer.

    Attributes:
        status: HTTP status that the caller gets.
        message: For the caller; never holds a key.
        kind: `error.type` of the answer.
        headers: Further headers of the answer, such as Retry-After.
        is_fatal: Every other call of the job would be refused as well.
        is_cut_off: The answer broke off after its beginning had been passed on, so that the gateway could not
            ask again; whoever runs the rollout can.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        headers: Mapping[str, str] | None = None,
        is_fatal: bool = False,
        is_cut_off: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.headers = dict(headers or {})
        self.is_fatal = is_fatal
        self.is_cut_off = is_cut_off
