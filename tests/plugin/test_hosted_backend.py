"""Evals at the hosted service: what the plugin does there by itself, and what it refuses."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Iterator

import pytest
from fakes.hosted_evals import API_KEY, Call, HostedEvals
from fakes.model_provider import completion
from starlette.responses import JSONResponse, Response

from pytest_synth._serving import ServerThread
from pytest_synth.prompts import Prompt

# Its own prompt makes the model answer "no"; the right answer is "yes" for all but every fifth row.
APP = """
from pytest_synth import task_app

PROMPT = "say no"
ROWS = {"test": [{"label": "no" if i % 5 == 0 else "yes"} for i in range(20)]}

async def run(row, llm):
    messages = [{"role": "system", "content": PROMPT}, {"role": "user", "content": "which?"}]
    return (await llm.chat(messages)).text

def score(row, answer):
    return answer == row["label"]

app = task_app(rows=ROWS, run=run, score=score, expected="label")
"""

TEST = """
import pytest

@pytest.mark.synth_eval(seeds=range(20), split="test", min_reward=0.8{more})
def test_answers(synth_result):
    rows = synth_result.rows
    print("ran", {{(row.prompt_source, row.prompt_fingerprint, row.replaced_fingerprint) for row in rows}})
    print("asked", rows[1].query, rows[1].answer, rows[1].calls, rows[1].details["expected"], rows[1].split)
    print("spent", synth_result.total_tokens, round(synth_result.total_cost_usd, 4), synth_result.mean_reward)
"""

MODEL = ("--synth-provider", "openai", "--synth-model", "gpt-4.1-nano")


@pytest.fixture
def hosted() -> Iterator[HostedEvals]:
    service = HostedEvals()
    with ServerThread(service.app) as server:
        service.base_url = server.url
        yield service


@pytest.fixture
def remote(project: pytest.Pytester, hosted: HostedEvals, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project whose backend is the hosted service."""
    monkeypatch.setenv("SYNTH_API_KEY", API_KEY)
    monkeypatch.setenv("SYNTH_BACKEND_URL", hosted.base_url)
    monkeypatch.setenv("PYTEST_SYNTH_BACKEND", "hosted")
    project.makepyfile(my_app=APP)
    return project


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return project.runpytest("-p", "no:randomly", "-p", "no:cacheprovider", "-s", *MODEL, *arguments)


def fingerprint(text: str) -> str:
    return Prompt.parse(text).fingerprint


def test_a_markers_prompt_is_put_in_on_the_way_through_this_machine(
    remote: pytest.Pytester, hosted: HostedEvals
) -> None:
    remote.makepyfile(TEST.format(more=', prompt="say yes"'))
    result = run(remote)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        [
            "synth: 1 eval; backend hosted, model openai/gpt-4.1-nano, at most 16 rollouts at once",
            f"*ran {{('marker', '{fingerprint('say yes')}', '{fingerprint('say no')}')}}*",
            "asked which? yes 1 yes test",
            "spent 3000 0.04 0.8",
            "*test_answers*0.80*0.80*20/20*passed",
        ]
    )
    assert {call.system for call in hosted.calls} == {"say yes"}
    assert len(hosted.calls) == 20


def test_the_apps_own_prompt_runs_where_none_is_given(remote: pytest.Pytester, hosted: HostedEvals) -> None:
    remote.makepyfile(TEST.format(more="").replace("min_reward=0.8", "min_reward=0.2"))
    result = run(remote)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines([f"*ran {{('app', '{fingerprint('say no')}', None)}}*"])
    assert {call.system for call in hosted.calls} == {"say no"}


@pytest.mark.parametrize("has_query", [False, True], ids=["in the path", "in the query"])
def test_model_calls_arrive_at_the_url_that_the_service_gave(
    remote: pytest.Pytester, hosted: HostedEvals, has_query: bool
) -> None:
    hosted.has_query = has_query
    remote.makepyfile(
        """
        import pytest

        @pytest.mark.synth_eval(seeds=[1], split="test", min_reward=1, prompt="say yes",
                                policy={"api_key": "the-users-own-key", "temperature": 0.5})
        def test_one(): ...
        """
    )
    run(remote).assert_outcomes(passed=1)
    [call] = hosted.calls
    middle = "/chat/completions?cid=trace_" if has_query else "/trace_"
    assert call.path.startswith("/api/interceptor/v1/")
    assert middle in call.path
    assert call.path.endswith("/chat/completions") is not has_query
    assert call.headers["x-api-key"] == "the-users-own-key"
    assert (call.body["model"], call.body["temperature"]) == ("gpt-4.1-nano", 0.5)


def test_the_key_is_uploaded_once_and_shown_nowhere(remote: pytest.Pytester, hosted: HostedEvals) -> None:
    remote.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("n", range(3))
        @pytest.mark.synth_eval(seeds=range(5), split="test", min_reward=0, prompt="say yes")
        def test_many(n, synth_result): ...
        """
    )
    result = run(remote, "-vv")
    result.assert_outcomes(passed=3)
    [key] = hosted.uploads
    assert [job.body["task_app_api_key"] for job in hosted.jobs.values()] == [key] * 3
    shown = result.stdout.str() + result.stderr.str()
    assert key not in shown
    assert API_KEY not in shown


def test_two_apps_share_the_uploaded_key(remote: pytest.Pytester, hosted: HostedEvals) -> None:
    for name in ("one", "two"):
        folder = remote.mkdir(name)
        (folder / "conftest.py").write_text(
            "import pytest, runpy\n\n"
            "@pytest.fixture(scope='session')\n"
            "def synth_task_app():\n"
            f"    return runpy.run_path({str(remote.path / 'my_app.py')!r})['app']\n"
        )
        (folder / f"test_{name}.py").write_text(TEST.format(more="").replace("0.8", "0"))
    run(remote).assert_outcomes(passed=2)
    assert len(hosted.uploads) == 1
    hosts = {job.body["task_app_url"].rpartition("/")[0] for job in hosted.jobs.values()}
    assert len(hosts) == 2


def test_a_task_app_that_tells_its_key_has_it_hidden(remote: pytest.Pytester, hosted: HostedEvals) -> None:
    telling = APP.replace(
        'expected="label"', 'expected=lambda row: __import__("os").environ["ENVIRONMENT_API_KEY"]'
    )
    remote.makepyfile(my_app=telling)
    remote.makepyfile(TEST.format(more=', prompt="say yes"'))
    result = run(remote)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["asked which? yes 1 [[]hidden[]] test"])
    assert hosted.uploads[0] not in result.stdout.str()


def test_a_url_of_the_users_own_app_gets_no_key_uploaded(
    remote: pytest.Pytester, hosted: HostedEvals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENVIRONMENT_API_KEY", "the-users-environment-key")
    hosted.uploads.append("the-users-environment-key")  # as its owner has done it
    with ServerThread(runpy.run_path(str(remote.path / "my_app.py"))["app"]) as server:
        remote.makeconftest(
            f"""
            import pytest

            @pytest.fixture(scope="session")
            def synth_task_app():
                return "{server.url}"
            """
        )
        remote.makepyfile(TEST.format(more=', prompt="say yes"'))
        result = run(remote)
    result.assert_outcomes(passed=1)
    assert hosted.uploads == ["the-users-environment-key"]
    assert {call.system for call in hosted.calls} == {"say yes"}


def test_samples_are_one_job_each(remote: pytest.Pytester, hosted: HostedEvals) -> None:
    answers = iter(["yes"] * 4 + ["no"] * 8)
    hosted.answer = lambda call: JSONResponse(completion(next(answers)))
    remote.makepyfile(
        """
        import pytest

        @pytest.mark.synth_eval(seeds=[1, 2, 3, 4], split="test", samples=3, min_reward=0.3, max_concurrent=1)
        def test_samples(synth_result):
            print("rows", [(row.seed, row.sample) for row in synth_result.rows])
            print("mean", round(synth_result.mean_reward, 4), synth_result.total_tokens)
        """
    )
    result = run(remote)
    result.assert_outcomes(passed=1)
    assert [job.body["seeds"] for job in hosted.jobs.values()] == [[1, 2, 3, 4]] * 3
    rows = [(seed, sample) for seed in (1, 2, 3, 4) for sample in range(3)]
    result.stdout.fnmatch_lines(["*rows " + str(rows).replace("[", "[[]"), "mean 0.3333 1800"])


def test_a_prompt_that_was_not_applied_is_incomplete(remote: pytest.Pytester, hosted: HostedEvals) -> None:
    remote.makepyfile(my_app=APP.replace("return (await llm.chat(messages)).text", "return row['label']"))
    remote.makepyfile(TEST.format(more=', prompt="say yes"'))
    result = run(remote)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "gate incomplete: 20 of 20 seeds have no reward (*",
            "*20 seeds 0-19: prompt not applied: the task app made no model call at its inference_url*",
            "1 eval: 1 incomplete; 20 rollouts; *",
        ]
    )


def test_a_dead_model_is_incomplete_even_if_the_app_gives_a_reward(
    remote: pytest.Pytester, hosted: HostedEvals
) -> None:
    def refuse(call: Call) -> Response:
        return JSONResponse({"error": {"message": "the model is gone"}}, 400)

    hosted.answer = refuse
    careless = APP.replace(
        "    return (await llm.chat(messages)).text",
        "    try:\n        return (await llm.chat(messages)).text\n    except Exception: return 'no'",
    )
    remote.makepyfile(my_app=careless)
    remote.makepyfile(TEST.format(more=""))
    result = run(remote)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "gate incomplete: 20 of 20 seeds have no reward (*",
            "*20 seeds 0-19: the only model call failed: the backend answered 400: the model is gone",
        ]
    )


@pytest.mark.parametrize(
    ("more", "arguments", "words"),
    [
        pytest.param(
            "",
            ("--synth-fail-fast",),
            "--synth-fail-fast: the backend at {url} has no such thing; leave it out, or use the embedded "
            "backend",
            id="fail fast",
        ),
        pytest.param(
            ', policy={"provider": "offline", "model": "lexical"}',
            (),
            "the backend at {url} does not know the model offline/lexical, which is built into pytest-synth; "
            "name one with --synth-provider and --synth-model, or use the embedded backend",
            id="offline model",
        ),
    ],
)
def test_what_cannot_be_had_there_is_refused_by_name_before_anything_is_spent(
    remote: pytest.Pytester, hosted: HostedEvals, more: str, arguments: tuple[str, ...], words: str
) -> None:
    remote.makepyfile(TEST.format(more=more))
    result = run(remote, *arguments)
    result.assert_outcomes(failed=1)
    assert words.format(url=hosted.base_url) in result.stdout.str()
    assert (hosted.jobs, hosted.uploads) == ({}, [])


def test_a_prompt_for_an_app_that_runs_elsewhere_is_refused(
    remote: pytest.Pytester, hosted: HostedEvals
) -> None:
    remote.makeconftest(
        """
        import pytest

        @pytest.fixture(scope="session")
        def synth_task_app():
            return "https://task-app.example.test/"
        """
    )
    remote.makepyfile(TEST.format(more=', prompt="say yes"'))
    result = run(remote)
    result.assert_outcomes(failed=1)
    assert (
        "with this backend no prompt can be applied to a task app elsewhere (https://task-app.example.test); "
        "let pytest serve the app (synth_app = MODULE:ATTR)"
    ) in result.stdout.str()
    assert hosted.jobs == {}


def test_without_a_key_the_run_says_what_to_set(
    remote: pytest.Pytester, hosted: HostedEvals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SYNTH_API_KEY")
    remote.makepyfile(TEST.format(more=""))
    result = run(remote)
    result.assert_outcomes(failed=1)
    assert (
        f"SYNTH_API_KEY is not set, and the backend at {hosted.base_url} needs it; "
        "set it, or use the embedded backend (--synth-backend local)"
    ) in result.stdout.str()


def test_a_wrong_key_is_told_and_not_shown(
    remote: pytest.Pytester, hosted: HostedEvals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNTH_API_KEY", "somebody-elses-key")
    remote.makepyfile(TEST.format(more=""))
    result = run(remote)
    result.assert_outcomes(failed=1)
    shown = result.stdout.str()
    assert "/api/v1/crypto/public-key answered 401: this key is not known" in shown
    assert "somebody-elses-key" not in shown


def test_without_pynacl_the_extra_is_named(
    remote: pytest.Pytester, hosted: HostedEvals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nacl.public", None)
    remote.makepyfile(TEST.format(more=""))
    result = run(remote)
    result.assert_outcomes(failed=1)
    assert (
        "uploading ENVIRONMENT_API_KEY needs PyNaCl: pip install 'pytest-synth[hosted]'"
        in result.stdout.str()
    )
    assert hosted.jobs == {}


def test_an_eval_of_the_body_has_its_prompt_applied_too(remote: pytest.Pytester, hosted: HostedEvals) -> None:
    remote.makepyfile(
        """
        def test_calls(synth_eval):
            better = synth_eval(seeds=range(20), prompt="say yes", env_config={"split": "test"})
            assert better.mean_reward == 0.8
            assert synth_eval(seeds=range(20), env_config={"split": "test"}).mean_reward == 0.2
            assert {row.prompt_source for row in better.rows} == {"call"}
        """
    )
    run(remote).assert_outcomes(passed=1)


def test_workers_share_one_app_one_key_and_its_prompts(remote: pytest.Pytester, hosted: HostedEvals) -> None:
    remote.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("word, reward", [("yes", 0.8), ("no", 0.2)])
        @pytest.mark.synth_eval(seeds=range(20), split="test", min_reward=0)
        def test_own(word, reward, synth_eval):
            result = synth_eval(seeds=range(20), split="test", prompt=f"say {word}")
            assert result.mean_reward == reward
        """
    )
    result = run(remote, "-n", "2")
    result.assert_outcomes(passed=2)
    assert len(hosted.uploads) == 1
    assert len(hosted.jobs) == 4, "no worker has submitted what another one runs"
    assert len({job.body["task_app_url"].rpartition("/")[0] for job in hosted.jobs.values()}) == 1


def test_a_fixtures_app_in_each_worker_is_refused_with_the_remedy(
    remote: pytest.Pytester, hosted: HostedEvals
) -> None:
    remote.makeconftest(
        """
        import pytest
        from my_app import app

        @pytest.fixture(scope="session")
        def synth_task_app():
            return app
        """
    )
    remote.makepyfile(TEST.format(more=""))
    result = run(remote, "-n", "1")
    result.assert_outcomes(failed=1)
    assert (
        "a task app from a fixture would need an uploaded key of its own in each worker of pytest-xdist; "
        "use synth_app = MODULE:ATTR, or -n0"
    ) in result.stdout.str()
    run(remote, "-n", "0").assert_outcomes(failed=1)
    assert len(hosted.jobs) == 1
