"""The command `pytest-synth doctor`, as a user types it: its lines, its JSON and its exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fakes.cloudflared import CA_FILE, FakeCloudflared, Run
from fakes.cloudflared_task_app import TaskApp
from fakes.model_provider import FakeProvider, completion

from pytest_synth._serving import ServerThread
from pytest_synth.backend import BackendSettings, start
from pytest_synth.cli import main
from pytest_synth.client import EvalJob, EvalJobConfig

API_KEY = "synth-key-of-the-doctors-test"
ENVIRONMENT_KEY = "environment-key-of-the-doctors-test"
PROVIDER_KEY = "provider-key-of-the-doctors-test"
APP = """
from pytest_synth import task_app

ROWS = {"test": [{"text": f"my card number {i} is lost", "label": "lost_card"} for i in range(20)]}
PROMPT = "Choose one:\\n- lost_card: the card is lost or stolen\\n- high_fee: a fee is too high"

def run(row, llm):
    return llm.chat([{"role": "system", "content": PROMPT}, {"role": "user", "content": row["text"]}]).text

app = task_app(rows=ROWS, run=run, score=lambda row, answer: answer.strip() == row["label"])
silent = task_app(rows=ROWS, run=lambda row, llm: "lost_card", score=lambda row, answer: 1.0)
free = task_app(
    rows=ROWS,
    run=lambda row, llm: llm.chat([{"role": "user", "content": "Write a poem."}]).text,
    score=lambda row, answer: 1.0,
)

def raising(row, llm):
    raise ValueError("no such label: 'lost_crd'")

raising = task_app(rows=ROWS, run=raising, score=lambda row, answer: 1.0)
"""


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("SYNTH_", "PYTEST_SYNTH_", "OPENAI_")) or "ENVIRONMENT_API_KEY" in name:
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = [t for t in set(threading.enumerate()) - before if not t.name.startswith("asyncio_")]
    for thread in left:
        thread.join(5)  # the workers of a loop that has ended end a moment after it
    assert [thread.name for thread in left if thread.is_alive()] == []


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a task app and an empty configuration."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "doctor_app", raising=False)
    (tmp_path / "doctor_app.py").write_text(APP)
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    return tmp_path


class Doctor:
    """Runs the command and reads its lines. No key may ever stand in them."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> int:
        code = main(["doctor", *arguments])
        shown = self._capsys.readouterr()
        for key in (API_KEY, ENVIRONMENT_KEY, PROVIDER_KEY):
            assert key not in shown.out + shown.err
        self.out = shown.out
        self.lines = shown.out.splitlines()
        return code

    def statuses(self) -> dict[str, str]:
        return {line[9:19].strip(): line[:8].strip() for line in self.lines[:-1]}

    def line(self, name: str) -> str:
        [line] = [line for line in self.lines[:-1] if line[9:].startswith(name)]
        return line


@pytest.fixture
def doctor(folder: Path, capsys: pytest.CaptureFixture[str]) -> Doctor:
    return Doctor(capsys)


ALL_OK = {
    "backend": "ok",
    "key": "ok",
    "task app": "ok",
    "task info": "ok",
    "tunnel": "ok",
    "rollout": "ok",
    "inference": "ok",
    "job": "ok",
}


def test_all_is_well_with_a_good_task_app(doctor: Doctor) -> None:
    assert doctor("doctor_app:app") == 0
    assert doctor.statuses() == ALL_OK
    assert doctor.line("task info").endswith("GET /task_info: splits test (20); seed 0 is of task 'task'")
    assert doctor.line("rollout") == "ok       rollout    POST /rollout, seed 0: reward 1.00"
    assert "offline/lexical: 1 model call arrived at http://127.0.0.1:" in doctor.line("inference")
    assert doctor.line("job").endswith(": readable, completed")
    assert doctor.lines[-1] == "8 checks: 8 ok"
    assert "->" not in doctor.out


def test_json_has_the_same_checks(doctor: Doctor) -> None:
    assert doctor("doctor_app:raising", "--json") == 1
    report = json.loads(doctor.out)
    assert report["ok"] is False
    assert [check["name"] for check in report["checks"]] == list(ALL_OK)
    rollout = next(check for check in report["checks"] if check["name"] == "rollout")
    assert rollout["status"] == "failed"
    assert rollout["checked"] == "POST /rollout, seed 0"
    assert "no such label: 'lost_crd'" in rollout["result"]
    assert rollout["remedy"] == "look into the task app's log"


def test_the_configuration_of_pytest_is_read(folder: Path) -> None:
    (folder / "src").mkdir()
    (folder / "doctor_app.py").rename(folder / "src" / "configured_app.py")
    (folder / "pyproject.toml").write_text(
        '[tool.pytest.ini_options]\npythonpath = "src"\nsynth_app = "configured_app:app"\naddopts = "-q"\n'
    )
    (folder / "tests").mkdir()
    ended = subprocess.run(
        [sys.executable, "-m", "pytest_synth.cli", "doctor"],
        cwd=folder / "tests",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.splitlines()[-1] == "8 checks: 8 ok"
    assert not list(folder.rglob(".pytest_cache"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--backend", "nowhere"], "the backend is 'nowhere'; use local, hosted or a URL"),
        (["--tunnel", "ngrok"], "the tunnel is 'ngrok'; use auto, localhost, cloudflare_quick, "),
        (["doctor_app"], "the task app is 'doctor_app'; use a URL, or MODULE:ATTR as in my_app:app"),
    ],
)
def test_a_wrong_setting_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert main(["doctor", *arguments]) == 1
    assert capsys.readouterr().err.startswith(f"pytest-synth: {words}")


def test_a_provider_without_a_model_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_SYNTH_PROVIDER", "openai")
    assert main(["doctor"]) == 1
    assert "the provider is 'openai', without a model; set synth_model" in capsys.readouterr().err


def test_a_configuration_that_pytest_cannot_read_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "pyproject.toml").write_text('[tool.pytest.ini_options]\naddopts = "--no-such-option"\n')
    assert main(["doctor"]) == 1
    shown = capsys.readouterr().err
    assert "--no-such-option" in shown
    assert shown.rstrip().endswith(
        "pytest-synth: pytest cannot read its configuration here; it says above why"
    )


# ---- the task app ----


def test_without_a_task_app_its_checks_are_skipped(doctor: Doctor) -> None:
    assert doctor() == 1
    assert doctor.line("task app") == (
        "FAILED   task app   synth_app: no task app is named -> "
        "give a URL or MODULE:ATTR, or set synth_app in pytest's configuration"
    )
    assert doctor.statuses() == {
        **dict.fromkeys(ALL_OK, "skipped"), "backend": "ok", "key": "ok", "task app": "FAILED"
    }  # fmt: skip
    assert doctor.lines[-1] == "8 checks: 2 ok, 1 failed, 5 skipped"


def test_a_task_app_that_cannot_be_imported_is_told(doctor: Doctor, folder: Path) -> None:
    assert doctor("doctor_app:ap") == 1
    assert "has no attribute 'ap'" in doctor.line("task app")
    assert doctor.line("task app").endswith(f"-> make it importable from {folder}, and able to start")


def test_a_task_app_that_is_not_there_is_told(doctor: Doctor) -> None:
    assert doctor("http://127.0.0.1:1") == 1
    assert doctor.line("task app").startswith("FAILED   task app   http://127.0.0.1:1/health: no answer (")
    assert doctor.line("task app").endswith("-> start the task app, or correct its address")


def test_a_password_in_the_task_app_s_address_is_not_shown(doctor: Doctor) -> None:
    assert doctor("http://somebody:pass-4711@127.0.0.1:1") == 1
    assert doctor.line("task app").startswith("FAILED   task app   http://127.0.0.1:1/health: no answer (")
    assert "pass-4711" not in doctor.out


@pytest.mark.parametrize(
    ("url", "reason"), [("http://", "it names no host"), ("http://a:b@[::1", "Invalid IPv6 URL")]
)
def test_an_address_that_is_none_is_told(doctor: Doctor, url: str, reason: str) -> None:
    assert doctor(url) == 1
    shown = url.replace("a:b@", "")
    assert doctor.line("task app") == (
        f"FAILED   task app   {shown}: the task app's URL {shown!r} cannot be read: {reason}"
        " -> correct its address"
    )


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon"])
def test_a_time_that_is_none_is_refused_before_the_first_check(
    doctor: Doctor, capsys: pytest.CaptureFixture[str], seconds: str
) -> None:
    with pytest.raises(SystemExit) as left:
        doctor("doctor_app:app", "--timeout", seconds)
    shown = capsys.readouterr()
    assert left.value.code == 2
    assert f"argument --timeout: {seconds!r} is no time; use a number of seconds above 0" in shown.err
    assert shown.out == ""


def test_a_running_task_app_is_asked_with_the_users_key(
    doctor: Doctor, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENVIRONMENT_API_KEY", ENVIRONMENT_KEY)
    monkeypatch.syspath_prepend(folder)
    import doctor_app  # type: ignore[import-not-found]

    with ServerThread(doctor_app.app) as server:
        assert doctor(server.url) == 0
    assert doctor.statuses() == ALL_OK


def test_a_key_that_the_task_app_refuses_is_told(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENVIRONMENT_API_KEY", ENVIRONMENT_KEY)
    with ServerThread(TaskApp()) as server:
        assert doctor(server.url) == 1
    assert doctor.line("task app").endswith(
        "/health: the task app refuses the key (400) -> "
        "set ENVIRONMENT_API_KEY to the key that the task app was started with"
    )


def test_a_row_that_is_not_there_is_told(doctor: Doctor) -> None:
    assert doctor("doctor_app:app", "--seed", "99") == 1
    assert "FAILED   task info  GET /task_info?seed=99: the task app has no seed 99: " in doctor.line(
        "task info"
    )
    assert doctor("doctor_app:app", "--seed", "99", "--split", "test") == 1
    assert doctor.line("task info") == "ok       task info  GET /task_info: splits test (20)"
    assert doctor.line("rollout") == (
        "FAILED   rollout    POST /rollout, seed 99: seed 99 is out of range: split 'test' has 20 rows "
        "(0 to 19) -> choose a row that exists with --seed and --split"
    )


def test_an_app_that_calls_no_model_is_a_warning_only(doctor: Doctor) -> None:
    assert doctor("doctor_app:silent") == 0
    assert doctor.line("inference").startswith(
        "warning  inference  offline/lexical: no model call arrived at http://127.0.0.1:"
    )
    assert doctor.line("inference").endswith(
        "-> send model calls to policy.config['inference_url'], unless the app calls no model"
    )
    assert doctor.lines[-1] == "8 checks: 7 ok, 1 warning"


# ---- inference ----


def test_what_the_offline_model_cannot_answer_is_told(doctor: Doctor) -> None:
    assert doctor("doctor_app:free") == 1
    assert doctor.line("rollout").endswith("POST /rollout, seed 0: its model call has failed")
    assert doctor.line("inference").startswith(
        "FAILED   inference  offline/lexical: offline/lexical found no candidate answers"
    )
    assert "-> set synth_provider and synth_model, or give the prompt " in doctor.line("inference")


def test_a_provider_without_key_is_told(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_SYNTH_PROVIDER", "openai")
    monkeypatch.setenv("PYTEST_SYNTH_MODEL", "gpt-4.1-nano")
    assert doctor("doctor_app:app") == 1
    assert "provider 'openai' has no key: set OPENAI_API_KEY" in doctor.line("rollout")


def test_a_key_that_the_provider_refuses_is_told(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = json.dumps({"error": {"message": "the key is wrong"}})
    provider = FakeProvider(script=[(401, {"Content-Type": "application/json"}, refusal)] * 20)
    with ServerThread(provider.app) as server:
        monkeypatch.setenv("PYTEST_SYNTH_PROVIDER", "openai")
        monkeypatch.setenv("PYTEST_SYNTH_MODEL", "gpt-4.1-nano")
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", PROVIDER_KEY)
        assert doctor("doctor_app:app") == 1
    assert doctor.line("inference").startswith("FAILED   inference  openai/gpt-4.1-nano: ")
    assert "the key is wrong" in doctor.line("inference")
    assert doctor.line("inference").endswith(
        "-> check key and address of provider 'openai', and the model's name"
    )


# ---- other backends ----


def test_another_backend_on_this_machine_is_used_as_it_is(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    with start(BackendSettings(local_key=API_KEY)) as backend:
        monkeypatch.setenv("SYNTH_API_KEY", API_KEY)
        assert doctor("doctor_app:app", "--backend", backend.url) == 0
        assert doctor.statuses() == ALL_OK
        assert doctor.line("key").endswith(f"SYNTH_API_KEY: accepted by {backend.url}")


@pytest.mark.parametrize(
    ("key", "result", "remedy"),
    [
        (None, "api_key is required", "set SYNTH_API_KEY, or mint one for some hours"),
        (API_KEY, "refused (401)", "set SYNTH_API_KEY to a key of this backend"),
    ],
    ids=["none", "wrong"],
)
def test_a_key_that_the_backend_does_not_take_is_told(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch, key: str | None, result: str, remedy: str
) -> None:
    if key is not None:
        monkeypatch.setenv("SYNTH_API_KEY", key)
    with start() as backend:
        assert doctor("doctor_app:app", "--backend", backend.url) == 1
    assert doctor.line("key").startswith(f"FAILED   key        SYNTH_API_KEY: {result}")
    assert f" -> {remedy}" in doctor.line("key")
    assert doctor.line("tunnel").endswith("not checked: no backend that could use it")
    assert doctor.statuses()["rollout"] == "ok", "the task app is still checked, by the embedded backend"


def test_a_backend_that_is_not_there_is_told(doctor: Doctor) -> None:
    assert doctor("doctor_app:app", "--backend", "http://127.0.0.1:1") == 1
    assert doctor.line("backend").startswith("FAILED   backend    http://127.0.0.1:1: ")
    assert doctor.line("backend").endswith("-> check --backend, SYNTH_BACKEND_URL and the network")
    assert doctor.statuses()["key"] == "skipped"
    assert doctor.statuses()["rollout"] == "ok"


def test_a_given_job_is_read_at_the_backend(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTH_API_KEY", API_KEY)
    with start(BackendSettings(local_key=API_KEY)) as backend:
        config = EvalJobConfig(task_app_url="http://127.0.0.1:1", backend_url=backend.url, seeds=[0])
        job = EvalJob(config)
        job_id = job.submit()
        job.poll_until_complete(timeout=20, interval=0.05)
        assert doctor("doctor_app:app", "--backend", backend.url, "--job", job_id) == 0
        assert doctor.line("given job").endswith(f"given job  job {job_id}: readable, failed")
        assert doctor("doctor_app:app", "--backend", backend.url, "--job", "pl_unknown") == 1
        assert doctor.line("given job") == (
            f"FAILED   given job  job pl_unknown: {backend.url} does not know it -> "
            "ask the backend that has it, with the SYNTH_API_KEY that submitted it"
        )


# ---- a backend elsewhere: 127.1 is this machine by a name that does not look like it ----


@dataclass
class Elsewhere:
    """A backend in another process, and the provider that its model calls go to."""

    url: str
    provider: FakeProvider


@pytest.fixture
def elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Elsewhere]:
    provider = FakeProvider(reply=lambda body: completion("lost_card"))
    with ServerThread(provider.app) as server:
        environment = os.environ | {
            "SSL_CERT_FILE": str(CA_FILE),
            "OPENAI_BASE_URL": f"{server.url}/v1",
            "OPENAI_API_KEY": PROVIDER_KEY,
        }
        command = [sys.executable, "-m", "pytest_synth.cli", "serve"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as backend:
            try:
                assert backend.stdout is not None
                port = backend.stdout.readline().strip().rpartition(":")[2]
                key = backend.stdout.readline().removeprefix("key: ").strip()
                monkeypatch.setenv("SYNTH_API_KEY", key)
                monkeypatch.setenv("ENVIRONMENT_API_KEY", ENVIRONMENT_KEY)
                yield Elsewhere(f"http://127.1:{port}", provider)
            finally:
                backend.terminate()
                backend.wait(20)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCloudflared]:
    folder = tmp_path / "cloudflared-folder"
    folder.mkdir()
    fake = FakeCloudflared(folder, Run(host="localhost:{edge}"))
    monkeypatch.setenv("SYNTH_CLOUDFLARED", str(fake.path))
    monkeypatch.setenv("SSL_CERT_FILE", str(CA_FILE))
    yield fake
    assert fake.left_behind() == []


def test_without_a_model_nothing_is_spent_elsewhere(
    doctor: Doctor, elsewhere: Elsewhere, fake: FakeCloudflared
) -> None:
    assert doctor("doctor_app:app", "--backend", elsewhere.url) == 0
    [start] = fake.starts()
    assert doctor.statuses() == ALL_OK
    assert doctor.line("tunnel").endswith(
        f"cloudflare_quick: the task app answers at https://localhost:{start.edge}/health"
    )
    assert "offline/lexical: 1 model call arrived at http://127.0.0.1:" in doctor.line("inference")
    job_id = doctor.line("job").split()[2].rstrip(":")
    assert doctor("doctor_app:app", "--backend", elsewhere.url, "--job", job_id) == 1
    assert "does not know it" in doctor.line("given job"), "the job ran on the embedded backend"
    assert elsewhere.provider.seen == []


def test_with_a_model_one_rollout_goes_all_the_way(
    doctor: Doctor, elsewhere: Elsewhere, fake: FakeCloudflared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_SYNTH_PROVIDER", "openai")
    monkeypatch.setenv("PYTEST_SYNTH_MODEL", "gpt-4.1-nano")
    assert doctor("doctor_app:app", "--backend", elsewhere.url) == 0
    assert doctor.statuses() == ALL_OK
    assert "openai/gpt-4.1-nano: 1 model call arrived at http://127.0.0.1:" in doctor.line("inference")
    job_id = doctor.line("job").split()[2].rstrip(":")
    assert doctor("doctor_app:app", "--backend", elsewhere.url, "--job", job_id) == 0
    assert len(elsewhere.provider.seen) == 2, "one call for each run of the doctor"


def test_a_task_app_elsewhere_needs_no_tunnel(
    doctor: Doctor, folder: Path, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_SYNTH_PROVIDER", "openai")
    monkeypatch.setenv("PYTEST_SYNTH_MODEL", "gpt-4.1-nano")
    monkeypatch.syspath_prepend(folder)
    import doctor_app  # type: ignore[import-not-found]

    with ServerThread(doctor_app.app) as server:
        url = f"http://0x7f000001:{server.port}"  # aiohttp refuses 127.1
        assert doctor(url, "--backend", elsewhere.url) == 0, doctor.out
        assert doctor.statuses() == ALL_OK
        assert doctor.line("tunnel").endswith(f"{url}: none needed, the task app is not on this machine")
        assert len(elsewhere.provider.seen) == 1


def test_a_stand_in_that_cannot_answer_is_no_failure(
    doctor: Doctor, elsewhere: Elsewhere, fake: FakeCloudflared
) -> None:
    assert doctor("doctor_app:free", "--backend", elsewhere.url) == 0
    assert doctor.line("inference").startswith(
        "skipped  inference  offline/lexical: a stand-in, which says: "
    )
    assert doctor.line("inference").endswith("-> set synth_provider and synth_model to check it with a model")


def test_a_missing_cloudflared_is_told_with_the_remedy(
    doctor: Doctor, elsewhere: Elsewhere, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(folder))
    assert doctor("doctor_app:app", "--backend", elsewhere.url) == 1
    assert doctor.line("tunnel").startswith(
        "FAILED   tunnel     cloudflare_quick: cloudflared is not installed"
    )
    assert " -> install it (https://" in doctor.line("tunnel")
    assert doctor.statuses()["rollout"] == "ok"


def test_an_address_of_this_machine_is_no_way_for_a_backend_elsewhere(
    doctor: Doctor, elsewhere: Elsewhere
) -> None:
    assert doctor("doctor_app:app", "--backend", elsewhere.url, "--tunnel", "localhost") == 1
    assert doctor.line("tunnel") == (
        f"FAILED   tunnel     localhost: the backend {elsewhere.url} cannot reach this machine by it -> "
        "use --tunnel cloudflare_quick"
    )
