"""Find the user's `cloudflared`. It is never downloaded."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pytest_synth.errors import TunnelError

VARIABLE = "SYNTH_CLOUDFLARED"
INSTALL_PAGE = "https://developers.cloudflare.com/cloudflare-one/connections/connect-networks/downloads/"


def find_cloudflared() -> str:
    """Return the path of `cloudflared`: `SYNTH_CLOUDFLARED` if it is set, else the first on PATH.

    Raises:
        TunnelError: If there is none, or the variable names no executable file.
    """
    named = os.environ.get(VARIABLE)
    if named:
        found = shutil.which(Path(named).expanduser())
        if found is None:
            raise TunnelError(
                f"{VARIABLE} is {named!r}, which is no executable file; set it to the path of cloudflared"
            )
        return found
    found = shutil.which("cloudflared")
    if found is None:
        raise TunnelError(
            "cloudflared is not installed (not found on PATH), and a backend elsewhere needs it to reach "
            f"the task app; install it ({INSTALL_PAGE}) or set {VARIABLE} to its path"
        )
    return found
