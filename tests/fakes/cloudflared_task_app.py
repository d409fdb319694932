"""A small app for the near end of a tunnel."""

from __future__ import annotations

from typing import Any


class TaskApp:
    """Answers `/health` by its key, all else with what it was sent; records the keys `/health` got."""

    KEY = "environment-key-of-the-test"

    def __init__(self) -> None:
        self.keys: list[str] = []

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        key = dict(scope["headers"]).get(b"x-api-key", b"").decode()
        if scope["path"] == "/health":
            self.keys.append(key)
        body = (await receive()).get("body", b"")
        status = 200 if key == self.KEY else 400
        target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        headers = [(b"content-type", b"text/x-echo"), (b"x-app", b"one"), (b"x-app", b"two")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send(
            {"type": "http.response.body", "body": scope["method"].encode() + b" " + target + b" " + body}
        )
