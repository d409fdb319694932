"""Searches at the hosted service, which runs them by itself; the result is judged through this machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fakes.hosted_evals import API_KEY
from fakes.hosted_searches import HostedSearches

from pytest_synth._serving import ServerThread
from pytest_synth.prompts import Prompt, load_stored_prompt

# The right answer is "yes" for all but every fifth row; the model says so if the system message asks for it.
APP = """
from pytest_synth import task_app

ROWS = {"test": [{"label": "no" if i % 5 == 0 else "yes"} for i in range(40)]}

async def run(row, llm):
    messages = [{"role": "system", "content": "say no"}, {"role": "user", "content": "which?"}]
    return (await llm.chat(messages)).text

def score(row, answer):
    return answer == row["label"]

app = task_app(rows=ROWS, run=run, score=score, expected="label")
"""

TEST = """
import pytest

@pytest.mark.synth_optimize(range(20, 36), validation_seeds=range(36, 40), prompt="say no"{more})
@pytest.mark.synth_eval(seeds=range(20), split="test", min_reward=0.8)
def test_answers(): ...
"""


@pytest.fixture
def hosted() -> Iterator[HostedSearches]:
    service = HostedSearches(best="say yes")
    with ServerThread(service.app) as server:
        service.base_url = server.url
        yield service


@pytest.fixture
def remote(
    project: pytest.Pytester, hosted: HostedSearches, monkeypatch: pytest.MonkeyPatch
) -> pytest.Pytester:
    """A project whose backend is the hosted service."""
    monkeypatch.setenv("SYNTH_API_KEY", API_KEY)
    monkeypatch.setenv("SYNTH_BACKEND_URL", hosted.base_url)
    monkeypatch.setenv("PYTEST_SYNTH_BACKEND", "hosted")
    project.makepyfile(my_app=APP, test_it=TEST.format(more=""))
    return project


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    model = ("--synth-provider", "openai", "--synth-model", "gpt-4.1-nano")
    return project.runpytest(
        "-p", "no:randomly", "-p", "no:cacheprovider", "--synth-optimize", *model, *arguments
    )


def test_the_service_searches_and_the_result_is_judged_and_stored(
    remote: pytest.Pytester, hosted: HostedSearches
) -> None:
    result = run(remote, "--snapshot-update")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        [
            "synth: optimising test_it.py::test_answers: the backend tells no plan; then 2 x 20 on its eval "
            "seeds",
            "  held-out reward 0.20 -> 0.80 on 20 seeds, difference +0.60 (interval -0.*",
            "  stored: 0.20 -> 0.80 on 20 eval seeds, in __snapshots__/test_it/test_answers.prompt",
            "  31 rollouts",
            "  lineage, with rewards on the search's own seeds: baseline not scored -> v1 0.90",
            "    say[[]- no-[]]{+ yes+}",
        ]
    )
    result.stdout.no_fnmatch_line("  plan: *")
    [section] = hosted.searches.values()
    assert hosted.ran == [f"{seed}: 200" for seed in range(36, 40)]
    assert section["policy"] == {
        "provider": "openai",
        "model": "gpt-4.1-nano",
        "inference_mode": "synth_hosted",
    }
    assert section["initial_prompt"]["messages"] == [{"role": "system", "pattern": "say no", "order": 0}]
    assert section["gepa"]["evaluation"]["seeds"] == list(range(20, 36))
    stored = load_stored_prompt(remote.path / "__snapshots__" / "test_it" / "test_answers.prompt")
    assert stored.prompt == Prompt.parse("say yes")
    assert (stored.record.reward, stored.record.candidate, stored.record.model) == (
        0.8,
        "v1",
        "openai/gpt-4.1-nano",
    )


def test_what_the_service_does_not_have_is_refused_by_name(
    remote: pytest.Pytester, hosted: HostedSearches
) -> None:
    remote.makepyfile(test_it=TEST.format(more=', reflection_model="openai/gpt-5"'))
    result = run(remote)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "gate incomplete: the search was not started: reflection_model is given, but the backend at "
            f"{hosted.base_url} has no such thing; leave it out, or use the embedded backend"
        ]
    )
    assert hosted.searches == {}


def test_the_offline_model_is_refused_before_a_search_is_submitted(
    remote: pytest.Pytester, hosted: HostedSearches
) -> None:
    result = run(remote, "--synth-provider", "offline", "--synth-model", "lexical")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            f"gate incomplete: the search was not started: the backend at {hosted.base_url} does not know "
            "the model offline/lexical, which is built into pytest-synth; *"
        ]
    )
    assert hosted.searches == {}
