"""Serves a backend on a database until its input ends: `python resume_driver.py DB`; prints URL and key."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pytest_synth.backend import BackendSettings, start

if __name__ == "__main__":
    with start(BackendSettings(db=Path(sys.argv[1]), resume=True, environ={})) as backend:
        print(json.dumps({"url": backend.url, "key": backend.key}), flush=True)
        sys.stdin.read()
