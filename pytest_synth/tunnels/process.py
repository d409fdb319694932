"""A running cloudflared: how it is started, read and ended. It never outlives us."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence

from pytest_synth._serving import bind_loopback
from pytest_synth.tunnels.output import boxed_url
from pytest_synth.tunnels.probe import get_local

_KEPT_LINES = 100
_LINE_BYTES = 16 * 1024
# Variables by which cloudflared would open another tunnel than the one we mean, or hide its log.
_FOREIGN = ("TUNNEL_TOKEN", "TUNNEL_TOKEN_FILE", "TUNNEL_NAME", "TUNNEL_HOSTNAME", "TUNNEL_LOGLEVEL")
# Becomes cloudflared by exec, after asking the kernel to kill it with the thread that started it. Not a
# preexec_fn: that runs Python in a fork of a process with threads. PR_SET_PDEATHSIG is 1.
_BOUND_TO_US = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


class CloudflaredProcess:
    """One run of cloudflared, started by the constructor.

    On Linux it is killed when the thread that made this object ends, even by `os._exit` or SIGKILL; a
    wrapper script must therefore `exec` cloudflared. It has a process group of its own, so Ctrl-C in the
    terminal does not end it before us, and its output is always drained.

    Args:
        binary: Path of cloudflared.
        arguments: What follows the common options of `cloudflared tunnel`.
        token: Of a managed tunnel. Handed over in the environment; other users can read arguments.
    """

    def __init__(self, binary: str, arguments: Sequence[str], token: str | None = None) -> None:
        with contextlib.closing(bind_loopback()) as sock:
            self.metrics_port: int = sock.getsockname()[1]
        self._token = token
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._logged_url: str | None = None
        self._reading = threading.Lock()
        self._ending = threading.Lock()
        command = [
            binary,
            "tunnel",
            "--no-autoupdate",
            "--metrics",
            f"127.0.0.1:{self.metrics_port}",
            "--config",
            os.devnull,  # a quick tunnel is refused when the user's own config file is found
            *arguments,
        ]
        self._popen = subprocess.Popen(  # noqa: S603 - the user's own program, no shell
            _bind_to_us(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=_environment(os.environ, token),
            process_group=0 if os.name == "posix" else None,
        )
        self._reader = threading.Thread(target=self._read, name="synth-cloudflared-output", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._popen.pid

    def exit_code(self) -> int | None:
        """Exit code once it has ended, and its output is read to the end; None while it runs."""
        with self._ending:
            code = self._popen.poll()
        if code is not None:
            self._reader.join(1.0)
        return code

    def lines(self) -> list[str]:
        """The end of what it printed, without the token."""
        with self._reading:
            return list(self._lines)

    def is_connected(self) -> bool:
        """It has a connection to Cloudflare, says its `/ready`."""
        answer = get_local(self.metrics_port, "/ready")
        return answer is not None and answer[0] == 200

    def quick_url(self) -> str | None:
        """Public URL of a quick tunnel, from its `/quicktunnel`, else from its log; None if not known yet."""
        answer = get_local(self.metrics_port, "/quicktunnel")
        if answer is not None and answer[0] == 200:
            with contextlib.suppress(ValueError):
                document = json.loads(answer[1])
                host = document.get("hostname") if isinstance(document, dict) else None
                if host:
                    return "https://" + str(host).removeprefix("https://").rstrip("/")
        return self._logged_url

    def stop(self, grace_s: float) -> None:
        """End it: SIGTERM, and SIGKILL after `grace_s` seconds. A second call does nothing."""
        with self._ending:
            if self._popen.returncode is None:
                self._signal(signal.SIGTERM)
                try:
                    self._popen.wait(grace_s)
                except subprocess.TimeoutExpired:
                    self._signal(getattr(signal, "SIGKILL", signal.SIGTERM))
                    self._popen.wait()
        self._reader.join(1.0)

    def _signal(self, number: int) -> None:
        # Only while it is not reaped: afterwards its number may belong to somebody else.
        if self._popen.poll() is not None:
            return
        if os.name == "posix":
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._popen.pid, number)
        else:
            self._popen.terminate()

    def _read(self) -> None:
        output = self._popen.stdout
        assert output is not None
        with output:
            while line := output.readline(_LINE_BYTES):
                text = line.decode(errors="replace").rstrip()
                if self._token:
                    text = text.replace(self._token, "(token)")
                with self._reading:
                    self._lines.append(text)
                self._logged_url = boxed_url(text) or self._logged_url


def _bind_to_us(command: list[str]) -> list[str]:
    if sys.platform == "linux" and sys.executable:
        return [sys.executable, "-I", "-S", "-c", _BOUND_TO_US, str(os.getpid()), *command]
    return command


def _environment(own: Mapping[str, str], token: str | None) -> dict[str, str]:
    environment = {name: value for name, value in own.items() if name not in _FOREIGN}
    if token is not None:
        environment["TUNNEL_TOKEN"] = token
    return environment
