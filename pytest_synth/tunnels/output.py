"""Read what cloudflared prints, in both of its log formats, and say what its failures mean."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from pytest_synth.errors import TunnelError

# The URL stands alone in a box of lines. Error lines name https://api.trycloudflare.com, without a box.
_BOXED_URL = re.compile(r"\|\s+(https://[^\s|]+)\s+\|")
_RATE_LIMIT = re.compile(r"\b429\b|Too Many Requests|error code: 1015", re.IGNORECASE)
_BAD_TOKEN = re.compile(r"token is not valid|\bUnauthorized\b", re.IGNORECASE)
_NO_NETWORK = re.compile(
    r"failed to request quick Tunnel|no such host|network is unreachable|no route to host|"
    r"connection refused|i/o timeout|TLS handshake timeout",
    re.IGNORECASE,
)
_SHOWN_CHARACTERS = 300


def boxed_url(line: str) -> str | None:
    """The public URL in a line of the log; None if the line holds none."""
    match = _BOXED_URL.search(line)
    return match[1].rstrip("/") if match else None


def plain(line: str) -> str:
    """The text of a line of the log; of a JSON line its message and error."""
    line = line.strip()
    if line.startswith("{"):
        try:
            entry = json.loads(line)
        except ValueError:
            return line
        if isinstance(entry, dict):
            parts = [entry.get("message"), entry.get("error")]
            return " ".join(str(part) for part in parts if part) or line
    return line


def last_words(lines: Sequence[str]) -> str:
    """The last line that says something, quoted and shortened."""
    for line in reversed(lines):
        text = plain(line)
        if text:
            return f"its last line was {text[:_SHOWN_CHARACTERS]!r}"
    return "it printed nothing"


def token_is_refused(lines: Sequence[str]) -> bool:
    """Cloudflare does not know the token. cloudflared itself would go on trying for ever."""
    return any(_BAD_TOKEN.search(line) for line in lines)


def explain_exit(code: int, lines: Sequence[str]) -> TunnelError:
    """Make the error for a cloudflared that has ended by itself before the tunnel was up.

    Args:
        code: Its exit code; negative is the number of a signal.
        lines: The end of its output.
    """
    said = last_words(lines)
    if any(_RATE_LIMIT.search(line) for line in lines):
        return TunnelError(
            f"Cloudflare gives no quick tunnel now, too many were asked for (429); {said}; "
            "wait some minutes, or use the tunnel cloudflare_managed"
        )
    if token_is_refused(lines):
        return bad_token(lines)
    if any(_NO_NETWORK.search(line) for line in lines):
        return TunnelError(
            f"cloudflared cannot reach Cloudflare; {said}; "
            "check this machine's network, DNS and firewall, or use a backend on this machine"
        )
    return TunnelError(
        f"cloudflared ended at its start with exit code {code}; {said}; "
        "run `cloudflared tunnel --url http://127.0.0.1:8000` by hand to see more"
    )


def bad_token(lines: Sequence[str]) -> TunnelError:
    return TunnelError(
        f"Cloudflare refuses the token of the managed tunnel; {last_words(lines)}; open the tunnel again "
        "to get a new one, and look whether another run with the same SYNTH_API_KEY has taken it over"
    )
