"""Cassettes, cost ceilings and dry runs, as pytest shows them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.model_provider import FakeProvider, completion

from pytest_synth._serving import ServerThread

APP = """
from pytest_synth import task_app

PROMPT = "Answer with yes or no, politely."

async def run(row, llm):
    reply = await llm.chat(
        [{"role": "system", "content": PROMPT}, {"role": "user", "content": f"question {row}"}],
        max_completion_tokens=10,
    )
    return reply.text

app = task_app(rows={"test": list(range(40))}, run=run, score=lambda row, answer: answer == "yes")
"""

TEST = """
import pytest

@pytest.mark.synth_eval(seeds=range(20), min_reward=0.8)
def test_answers(synth_result):
    print("rewards", [row.score for row in synth_result.rows])
"""

OPENAI = ("--synth-provider", "openai", "--synth-model", "gpt-4.1-nano")


def answer(body: dict[str, object]) -> dict[str, object]:
    """Yes to all but every tenth question."""
    text = json.dumps(body["messages"])
    number = int(text.split("question ")[1].split('"')[0])
    return completion("no" if number % 10 == 3 else "yes")


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeProvider]:
    fake = FakeProvider(reply=answer)
    with ServerThread(fake.app) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", "planted-key-7a6b5c4d3e2f")
        yield fake


@pytest.fixture
def recorded(project: pytest.Pytester) -> pytest.Pytester:
    project.makepyfile(my_app=APP, test_it=TEST)
    return project


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return project.runpytest("-p", "no:randomly", "-s", *OPENAI, *arguments)


def cassette(project: pytest.Pytester) -> Path:
    return project.path / "cassettes" / "test_it" / "test_answers.jsonl"


def rewards(result: pytest.RunResult) -> str:
    return next(line for line in result.outlines if "rewards [" in line).partition("rewards")[2]


def test_recorded_run_is_replayed_without_key_and_provider(
    recorded: pytest.Pytester, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(recorded, "--synth-record-mode", "once")
    first.assert_outcomes(passed=1)
    assert len(provider.seen) == 20
    assert len(cassette(recorded).read_text().splitlines()) >= 20
    assert "planted-key" not in cassette(recorded).read_text() + first.stdout.str()
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")  # nobody listens there
    again = run(recorded, "--synth-record-mode", "none")
    again.assert_outcomes(passed=1)
    assert rewards(again) == rewards(first)
    assert len(provider.seen) == 20
    again.stdout.fnmatch_lines(["1 eval: 1 passed; 20 rollouts;*replayed 20 calls*"])


def test_ci_replays_where_a_cassette_is_and_says_so(
    recorded: pytest.Pytester, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(recorded, "--synth-record-mode", "once").assert_outcomes(passed=1)
    monkeypatch.setenv("CI", "true")
    run(recorded).stdout.fnmatch_lines(["*replayed 20 calls*"])
    assert len(provider.seen) == 20
    run(recorded, "--synth-record-mode", "off").assert_outcomes(passed=1)
    assert len(provider.seen) == 40


def test_changed_prompt_is_red_with_the_nearest_entry_and_the_word_that_differs(
    recorded: pytest.Pytester, provider: FakeProvider
) -> None:
    run(recorded, "--synth-record-mode", "once").assert_outcomes(passed=1)
    recorded.makepyfile(my_app=APP.replace("politely", "rudely"))
    result = run(recorded, "--synth-record-mode", "none")
    result.assert_outcomes(failed=1)
    assert len(provider.seen) == 20
    shown = result.stdout.str()
    assert "gate incomplete: 20 of 20 seeds have no reward" in shown
    assert "replay has no answer for this request" in shown
    assert "[- politely.-]{+ rudely.+}" in shown
    assert shown.count("replay has no answer") == 2  # in the gate's line and in the list of reasons


def test_samples_are_recorded_and_replayed_one_by_one(
    recorded: pytest.Pytester, provider: FakeProvider
) -> None:
    texts = iter(["yes", "no", "yes", "yes", "no"] * 2)
    provider.reply = lambda body: completion(next(texts))
    recorded.makepyfile(test_it=TEST.replace("seeds=range(20), min_reward=0.8", "seeds=[1, 2], samples=5"))
    first = run(recorded, "--synth-record-mode", "once", "--synth-concurrency", "1")
    first.assert_outcomes(passed=1)
    assert len(provider.seen) == 10
    again = run(recorded, "--synth-record-mode", "none")
    assert rewards(again) == rewards(first)
    assert len(provider.seen) == 10


def test_unused_entries_are_told_and_rewritten_away(
    recorded: pytest.Pytester, provider: FakeProvider
) -> None:
    run(recorded, "--synth-record-mode", "once").assert_outcomes(passed=1)
    recorded.makepyfile(test_it=TEST.replace("range(20)", "range(15)"))
    result = run(recorded, "--synth-record-mode", "none")
    result.assert_outcomes(passed=1)
    run(recorded, "--synth-record-mode", "rewrite").assert_outcomes(passed=1)
    lines = [line for line in cassette(recorded).read_text().splitlines() if "question" in line]
    assert len(lines) == 15


def test_ceiling_of_the_run_is_never_crossed(
    recorded: pytest.Pytester, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-the-user-123456")
    usage = {"prompt_tokens": 0, "completion_tokens": 10, "total_tokens": 10}
    provider.reply = lambda body: completion("yes", usage=usage)
    ini = recorded.path / "pytest.ini"
    # 10 tokens of output at 1,000 dollars for a million: one cent a call.
    ini.write_text(ini.read_text() + "\nsynth_prices = openai/gpt-4.1-nano = 0 1000\n")
    recorded.makepyfile(test_it=TEST.replace("range(20)", "range(40)"))
    result = run(recorded, "--synth-max-cost", "0.25", "--synth-concurrency", "16")
    result.assert_outcomes(failed=1)
    assert len(provider.seen) == 25
    result.stdout.fnmatch_lines(
        ["gate incomplete: 15 of 40 seeds have no reward (*budget: *$0.2500*", "*cost $0.25*"]
    )


def test_ceiling_of_a_test_leaves_the_others_alone(recorded: pytest.Pytester, provider: FakeProvider) -> None:
    ini = recorded.path / "pytest.ini"
    ini.write_text(ini.read_text() + "\nsynth_prices = openai/gpt-4.1-nano = 0 1000\n")
    recorded.makepyfile(
        test_it="""
        import pytest

        @pytest.mark.synth_eval(seeds=range(20), min_reward=0.5, max_cost=0.05)
        def test_bounded(): ...

        @pytest.mark.synth_eval(seeds=range(20, 40), min_reward=0.5)
        def test_free(): ...
        """
    )
    result = run(recorded)
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["gate incomplete: *budget: max_cost is $0.0500*"])


def test_model_without_a_price_is_refused_where_a_ceiling_is_set(
    recorded: pytest.Pytester, provider: FakeProvider
) -> None:
    result = recorded.runpytest(
        "-p", "no:randomly", "--synth-provider", "openai", "--synth-model", "my-own", "--synth-max-cost", "1"
    )
    result.assert_outcomes(failed=1)
    assert provider.seen == []
    result.stdout.fnmatch_lines(["gate incomplete: *the price of 'openai/my-own' is not known*"])


def test_unknown_cost_is_shown_as_unknown(recorded: pytest.Pytester, provider: FakeProvider) -> None:
    result = recorded.runpytest("-p", "no:randomly", "--synth-provider", "openai", "--synth-model", "my-own")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*cost unknown*"])


def test_provider_without_key_is_red_and_says_what_to_set(
    recorded: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    result = run(recorded)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["gate incomplete: *OPENAI_API_KEY*"])


def test_a_cassette_that_cannot_be_written_is_red(recorded: pytest.Pytester, provider: FakeProvider) -> None:
    (recorded.path / "cassettes").write_text("a file where the folder should be", "utf-8")
    result = run(recorded, "--synth-record-mode", "once")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["gate incomplete: cannot write the cassette *test_answers.jsonl: *"])


def test_dry_run_plans_and_runs_nothing(recorded: pytest.Pytester, provider: FakeProvider) -> None:
    result = run(recorded, "--synth-dry-run")
    assert result.ret == 0
    assert provider.seen == []
    result.stdout.fnmatch_lines(
        [
            "synth: dry run, nothing is run",
            "*test_answers: 20 seeds, 20 rollouts on openai/gpt-4.1-nano; cost unknown: no cassette",
            "total: 20 rollouts; cost $0.0000 and that of 1 eval, which is unknown",
        ]
    )
    run(recorded, "--synth-record-mode", "once").assert_outcomes(passed=1)
    result = run(recorded, "--synth-dry-run")
    assert len(provider.seen) == 20
    result.stdout.fnmatch_lines(["*test_answers: 20 seeds, 20 rollouts on *; $0.0000 when it was recorded"])


def test_dry_run_says_why_the_cost_of_a_cassette_is_unknown(
    recorded: pytest.Pytester, provider: FakeProvider
) -> None:
    run(recorded, "--synth-record-mode", "once").assert_outcomes(passed=1)
    [cassette] = recorded.path.glob("cassettes/*/*.jsonl")
    text = cassette.read_text("utf-8")
    cassette.write_text(re.sub(r'"cost_usd": [\d.e-]+', '"cost_usd": null', text), "utf-8")
    run(recorded, "--synth-dry-run").stdout.fnmatch_lines(
        ["*; cost unknown: the price of its 20 recorded calls is not known; see synth_prices"]
    )
    cassette.write_text(text + "=======\n", "utf-8")
    run(recorded, "--synth-dry-run").stdout.fnmatch_lines(
        ["*; cost unknown: cassette *'=======' is left of *"]
    )


@pytest.mark.parametrize(
    ("line", "text"),
    [
        pytest.param(
            "synth_prices = gpt = 1 2", "synth_prices: 'gpt = 1 2' is not allowed", id="no provider"
        ),
        pytest.param("synth_prices = a/b = x", "synth_prices: 'a/b = x' is not allowed", id="no numbers"),
        pytest.param("synth_providers = mine", "synth_providers: 'mine' is not allowed", id="no settings"),
        pytest.param("synth_redact = (", "synth_redact: '(' is no regular expression", id="pattern"),
        pytest.param("synth_record_mode = onec", "synth_record_mode: 'onec' is not allowed", id="mode"),
        pytest.param("synth_max_cost = 25 cents", "synth_max_cost: '25 cents' is not allowed", id="cost"),
    ],
)
def test_wrong_line_of_the_ini_file_is_shown(recorded: pytest.Pytester, line: str, text: str) -> None:
    ini = recorded.path / "pytest.ini"
    ini.write_text(f"{ini.read_text()}\n{line}\n")
    result = run(recorded)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"ERROR: ini value {text}" in result.stderr.str()
