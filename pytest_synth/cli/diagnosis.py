"""The checks of `pytest-synth doctor`, in the order in which one builds on the other."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pytest_synth.cli.check import Check, Status
from pytest_synth.cli.errand import Errand, Outcome, judge_inference, judge_rollout, problem_check
from pytest_synth.cli.shapes import Answer, Problem, read_status, read_task, read_taskset, shorten
from pytest_synth.errors import AuthenticationError, ConfigError, NotFoundError, SynthError, TunnelError
from pytest_synth.evals.resources import AppAddress, AppReference, Resources, without_login

if TYPE_CHECKING:
    from pytest_synth.cli.tap import Tap
    from pytest_synth.client import SynthClient
    from pytest_synth.evals.settings import Settings

_HTTP_S = 10.0
_POLL_S = 0.2
_OVERTIME_S = 30.0  # beyond the rollout's own time: retries, and a slow backend
_NOBODYS_JOB = "eval-doctor-asks-for-a-job-that-nobody-has"


@dataclass(frozen=True)
class Plan:
    """What to check.

    Attributes:
        settings: As a `pytest` run here would have them; `app` may be a URL.
        seed, split: Row for the one rollout.
        job_id: A job that has to be readable.
        timeout_s: For the rollout.
    """

    settings: Settings
    seed: int = 0
    split: str | None = None
    job_id: str | None = None
    timeout_s: float = 60.0


class Diagnosis:
    """Runs the checks of a plan and reports each as soon as it is known.

    `run` returns all of them; what cannot be checked is reported as skipped. What it starts is stopped.
    """

    def __init__(self, plan: Plan, report: Callable[[Check], None]) -> None:
        self._plan = plan
        self._settings = plan.settings
        self._report = report
        self._checks: list[Check] = []

    def run(self) -> list[Check]:
        with ExitStack() as stack:
            local = Resources(replace(self._settings, backend="local", tunnel="auto"))
            stack.callback(local.close)
            client = self._backend(local)
            address = self._task_app(local)
            if address is None:
                self._skip("no task app to ask", "task info", "tunnel", "rollout", "inference", "job")
            else:
                self._task_info(address)
                self._way(stack, local, client, address)
            if self._plan.job_id is not None:
                self._given_job(client, self._plan.job_id)
        return self._checks

    def _add(self, name: str, status: Status, checked: str, result: str, remedy: str | None = None) -> None:
        self._take(Check(name, status, checked, shorten(result), remedy or None))

    def _take(self, check: Check) -> None:
        self._checks.append(check)
        self._report(check)

    def _problem(self, name: str, checked: str, problem: Problem) -> None:
        self._take(problem_check(name, checked, problem))

    def _skip(self, reason: str, *names: str) -> None:
        for name in names:
            self._add(name, "skipped", "not checked", reason)

    # ---- backend and key ----

    def _backend(self, local: Resources) -> SynthClient | None:
        """Check backend and key; return a client that can be worked with."""
        if self._settings.backend == "local":
            client = local.client()
            self._add("backend", "ok", "embedded", f"answers at {client.base_url}")
            self._add("key", "ok", "SYNTH_API_KEY", "not needed, the embedded backend makes its own")
            return client
        from pytest_synth.client import SynthClient

        named = self._settings.backend
        client = SynthClient(None if named == "hosted" else named, timeout=_HTTP_S)
        try:
            client.health()
        except SynthError as error:
            remedy = "check --backend, SYNTH_BACKEND_URL and the network"
            self._add("backend", "failed", client.base_url, str(error), remedy)
            self._skip("no backend to ask", "key")
            return None
        self._add("backend", "ok", client.base_url, "answers")
        return client if self._key(client) else None

    def _key(self, client: SynthClient) -> bool:
        try:
            client.eval_status(_NOBODYS_JOB)
        except NotFoundError:
            pass  # it looked for the job, so it accepts the key
        except AuthenticationError as error:
            remedy = "set SYNTH_API_KEY to a key of this backend; demo keys end after some hours"
            self._add("key", "failed", "SYNTH_API_KEY", f"refused ({error.status_code})", remedy)
            return False
        except ConfigError as error:
            remedy = "set SYNTH_API_KEY, or mint one for some hours with pytest_synth.mint_demo_api_key()"
            self._add("key", "failed", "SYNTH_API_KEY", str(error), remedy)
            return False
        except SynthError as error:
            self._add("key", "failed", "SYNTH_API_KEY", str(error), "try again; the backend is in trouble")
            return False
        self._add("key", "ok", "SYNTH_API_KEY", f"accepted by {client.base_url}")
        return True

    def _given_job(self, client: SynthClient | None, job_id: str) -> None:
        checked = f"job {job_id}"
        if client is None:
            self._add("given job", "skipped", checked, "no backend to ask")
            return
        try:
            document = (client.prompt_job if job_id.startswith("pl_") else client.eval_status)(job_id)
        except NotFoundError:
            remedy = "ask the backend that has it, with the SYNTH_API_KEY that submitted it"
            self._add("given job", "failed", checked, f"{client.base_url} does not know it", remedy)
        except SynthError as error:
            self._add("given job", "failed", checked, str(error), "ask again; the job itself goes on")
        else:
            self._add("given job", "ok", checked, f"readable, {document.get('status')}")

    # ---- task app ----

    def _task_app(self, local: Resources) -> AppAddress | None:
        """Check that the task app runs and takes the key; return where it is."""
        named = self._settings.app
        if named is None:
            remedy = "give a URL or MODULE:ATTR, or set synth_app in pytest's configuration"
            self._add("task app", "failed", "synth_app", "no task app is named", remedy)
            return None
        is_url = "://" in named
        try:
            address = local.address_of(named if is_url else AppReference(named, self._settings.rootpath))
        except SynthError as error:
            remedy = f"make it importable from {self._settings.rootpath}, and able to start"
            shown = without_login(named) if is_url else named
            self._add("task app", "failed", shown, str(error), "correct its address" if is_url else remedy)
            return None
        asked = f"{without_login(address.url)}/health"
        problem = read_status(_get(address, "/health"))
        if problem is not None:
            self._problem("task app", asked, problem)
            return None
        self._add("task app", "ok", asked, "answers, and accepts the key")
        return address

    def _task_info(self, address: AppAddress) -> None:
        answer = _get(address, "/task_info")
        if answer.status in (404, 405, 501):
            result = "not there, so seeds and splits cannot be checked beforehand"
            self._add("task info", "warning", "GET /task_info", result, "add the route, if the app can")
            return
        taskset = read_taskset(answer)
        if isinstance(taskset, Problem):
            self._problem("task info", "GET /task_info", taskset)
            return
        checked = f"GET /task_info?seed={self._plan.seed}"
        answer = _get(address, checked.removeprefix("GET "))
        if answer.status == 422 and self._plan.split is not None:
            # The question has no split, so the app has looked in another one.
            self._add("task info", "ok", "GET /task_info", taskset)
            return
        task = read_task(answer, self._plan.seed)
        if isinstance(task, Problem):
            self._problem("task info", checked, task)
            return
        self._add("task info", "ok", "GET /task_info", f"{taskset}; seed {self._plan.seed} is of {task}")

    # ---- the way from backend to task app, and one rollout on it ----

    def _way(
        self, stack: ExitStack, local: Resources, client: SynthClient | None, address: AppAddress
    ) -> None:
        from pytest_synth._serving import ServerThread
        from pytest_synth.cli.tap import Tap

        tap = Tap(address.url)
        server = stack.enter_context(ServerThread(tap.app, name="synth-doctor"))
        url = self._tunnel(stack, client, address, server.port)
        if client is None or url is None or not (_is_here(client.base_url) or self._names_a_model):
            # Nothing is spent at a backend elsewhere unless a model is named; the shapes can be seen here.
            errand = Errand(local.client(), server.url, {"provider": "offline", "model": "lexical"}, True)
        else:
            errand = Errand(client, url, self._settings.policy, False)
        self._rollout(errand, tap, address.key)

    @property
    def _names_a_model(self) -> bool:
        return self._settings.provider != "offline"

    def _tunnel(
        self, stack: ExitStack, client: SynthClient | None, address: AppAddress, port: int
    ) -> str | None:
        """Check how the backend reaches the task app; return the URL for it.

        Args:
            port: Where the task app is to be reached on this machine.
        """
        if client is None:
            self._skip("no backend that could use it", "tunnel")
            return None
        is_own = self._settings.app is not None and "://" not in self._settings.app
        kind = self._settings.tunnel
        if kind == "auto":
            kind = "localhost" if _is_here(client.base_url) else "cloudflare_quick"
        if kind == "localhost" and _is_here(client.base_url):
            self._add("tunnel", "ok", "localhost", "none needed, the backend is on this machine")
            return f"http://127.0.0.1:{port}"
        if not is_own and not _is_here(address.url):
            self._add(
                "tunnel", "ok", without_login(address.url), "none needed, the task app is not on this machine"
            )
            return address.url
        if kind == "localhost":
            remedy = "use --tunnel cloudflare_quick"
            result = f"the backend {client.base_url} cannot reach this machine by it"
            self._add("tunnel", "failed", "localhost", result, remedy)
            return None
        return self._open_tunnel(stack, client, address, port, kind)

    def _open_tunnel(
        self, stack: ExitStack, client: SynthClient, address: AppAddress, port: int, kind: str
    ) -> str | None:
        from pytest_synth.tunnels import open_tunnel

        try:
            tunnel = open_tunnel(port, kind, client=client, probe_key=address.key)
        except TunnelError as error:
            result, _, remedy = str(error).rpartition("; ")  # its last clause says what to do
            self._add("tunnel", "failed", kind, result or remedy, remedy if result else None)
            return None
        stack.callback(tunnel.close)
        self._add("tunnel", "ok", kind, f"the task app answers at {tunnel.url}/health")
        return tunnel.url

    def _rollout(self, errand: Errand, tap: Tap, key: str | None) -> None:
        from pytest_synth.client import EvalJob, EvalJobConfig

        checked = f"POST /rollout, seed {self._plan.seed}"
        config = EvalJobConfig(
            task_app_url=errand.url,
            task_app_api_key=key,
            backend_url=errand.client.base_url,
            api_key=errand.client.api_key,
            seeds=[self._plan.seed],
            policy_config=errand.policy,
            env_config={} if self._plan.split is None else {"split": self._plan.split},
            timeout=self._plan.timeout_s,
        )
        job = EvalJob(config)
        try:
            job_id = job.submit()
        except SynthError as error:
            remedy = f"correct what the backend names; the policy is {errand.model}"
            self._add("rollout", "failed", checked, str(error), remedy)
            self._skip("no job was accepted", "inference", "job")
            return
        try:
            result = job.poll_until_complete(timeout=self._plan.timeout_s + _OVERTIME_S, interval=_POLL_S)
        except SynthError as error:
            remedy = "give it more time with --timeout, or see what the task app waits for"
            self._add("rollout", "failed", checked, str(error), remedy)
            self._skip("no rollout has ended", "inference")
        else:
            outcome = Outcome(result, tap.rollouts[-1] if tap.rollouts else None)
            self._take(judge_rollout(checked, outcome))
            self._take(judge_inference(errand, outcome))
        self._read_again(errand.client, job_id)

    def _read_again(self, client: SynthClient, job_id: str) -> None:
        try:
            document = client.eval_status(job_id)
        except SynthError as error:
            self._add("job", "failed", job_id, str(error), "ask again; the job itself goes on")
        else:
            self._add("job", "ok", job_id, f"readable, {document.get('status')}")


def _get(address: AppAddress, path: str) -> Answer:
    import httpx

    headers = {"X-API-Key": address.key} if address.key else {}
    try:
        with httpx.Client(timeout=_HTTP_S, trust_env=not _is_here(address.url)) as http:
            answer = http.get(f"{address.url}{path}", headers=headers)
    except httpx.HTTPError as error:
        return Answer(0, (str(error) or type(error).__name__).encode())
    return Answer(answer.status_code, answer.content)


def _is_here(url: str) -> bool:
    from pytest_synth.client.transport import is_loopback

    return is_loopback(urlsplit(url).hostname or "")
