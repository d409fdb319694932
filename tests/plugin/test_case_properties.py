"""An eval's figures at its test case, in JUnit files and in what pytest-reportlog writes."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from fakes.entries import replace

from pytest_synth.plugin.junit import eval_properties
from pytest_synth.report import BaselineEntry, EvalEntry

APP = """
from pytest_synth import task_app

SYSTEM = "Answer with one of the labels.\\n- red: warm fire\\n- blue: cold water"

async def run(row, llm):
    reply = await llm.chat([{"role": "system", "content": SYSTEM}, {"role": "user", "content": row}])
    return reply.text

app = task_app(
    rows={"test": ["fire", "water", "fire", "water"]}, run=run, score=lambda row, answer: answer == "blue"
)
"""

TESTS = """
import pytest

@pytest.mark.synth_eval(seeds=range(4), split="test", min_reward=0.6)
def test_low(): ...

@pytest.mark.synth_eval(seeds=[1, 3], split="test", min_reward=0.6)
def test_high(record_property, synth_eval):
    record_property("mine", "kept")
    assert synth_eval(seeds=[0]).mean_reward == 0

def test_plain(record_property):
    record_property("mine", 1)
"""

# What pytest-reportlog does with every report.
REPORT_LOG = """
import json, pathlib

def pytest_runtest_logreport(report):
    config = CONFIG[0]
    data = config.hook.pytest_report_to_serializable(config=config, report=report)
    with pathlib.Path(config.rootpath, "log.jsonl").open("a") as log:
        log.write(json.dumps(data) + "\\n")

CONFIG = []

def pytest_configure(config):
    CONFIG.append(config)
"""


@pytest.fixture
def labelled(project: pytest.Pytester) -> pytest.Pytester:
    project.makepyfile(my_app=APP, test_it=TESTS)
    return project


def properties(file: Path) -> dict[str, dict[str, str]]:
    """The properties of each test case of a JUnit file."""
    return {
        case.attrib["name"]: {
            p.attrib["name"]: p.attrib["value"] for p in case.iterfind("properties/property")
        }
        for case in ElementTree.parse(file).iter("testcase")
    }


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    options = ("-p", "no:randomly", "-o", "junit_family=xunit1", "--junitxml", "out.xml")
    return project.runpytest(*options, *arguments)


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["one process", "xdist"])
def test_junit_file_has_the_figures_beside_the_users_own(
    labelled: pytest.Pytester, workers: tuple[str, ...]
) -> None:
    run(labelled, *workers).assert_outcomes(passed=2, failed=1)
    found = properties(labelled.path / "out.xml")
    low = found["test_low"]
    fingerprint = low.pop("synth_prompt_fingerprint")
    tokens = int(low.pop("synth_tokens"))
    assert low == {
        "synth_verdict": "failed",
        "synth_mean_reward": "0.5",
        "synth_interval_low": low["synth_interval_low"],
        "synth_interval_high": low["synth_interval_high"],
        "synth_threshold": "0.6",
        "synth_seeds": "4",
        "synth_seeds_missing": "0",
        "synth_rollouts": "4",
        "synth_cost_usd": "0.0",
        "synth_model": "offline/lexical",
        "synth_prompt_source": "app",
    }
    assert 0 < float(low["synth_interval_low"]) < 0.5 < float(low["synth_interval_high"]) < 1
    assert tokens > 0
    assert len(fingerprint) >= 8
    high = found["test_high"]
    assert (high["mine"], high["synth_verdict"], high["synth_mean_reward"]) == ("kept", "passed", "1.0")
    assert (high["synth_call_1_verdict"], high["synth_call_1_mean_reward"]) == ("measured", "0.0")
    assert found["test_plain"] == {"mine": "1"}


def test_every_try_of_a_test_has_the_figures_once(labelled: pytest.Pytester) -> None:
    result = run(labelled, "--reruns", "2", "-k", "low")
    assert "1 failed, 2 deselected, 2 rerun" in result.stdout.str()
    cases = list(ElementTree.parse(labelled.path / "out.xml").iter("testcase"))
    names = [[p.attrib["name"] for p in case.iterfind("properties/property")] for case in cases]
    assert [found.count("synth_mean_reward") for found in names] == [1, 1, 1]


def test_report_log_can_write_all_reports_and_has_the_figures(labelled: pytest.Pytester) -> None:
    labelled.makeconftest(REPORT_LOG)
    run(labelled).assert_outcomes(passed=2, failed=1)
    reports = [json.loads(line) for line in (labelled.path / "log.jsonl").read_text().splitlines()]
    call = next(r for r in reports if r["nodeid"] == "test_it.py::test_low" and r["when"] == "call")
    assert ["synth_mean_reward", 0.5] in call["user_properties"]
    assert ["synth_verdict", "failed"] in call["user_properties"]


def test_what_is_not_known_is_left_out_and_long_fractions_are_rounded() -> None:
    entry = EvalEntry(node_id="a", outcome="incomplete", gate_text="", seeds_asked=5, seeds_done=3)
    assert eval_properties(entry) == {
        "verdict": "incomplete", "seeds": 5, "seeds_missing": 2, "rollouts": 0, "tokens": 0,
    }  # fmt: skip
    baseline = BaselineEntry(mean=0.9, difference=-0.1, interval=(-0.2, 0.0), lower_bound=-0.2)
    changed = replace(
        entry, baseline=baseline, at_most=0.1 + 0.2, lower_bound=1 / 3, cost_usd=1.23456789, seeds_not_run=2
    )
    assert eval_properties(changed) | {"rollouts": 0} == {
        "verdict": "incomplete", "at_most": 0.3, "lower_bound": 0.333333, "baseline_mean": 0.9,
        "seeds": 5, "seeds_missing": 0, "seeds_not_run": 2, "rollouts": 0, "tokens": 0, "cost_usd": 1.234568,
    }  # fmt: skip
