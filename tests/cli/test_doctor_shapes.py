"""What the doctor reads out of a task app's answers and a job's result."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pytest_synth.cli.check import Check
from pytest_synth.cli.diagnosis import Diagnosis, Plan
from pytest_synth.cli.doctor import line_of, summary
from pytest_synth.cli.errand import Errand, Outcome, judge_inference, judge_rollout
from pytest_synth.cli.shapes import Answer, Problem, read_rollout, read_status, read_task, read_taskset
from pytest_synth.cli.tap import SeenRollout
from pytest_synth.client import EvalResult, SynthClient
from pytest_synth.evals.settings import Settings

TASK = {"task": {"id": "t", "name": "Intents"}, "dataset": {}, "inference": {}, "limits": {}}
ROLLOUT = {"trace_correlation_id": "trace_1", "reward_info": {"outcome_reward": 0.5}}


def answer(document: object, status: int = 200) -> Answer:
    return Answer(status, json.dumps(document).encode())


@pytest.mark.parametrize(
    ("given", "what", "remedy"),
    [
        (Answer(0, b"refused"), "no answer (refused)", "start the task app, or correct its address"),
        (Answer(401, b""), "the task app refuses the key (401)", "set ENVIRONMENT_API_KEY to the key that "
         "the task app was started with"),
        (answer({"detail": {"error": {"code": "missing_environment_api_key"}}}, 503),
         "the task app knows no key (503)", "start it with ENVIRONMENT_API_KEY set"),
        (Answer(503, b"busy"), "answered 503: busy", "look into the task app's log"),
        (Answer(500, b""), "answered 500: no text", "look into the task app's log"),
    ],
)  # fmt: skip
def test_a_status_says_what_is_wrong(given: Answer, what: str, remedy: str) -> None:
    assert read_status(given) == Problem(what, remedy)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"taskset": {"splits": ["train", "test"], "sizes": {"train": 1000, "test": 50}}},
         "splits train (1000), test (50)"),
        ({"taskset": {"splits": ["train"]}}, "splits train"),
        ({"taskset": {"sizes": {"test": 7}}}, "splits test (7)"),
        ({"taskset": {"id": "banking77"}}, "no splits are described"),
    ],
)  # fmt: skip
def test_a_taskset_is_put_into_words(document: object, words: str) -> None:
    assert read_taskset(answer(document)) == words


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (answer([]), "answered a list instead of an object"),
        (Answer(200, b"<html>"), "answered text instead of JSON: '<html>'"),
        (Answer(200, b"[" * 100_000), f"answered text instead of JSON: '{'[' * 297}...'"),
        (answer({}), "taskset is missing, not an object"),
        (answer({"taskset": ["test"]}), "taskset is a list, not an object"),
    ],
)
def test_what_is_no_taskset_is_a_problem(given: Answer, what: str) -> None:
    problem = read_taskset(given)
    assert isinstance(problem, Problem)
    assert problem.what == what


@pytest.mark.parametrize(
    ("given", "result"),
    [
        (answer(TASK), "task 'Intents'"),
        (answer({**TASK, "task": {"id": "t"}}),
         Problem("task.name: Field required", "let provide_task_instances yield one TaskInfo for seed 3")),
        (answer([TASK]), Problem("answered a list instead of an object", "look into the task app's log")),
        (answer("no row 3", 422), Problem('the task app has no seed 3: "no row 3"',
         "choose a row that exists with --seed and --split")),
    ],
)  # fmt: skip
def test_a_task_instance_is_named_or_its_problem(given: Answer, result: object) -> None:
    assert read_task(given, 3) == result


@pytest.mark.parametrize(
    ("document", "result"),
    [
        (ROLLOUT, 0.5),
        ({"trace_correlation_id": "trace_1", "reward_info": {"outcome_reward": 1.5}},
         Problem("reward_info.outcome_reward is 1.5, outside [0, 1]", "return an outcome_reward in [0, 1]")),
        ({"trace_correlation_id": "trace_1"},
         Problem("the task app's answer has no reward_info", "return an outcome_reward in [0, 1]")),
        ({"reward_info": {"outcome_reward": 1}},
         Problem("trace_correlation_id: Field required", "return a RolloutResponse")),
        ({**ROLLOUT, "trace_correlation_id": "trace_2"},
         Problem("trace_correlation_id is 'trace_2', not that of the request",
                 "return request.trace_correlation_id")),
        ({**ROLLOUT, "success_status": "splendid"},
         Problem("success_status: Input should be 'success', 'timeout', 'network_error', 'apply_failed', "
                 "'runtime_error' or 'failure'", "return a RolloutResponse")),
    ],
)  # fmt: skip
def test_a_rollout_has_a_reward_or_a_problem(document: object, result: object) -> None:
    assert read_rollout(answer(document), "trace_1") == result


def outcome(
    row: dict[str, Any] | None, *, seen: SeenRollout | None = None, error: str | None = None
) -> Outcome:
    document = {"status": "completed", "results": [] if row is None else [{"seed": 0, **row}], "error": error}
    return Outcome(EvalResult.from_response("eval-1", document), seen)


def errand(provider: str = "openai", *, is_stand_in: bool = False) -> Errand:
    client = SynthClient("https://api.example.test", "key-of-the-test")
    return Errand(client, "http://127.0.0.1:1", {"provider": provider, "model": "m"}, is_stand_in)


def test_a_rollout_that_was_not_seen_is_judged_by_the_backends_word() -> None:
    assert judge_rollout("POST", outcome({"score": 0.25})).result == "reward 0.25"
    failed = judge_rollout("POST", outcome({"score": None, "error": "task app answered 500"}))
    assert (failed.status, failed.result) == ("failed", "task app answered 500")
    nothing = judge_rollout("POST", outcome(None, error="task app is unreachable"))
    assert (nothing.status, nothing.result) == ("failed", "task app is unreachable")


@pytest.mark.parametrize(
    ("row", "status", "result"),
    [
        ({"score": 1.0, "calls": 2}, "ok", "2 model calls arrived at https://api.example.test"),
        ({"score": 1.0, "tokens": 9}, "ok", "model calls arrived at https://api.example.test"),
        ({"score": 1.0}, "skipped", "this backend does not tell of model calls"),
        ({"score": 1.0, "calls": 0}, "warning", "no model call arrived at https://api.example.test"),
        ({"score": None, "error": "x"}, "skipped", "the rollout has failed before"),
        (None, "skipped", "the rollout has failed before"),
        ({"score": None, "error": "task app answered 500: x; its last model call failed: no credit",
          "error_kind": "model"}, "failed", "no credit"),
    ],
)  # fmt: skip
def test_inference_is_judged_by_the_calls(row: dict[str, Any] | None, status: str, result: str) -> None:
    check = judge_inference(errand(), outcome(row))
    assert (check.status, check.result) == (status, result)


class TwoKinds:
    """A client that knows one job of each kind, under its own route."""

    base_url = "https://api.example.test"

    def prompt_job(self, job_id: str) -> dict[str, Any]:
        return {"pl_1": {"status": "running"}}[job_id]

    def eval_status(self, job_id: str) -> dict[str, Any]:
        return {"eval-1": {"status": "completed"}}[job_id]


@pytest.mark.parametrize(("job_id", "state"), [("pl_1", "running"), ("eval-1", "completed")])
def test_a_given_job_is_asked_for_under_its_kind(job_id: str, state: str) -> None:
    checks: list[Check] = []
    diagnosis = Diagnosis(Plan(Settings()), checks.append)
    diagnosis._given_job(TwoKinds(), job_id)  # type: ignore[arg-type]
    assert checks == [Check("given job", "ok", f"job {job_id}", f"readable, {state}")]


def test_of_an_inference_url_only_the_host_is_shown() -> None:
    seen = SeenRollout("trace_1", "https://user:pw@api.test:8/api/interceptor/v1/t/trace_1?cid=x", 200, b"{}")
    check = judge_inference(errand(), outcome({"score": 1.0, "calls": 1}, seen=seen))
    assert check.result == "1 model call arrived at https://api.test:8"


def test_a_check_is_one_line_whatever_its_text() -> None:
    check = Check("rollout", "failed", "POST /rollout", "Traceback:\n  line 1", "look\nthere")
    assert line_of(check) == "FAILED   rollout    POST /rollout: Traceback:   line 1 -> look there"
    assert summary([check, check]) == "2 checks: 2 failed"
