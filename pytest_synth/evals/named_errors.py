"""A task app whose uncaught exceptions become answers that name them."""

from __future__ import annotations

import json
from typing import Any

from pytest_synth.localapi.failures import environment_secrets, raised


class NamedErrors:
    """Wraps a user's ASGI app; one made by `create_local_api` answers for itself.

    A server answers an exception with a bare "Internal Server Error", and writes what it was into a log that
    nobody sees here. Frameworks answer so themselves and then raise: an answer of 500 is held back until the
    app has ended.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        held: list[Any] = []
        is_answered = False

        async def hold_errors(message: Any) -> None:
            nonlocal is_answered
            if not is_answered and (held or message.get("status") == 500):
                held.append(message)
                return
            is_answered = True
            await send(message)

        try:
            await self._app(scope, receive, hold_errors)
        except Exception as error:
            if is_answered:
                raise
            held = _answer(raised("task_app_failed", error, environment_secrets()).detail)
        for message in held:
            await send(message)


def _answer(detail: Any) -> list[Any]:
    return [
        {
            "type": "http.response.start",
            "status": 500,
            "headers": [(b"content-type", b"application/json")],
        },
        {"type": "http.response.body", "body": json.dumps({"detail": detail}).encode()},
    ]
