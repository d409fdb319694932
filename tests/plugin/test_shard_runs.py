"""Runs that are split over the jobs of a CI matrix, by seeds or by tests, and merged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pytest_synth.cli import main
from pytest_synth.evals.sharding import Shard
from pytest_synth.report import RunReport
from pytest_synth.report.json import from_json

TESTS = """
import pytest
from pytest_synth import GateFailed

@pytest.mark.synth_eval(seeds=range(20), split="test", min_reward=0.8)
def test_good(): ...

@pytest.mark.synth_eval(seeds=range(20), split="test", min_reward=0.9, gate="lower_bound")
def test_bad(): ...

@pytest.mark.synth_eval(seeds=[1], split="test", min_reward=0.9)
def test_one_seed(): ...

@pytest.mark.xfail(raises=GateFailed, strict=True)
@pytest.mark.synth_eval(seeds=range(10), split="test", min_reward=0.9)
def test_expected(): ...

@pytest.mark.synth_eval(seeds=range(10), split="test")
def test_looks_itself(synth_result):
    assert len(synth_result.rows) == 10

@pytest.mark.skip(reason="not today")
@pytest.mark.synth_eval(seeds=range(20), split="test", min_reward=0.9)
def test_skipped(): ...

def test_plain(): ...
"""

WHOLE = ("test_it.py::test_expected", "test_it.py::test_looks_itself")


@pytest.fixture
def sharded(project: pytest.Pytester) -> pytest.Pytester:
    project.makepyfile(test_it=TESTS)
    return project


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return project.runpytest("-p", "no:randomly", *arguments)


def shard(project: pytest.Pytester, index: int, count: int, *arguments: str) -> pytest.RunResult:
    options = ("--synth-shard", f"{index}/{count}", "--synth-shard-out", f"part-{index}.json")
    return run(project, *options, *arguments)


def merged(project: pytest.Pytester, *names: str) -> tuple[int, RunReport]:
    """Merge parts; the exit code and the report."""
    out = project.path / "merged.json"
    code = main(["merge", *(str(project.path / name) for name in names), "--report", str(out)])
    return code, from_json(out.read_text(encoding="utf-8"))


def verdicts(report: RunReport) -> dict[str, tuple[Any, ...]]:
    return {
        e.node_id: (
            e.told_outcome, e.gate_text, e.mean_reward, e.interval, e.seeds_done, e.rollouts,
            [row.seed for row in e.rows],
        )
        for e in report.evals
    }  # fmt: skip


def test_merged_shards_say_what_one_run_says(sharded: pytest.Pytester) -> None:
    run(sharded, "--synth-report", "whole.json").assert_outcomes(passed=4, failed=1, xfailed=1, skipped=1)
    whole = from_json((sharded.path / "whole.json").read_text(encoding="utf-8"))
    rollouts = 0
    for index in (1, 2, 3):
        result = shard(sharded, index, 3, "--synth-report", f"shard-{index}.json")
        assert result.ret == 0, result.stdout.str()  # no threshold fails a shard
        report = from_json((sharded.path / f"shard-{index}.json").read_text(encoding="utf-8"))
        rollouts += sum(entry.rollouts for entry in report.evals)
    code, report = merged(sharded, "part-2.json", "part-3.json", "part-1.json")
    assert code == 1  # test_bad
    assert verdicts(report) == verdicts(whole)
    assert report.skipped == whole.skipped == ("test_it.py::test_skipped",)
    assert rollouts == sum(entry.rollouts for entry in whole.evals)


def test_shard_runs_every_nth_seed_and_says_that_merge_decides(sharded: pytest.Pytester) -> None:
    result = shard(sharded, 2, 4, "-rs", "-k", "good or one_seed")
    result.assert_outcomes(passed=1, skipped=1, deselected=5)
    result.stdout.fnmatch_lines(
        [
            "*test_good * 5/5 * measured",
            "synth: wrote part-2.json",
            "SKIPPED * shard 2/4: none of the eval's 1 seed is in it",
        ]
    )
    part = json.loads((sharded.path / "part-2.json").read_text())
    good, one = part["evals"]
    assert [row["seed"] for row in good["entries"][0]["rows"]] == [1, 5, 9, 13, 17]
    assert good["entries"][0]["gate_text"] == (
        "shard 2/4, 5 of 20 seeds: mean reward 0.80; pytest-synth merge decides"
    )
    assert (good["state"], one["state"]) == ("run", "elsewhere")
    assert one["whole"]["seeds"] == [1]


def test_test_that_looks_itself_or_may_fail_runs_whole_in_one_shard(sharded: pytest.Pytester) -> None:
    homes = {node_id: Shard(1, 2).home_of(node_id).index for node_id in WHOLE}
    for index in (1, 2):
        result = shard(sharded, index, 2, "-v", "-rs")
        for node_id, home in homes.items():
            outcome = {"test_expected": "XFAIL", "test_looks_itself": "PASSED"}[node_id.rpartition("::")[2]]
            shown = outcome if home == index else "SKIPPED"
            result.stdout.fnmatch_lines([f"{node_id} {shown}*"])
            if home != index:
                text = f"*shard {index}/2: this test runs whole, in shard {home}/2"
                result.stdout.fnmatch_lines([text])


def test_missing_rewards_fail_a_shard_and_the_merged_run(sharded: pytest.Pytester) -> None:
    sharded.makepyfile(
        my_app="""
        from pytest_synth import task_app

        def run(row, llm):
            if row in (1, 3):
                raise ValueError(f"no answer for row {row}")
            return row

        app = task_app(rows={"test": list(range(20))}, run=run, score=lambda row, answer: 1.0)
        """,
        test_it="""
        import pytest

        @pytest.mark.synth_eval(seeds=range(20), split="test", min_reward=0.5)
        def test_all(): ...

        @pytest.mark.synth_eval(seeds=range(20), split="test", min_reward=0.5, allow_missing=2)
        def test_most(): ...
        """,
    )
    shard(sharded, 1, 2).assert_outcomes(passed=2)
    result = shard(sharded, 2, 2)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        ["shard 2/2, 10 of 20 seeds: gate incomplete: 2 of 10 seeds have no reward (1: *3: *"]
    )
    code, report = merged(sharded, "part-1.json", "part-2.json")
    assert code == 1
    assert [(e.outcome, e.seeds_done) for e in report.evals] == [("incomplete", 18), ("passed", 18)]


def test_baseline_is_compared_by_merge_alone(sharded: pytest.Pytester) -> None:
    sharded.makepyfile(
        test_it="""
        import pytest

        @pytest.mark.synth_eval(seeds=range(20), split="test", max_regression=0.05)
        def test_all(): ...
        """
    )
    run(sharded, "--synth-update-baseline").assert_outcomes(passed=1)
    for index in (1, 2):
        shard(sharded, index, 2).assert_outcomes(passed=1)
    code, report = merged(sharded, "part-1.json", "part-2.json")
    assert code == 0
    assert report.evals[0].baseline is not None
    assert report.evals[0].baseline.difference == 0
    app = (sharded.path / "my_app.py").read_text()
    (sharded.path / "my_app.py").write_text(app.replace("i % 5 == 0", "i % 4 == 0"))
    for index in (1, 2):
        shard(sharded, index, 2).assert_outcomes(passed=1)
    code, report = merged(sharded, "part-1.json", "part-2.json")
    assert code == 1
    assert report.evals[0].outcome == "incomplete"  # the rows have changed
    assert "data was" in report.evals[0].gate_text


def test_workers_write_one_part_like_a_single_process(sharded: pytest.Pytester) -> None:
    def part(*arguments: str) -> list[Any]:
        shard(sharded, 1, 2, *arguments)
        evals = json.loads((sharded.path / "part-1.json").read_text())["evals"]
        for found in evals:
            for entry in found.get("entries", ()):
                entry.pop("duration_s")
                for row in entry["rows"]:
                    del row["latency_ms"], row["correlation_id"]
        return list(evals)

    alone = part()
    assert [found["state"] for found in alone].count("run") >= 3
    assert part("-n", "2") == alone


def test_tests_that_are_split_over_jobs_are_put_together(sharded: pytest.Pytester) -> None:
    run(sharded, "-k", "good", "--synth-shard-out", "part-1.json").assert_outcomes(passed=1, deselected=6)
    run(sharded, "-k", "one_seed or skipped", "--synth-shard-out", "part-2.json")
    run(sharded, "-k", "plain", "--synth-shard-out", "part-3.json").assert_outcomes(passed=1, deselected=6)
    code, report = merged(sharded, "part-1.json", "part-2.json", "part-3.json")
    assert (code, [e.outcome for e in report.evals]) == (0, ["passed", "passed"])


def test_eval_that_did_not_run_makes_the_merged_run_red(sharded: pytest.Pytester) -> None:
    run(sharded, "-x", "-k", "bad or one_seed", "--synth-shard-out", "part-1.json")
    run(sharded, "-k", "good", "--synth-shard-out", "part-2.json").assert_outcomes(passed=1, deselected=6)
    code, report = merged(sharded, "part-1.json", "part-2.json")
    assert code == 1
    assert {e.node_id: e.outcome for e in report.evals} == {
        "test_it.py::test_bad": "failed",
        "test_it.py::test_one_seed": "incomplete",
        "test_it.py::test_good": "passed",
    }
    assert "it did not run; the run of" in report.evals[1].gate_text


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        pytest.param(
            ["--synth-shard", "1/4"],
            "ERROR: --synth-shard 1/4 needs --synth-shard-out FILE: no share of the seeds decides a gate, "
            "pytest-synth merge does",
            id="no file",
        ),
        pytest.param(
            ["--synth-shard", "5/4", "--synth-shard-out", "p.json"],
            "ERROR: --synth-shard: '5/4' is not allowed; use I/N with I from 1 to N, as in 1/4",
            id="range",
        ),
        pytest.param(
            ["--synth-shard", "0/4", "--synth-shard-out", "p.json"],
            "ERROR: --synth-shard: '0/4' is not allowed;*",
            id="zero",
        ),
        pytest.param(
            ["--synth-shard", "1/4", "--synth-shard-out", "p.json", "--synth-update-baseline"],
            "ERROR: --synth-update-baseline needs the rewards of all seeds; leave --synth-shard out",
            id="baseline",
        ),
    ],
)
def test_wrong_use_is_told_before_anything_runs(
    sharded: pytest.Pytester, arguments: list[str], line: str
) -> None:
    result = run(sharded, *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([line])
    assert not Path(sharded.path, "p.json").exists()


def test_step_summary_is_left_to_merge(sharded: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    file = sharded.path / "summary"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(file))
    for index in (1, 2):
        shard(sharded, index, 2, "-k", "good").assert_outcomes(passed=1, deselected=6)
    assert not file.exists()
    assert merged(sharded, "part-1.json", "part-2.json")[0] == 0
    assert file.read_text(encoding="utf-8").startswith("### pytest-synth: 1 passed\n")
