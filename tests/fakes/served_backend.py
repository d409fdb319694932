"""`pytest-synth serve` in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class ServedBackend:
    """Where it listens on 127.0.0.1, and its local key."""

    port: int
    key: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def served_backend(environ: Mapping[str, str]) -> Iterator[ServedBackend]:
    """Serve a backend.

    Args:
        environ: Added to this process's environment.
    """
    command = [sys.executable, "-m", "pytest_synth.cli", "serve"]
    environment = {**os.environ, **environ}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline().strip().rpartition(":")[2])
            yield ServedBackend(port, process.stdout.readline().removeprefix("key: ").strip())
        finally:
            process.terminate()
            process.wait(20)
