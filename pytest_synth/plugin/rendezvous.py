"""How the workers of pytest-xdist share what the controller owns: backend and task app, started once.

The controller listens on loopback with a random key, which travels in `workerinput`. Nothing is started
before a worker asks; a worker that is killed takes nothing with it, and its replacement gets the same.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Client, Connection, Listener
from typing import TYPE_CHECKING, Any

from pytest_synth.errors import SynthError
from pytest_synth.evals.apps import AppAddress
from pytest_synth.evals.resources import AppReference

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_synth.evals.parts import Planned
    from pytest_synth.evals.relaying import Note
    from pytest_synth.evals.resources import Resources
    from pytest_synth.prompts import Prompt

WORKER_INPUT = "synth_rendezvous"
Address = tuple[str, int, str]  # host, port, key as hex: plain values, as `workerinput` needs them


class Rendezvous:
    """The controller's side.

    Args:
        open_resources: Called at the first question, in a thread of the rendezvous.
        take_plan: Called with what a worker has collected, likewise; all workers collect the same.
    """

    def __init__(
        self, open_resources: Callable[[], Resources], take_plan: Callable[[Sequence[Planned]], None]
    ) -> None:
        self._open = open_resources
        self._take_plan = take_plan
        self._resources: Resources | None = None
        self._lock = threading.Lock()
        key = secrets.token_bytes(32)
        self._listener = Listener(("127.0.0.1", 0), authkey=key)
        host, port = self._listener.address
        self.address: Address = (str(host), int(port), key.hex())
        self._closing = False
        self._thread = threading.Thread(target=self._serve, name="synth-rendezvous", daemon=True)
        self._thread.start()

    def cancel_evals(self) -> None:
        """Let the workers' tests end at once that wait for an eval."""
        if self._resources is not None:
            self._resources.cancel_evals()

    def close(self) -> None:
        """Stop listening, and stop what was started."""
        self._closing = True
        # Wakes the thread up, which waits in accept().
        host, port, key = self.address
        with contextlib.suppress(OSError):
            Client((host, port), authkey=bytes.fromhex(key)).close()
        self._thread.join(5)
        self._listener.close()
        if self._resources is not None:
            self._resources.close()

    def _serve(self) -> None:
        while not self._closing:
            try:
                connection = self._listener.accept()
            except (OSError, EOFError):
                continue  # somebody without the key, or a worker that died meanwhile
            if self._closing:
                connection.close()
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: Connection) -> None:
        with connection:
            try:
                question: tuple[str, Any] = connection.recv()
                connection.send(self._reply(*question))
            except (OSError, EOFError):
                return  # the worker is gone

    def _reply(self, kind: str, argument: Any) -> tuple[str, Any]:
        # One at a time: two workers that ask at once must not start two backends.
        with self._lock:
            try:
                if kind == "plan":
                    self._take_plan(argument)
                    return "ok", None
                if self._resources is None:
                    self._resources = self._open()
                if kind == "backend":
                    client = self._resources.client()
                    return "ok", (client.base_url, client.api_key)
                target, rootpath, *rest = argument
                app = self._resources.app(AppReference(target, rootpath))
                match kind:
                    case "app":
                        return "ok", app.address()
                    case "open_route":
                        return "ok", app.open_route(*rest)
                    case _:
                        return "ok", app.close_route(*rest)
            except SynthError as error:
                return "error", str(error)


class ControllerLink:
    """A worker's side: asks the controller, and so makes it start what is not there yet."""

    def __init__(self, address: Address) -> None:
        self._address = address

    def tell_plan(self, plan: Sequence[Planned]) -> None:
        """Tell which tests have to do with evals; a worker that dies cannot tell it at its end."""
        self._ask("plan", plan)

    def backend(self) -> tuple[str, str]:
        """URL and key of the backend."""
        url, key = self._ask("backend", None)
        return str(url), str(key)

    def app(self, target: str, rootpath: Path) -> AppAddress:
        """Where the task app that an import string names is served."""
        address: AppAddress = self._ask("app", (target, rootpath))
        return address

    def open_route(self, target: str, rootpath: Path, prompt: Prompt | None) -> str:
        """Open a path of that app for a job's rollouts."""
        return str(self._ask("open_route", (target, rootpath, prompt)))

    def close_route(self, target: str, rootpath: Path, path: str) -> tuple[Note, ...]:
        """Close such a path, and say what was seen of the rollouts."""
        notes: tuple[Note, ...] = self._ask("close_route", (target, rootpath, path))
        return notes

    def _ask(self, kind: str, argument: Any) -> Any:
        host, port, key = self._address
        try:
            with Client((host, port), authkey=bytes.fromhex(key)) as connection:
                connection.send((kind, argument))
                outcome, value = connection.recv()
        except (OSError, EOFError) as error:
            raise SynthError(f"the controller of pytest-xdist does not answer: {error}") from error
        if outcome == "error":
            raise SynthError(str(value))
        return value
