"""A tunnel through cloudflared: brought up, watched, restarted when it dies, and ended for certain."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass

from pytest_synth._serving import monotonic
from pytest_synth.errors import TunnelError
from pytest_synth.tunnels.output import bad_token, explain_exit, last_words, token_is_refused
from pytest_synth.tunnels.probe import UP, Resolve, ask_health, get_local
from pytest_synth.tunnels.process import CloudflaredProcess
from pytest_synth.tunnels.source import Launch, Source
from pytest_synth.tunnels.tunnel import Tunnel

logger = logging.getLogger(__name__)

_JOIN_S = 10.0  # a request through the public URL may take its time-outs for connecting and reading


@dataclass(frozen=True)
class Timings:
    """How long a tunnel waits, in seconds, and how often it is restarted.

    Attributes:
        ready_s: From a start of cloudflared until the task app answers through the public URL.
        poll_s: Between two looks at cloudflared while it comes up.
        probe_s: Between two requests through the public URL while it comes up.
        watch_s: Between two looks at cloudflared once the tunnel is up.
        outage_s: Without a connection to Cloudflare before cloudflared is restarted; it mends most itself.
        pause_s: Before the first restart; twice as long before each further one.
        stop_s: For cloudflared to end by itself before it is killed.
        restarts: In the whole life of a tunnel.
    """

    ready_s: float = 60.0
    poll_s: float = 0.1
    probe_s: float = 1.0
    watch_s: float = 5.0
    outage_s: float = 30.0
    pause_s: float = 2.0
    stop_s: float = 2.0
    restarts: int = 3


class _Closed(Exception):
    """The tunnel was closed while it came up."""


class CloudflaredTunnel(Tunnel):
    """A tunnel kept by a thread of its own, which starts cloudflared and lives as long as it.

    Args:
        source: What to start cloudflared with.
        binary: Path of cloudflared.
        probe_key: The task app's key.
        probe: Whether the task app is asked through the public URL.
        resolve: Name resolution for the request through the public URL.
        timings: All waiting.
        progress: Told what is being waited for, from another thread.
    """

    def __init__(
        self,
        source: Source,
        *,
        binary: str,
        probe_key: str | None,
        probe: bool,
        resolve: Resolve,
        timings: Timings,
        progress: Callable[[str], None] | None,
    ) -> None:
        super().__init__(source.backend, source.port)
        self._source = source
        self._binary = binary
        self._probe_key = probe_key
        self._probe = probe
        self._resolve = resolve
        self._timings = timings
        self._progress = progress
        self._url = ""
        self._generation = 0
        self._is_settled = False
        self._failure: TunnelError | None = None
        self._process: CloudflaredProcess | None = None
        self._starting = threading.Lock()
        self._settled = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="synth-tunnel", daemon=True)
        self._owner = os.getpid()
        self._restarts_left = timings.restarts
        self._pause_s = timings.pause_s

    @property
    def url(self) -> str:
        return self._url

    @property
    def generation(self) -> int:
        return self._generation

    @property
    def failure(self) -> TunnelError | None:
        return self._failure

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive() and not self._closing.is_set() and self._failure is None

    @property
    def is_up(self) -> bool:
        process = self._process
        return (
            self._is_settled
            and self.is_alive
            and process is not None
            and process.exit_code() is None
            and process.is_connected()
        )

    def open(self) -> None:
        atexit.register(self._close_at_exit)
        self._thread.start()
        try:
            while not self._settled.wait(0.2):  # in steps, for a prompt Ctrl-C
                pass
        except BaseException:
            self.close()
            raise
        if self._failure is not None:
            self.close()
            raise self._failure

    def close(self) -> None:
        self._closing.set()
        with self._starting:
            process = self._process
        if process is not None:
            process.stop(self._timings.stop_s)
        if self._thread.is_alive():
            # It may wait for an answer out of the network; it is a daemon and ends after that.
            self._thread.join(_JOIN_S)
        atexit.unregister(self._close_at_exit)

    def _close_at_exit(self) -> None:
        if os.getpid() == self._owner:  # a forked child ends too, and the tunnel is not the child's
            self.close()

    # ---- in the tunnel's own thread ----

    def _keep(self) -> None:
        try:
            launch = self._source.prepare()
            self._bring_up(launch)
            self._is_settled = True
            self._source.report(connected=True)
            self._settled.set()
            while True:
                reason = self._watch()
                self._restart(launch, reason)
        except _Closed:
            logger.debug("tunnel to 127.0.0.1:%s closed", self.port)
        except TunnelError as error:
            self._failure = error
        except BaseException as error:
            self._failure = TunnelError(f"the tunnel ended by a fault of ours: {error!r}")
            self._failure.__cause__ = error
        finally:
            self._stop_process()
            self._source.close()
            self._settled.set()

    def _bring_up(self, launch: Launch) -> None:
        """Start cloudflared and return once the task app answers through it.

        Raises:
            TunnelError: If that does not come about; cloudflared is left to be stopped.
        """
        deadline = monotonic() + self._timings.ready_s
        process = self._start_process(launch)
        url = self._wait_for_url(process, launch, deadline)
        self._wait_for_connection(process, deadline)
        if self._probe:
            self._wait_for_answer(process, url, deadline)
        self._url = url
        self._say(f"task app reachable at {url}")

    def _start_process(self, launch: Launch) -> CloudflaredProcess:
        self._say(f"starting cloudflared for 127.0.0.1:{self.port}")
        with self._starting:
            if self._closing.is_set():
                raise _Closed
            try:
                self._process = CloudflaredProcess(self._binary, launch.arguments, launch.token)
            except OSError as error:
                raise TunnelError(
                    f"cannot run cloudflared at {self._binary!r}: {error}; "
                    "set SYNTH_CLOUDFLARED to one that runs on this machine"
                ) from error
            return self._process

    def _stop_process(self) -> None:
        if self._process is not None:
            self._process.stop(self._timings.stop_s)

    def _wait_for_url(self, process: CloudflaredProcess, launch: Launch, deadline: float) -> str:
        while launch.url is None:
            url = process.quick_url()
            if url is not None:
                return url
            if monotonic() > deadline:
                raise TunnelError(
                    f"cloudflared printed no public URL within {self._timings.ready_s:.0f} s; "
                    f"{last_words(process.lines())}; try again, or use the tunnel cloudflare_managed"
                )
            self._pause(process, self._timings.poll_s)
        return launch.url

    def _wait_for_connection(self, process: CloudflaredProcess, deadline: float) -> None:
        self._say("waiting for cloudflared's connection to Cloudflare")
        while not process.is_connected():
            lines = process.lines()
            if token_is_refused(lines):
                raise bad_token(lines)
            if monotonic() > deadline:
                raise TunnelError(
                    f"cloudflared has no connection to Cloudflare after {self._timings.ready_s:.0f} s; "
                    f"{last_words(lines)}; it needs outgoing UDP or TCP to port 7844: look at the firewall"
                )
            self._pause(process, self._timings.poll_s)

    def _wait_for_answer(self, process: CloudflaredProcess, url: str, deadline: float) -> None:
        self._say(f"waiting for the task app to answer at {url}/health")
        while (reason := ask_health(url, self._probe_key, self._resolve)) is not None:
            if monotonic() > deadline:
                raise TunnelError(
                    f"the task app does not answer at {url}/health after {self._timings.ready_s:.0f} s: "
                    f"{reason}; {self._look_at_home()}"
                )
            self._pause(process, self._timings.probe_s)

    def _look_at_home(self) -> str:
        """Say what the task app answers without the tunnel, and what to do."""
        here = f"http://127.0.0.1:{self.port}/health"
        answer = get_local(self.port, "/health", {"X-API-Key": self._probe_key} if self._probe_key else {})
        if answer is None:
            return f"nothing answers at {here} either; start the task app there"
        status, body = answer
        if status in UP:
            remedy = "the task app is well, so try again, or use another tunnel"
        elif status == 404:
            remedy = "give the task app a /health route"
        elif b"missing_environment_api_key" in body:
            remedy = "set ENVIRONMENT_API_KEY for the task app"
        else:
            remedy = "look into the task app's log"
        return f"{here} answers {status}; {remedy}"

    def _pause(self, process: CloudflaredProcess, seconds: float) -> None:
        """Wait; raises if cloudflared has ended or the tunnel is to be closed."""
        code = process.exit_code()
        if self._closing.wait(0 if code is not None else seconds):
            raise _Closed
        if code is not None:
            raise explain_exit(code, process.lines())

    def _watch(self) -> str:
        """Return once cloudflared has to be restarted, with the reason."""
        process = self._process
        assert process is not None
        connected_at = monotonic()
        while not self._closing.wait(self._timings.watch_s):
            failure = self._source.failure()
            if failure is not None:
                raise failure
            code = process.exit_code()
            if code is not None:
                if self._closing.is_set():  # meanwhile: it was ended by `close`
                    raise _Closed
                return f"cloudflared ended with exit code {code}; {last_words(process.lines())}"
            is_connected = process.is_connected()
            now = monotonic()
            if is_connected:
                connected_at = now
            elif now - connected_at >= self._timings.outage_s:
                return (
                    f"cloudflared had no connection to Cloudflare for {self._timings.outage_s:.0f} s; "
                    f"{last_words(process.lines())}"
                )
            self._source.report(connected=is_connected)
            if self._source.wants_restart():
                return "the backend asked for a restart"
        raise _Closed

    def _restart(self, launch: Launch, reason: str) -> None:
        """Bring cloudflared up again.

        Raises:
            TunnelError: If the restarts are used up; it names the last reason.
        """
        self._is_settled = False
        while self._restarts_left > 0:
            self._restarts_left -= 1
            logger.warning("restarting the tunnel to 127.0.0.1:%s: %s", self.port, reason)
            self._say(f"restarting the tunnel: {reason}")
            self._source.report(connected=False, trouble=reason)
            self._stop_process()
            if self._closing.wait(self._pause_s):
                raise _Closed
            self._pause_s *= 2
            try:
                self._bring_up(launch)
            except TunnelError as error:
                reason = str(error)
            else:
                self._generation += 1
                self._is_settled = True
                self._source.report(connected=True)
                return
        raise TunnelError(
            f"the tunnel to 127.0.0.1:{self.port} has died for good, after {self._timings.restarts} "
            f"restarts: {reason}; look at this machine's network, then start again"
        )

    def _say(self, text: str) -> None:
        logger.info(text)
        if self._progress is not None:
            self._progress(text)
