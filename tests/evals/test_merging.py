"""Parts of a run that was split over jobs: judged together, and refused where they do not belong together."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes.entries import replace, row

from pytest_synth.contracts.evals import EvalRow
from pytest_synth.errors import ConfigError, SynthError
from pytest_synth.evals.merging import merge_parts, skipped_tests
from pytest_synth.evals.parts import Part, PartEval, Whole, read_part, undecided, write_part
from pytest_synth.evals.sharding import Shard
from pytest_synth.gates import Baseline, Conditions, GateRule, Observation, judge, observe
from pytest_synth.report import EvalEntry, Rule

VERSION = "0.1.0"
SEEDS = tuple(range(100, 120))
WHOLE = Whole(seeds=SEEDS, split="test", rule=Rule(min_reward=0.8))
NODE = "test_a.py::test_b"


def reward(seed: int) -> float:
    return float(seed % 5 != 0)  # 0.8 over SEEDS, and not in every shard


def entry_of(rows: tuple[EvalRow, ...], **fields: Any) -> EvalEntry:
    missing = sum(r.outcome_reward is None for r in rows)
    values: dict[str, Any] = {
        "node_id": NODE,
        "outcome": "measured",
        "gate_text": "shard",
        "rule": WHOLE.rule,
        "seeds_asked": len(rows),
        "seeds_done": len(rows) - missing,
        "rollouts": len(rows),
        "duration_s": 2.0,
        "tokens": 10 * len(rows),
        "cost_usd": 0.5,
        "model": "openai/m",
        "prompt_fingerprint": "3f9c2a81d0aa",
        "rows": rows,
    }
    return EvalEntry(**(values | fields))


def part(index: int, count: int, *, whole: Whole = WHOLE, lose: tuple[int, ...] = (), **fields: Any) -> Part:
    """The part of one shard that has run its seeds but for those of `lose`."""
    rows = tuple(
        row(
            seed, None if seed in lose else reward(seed), split="test", error="lost" if seed in lose else None
        )
        for seed in Shard(index, count).seeds(whole.seeds)
    )
    found = PartEval(
        node_id=NODE,
        position=0,
        seeds_asked=len(rows),
        whole=whole,
        state="run",
        entries=(entry_of(rows, **fields),),
    )
    return Part(package_version=VERSION, shard=(index, count), evals=(found,))


def parts(count: int, make: Callable[..., Part] = part, **fields: Any) -> dict[str, Part]:
    return {f"part-{n}.json": make(n, count, **fields) for n in range(1, count + 1)}


@pytest.mark.parametrize("count", [1, 2, 3, 20, 25])
def test_the_verdict_over_all_shards_is_that_of_one_run(count: int) -> None:
    given = parts(count) if count <= 20 else {
        **{f"p{n}": part(n, count) for n in range(1, 21)},
        **{f"p{n}": left_out(n, count) for n in range(21, 26)},
    }  # fmt: skip
    (entry,) = merge_parts(given)
    whole = judge([Observation("test", seed, 0, reward(seed)) for seed in SEEDS], GateRule(min_reward=0.8))
    assert (entry.outcome, entry.gate_text, entry.mean_reward) == ("passed", whole.text, 0.8)
    assert (entry.interval, entry.gate_details) == (whole.interval, whole.details)
    assert [r.seed for r in entry.rows] == list(SEEDS)
    assert (entry.rollouts, entry.tokens, entry.duration_s) == (20, 200, 2.0)
    assert entry.cost_usd == pytest.approx(0.5 * min(count, 20))


def left_out(index: int, count: int) -> Part:
    """The part of a shard that no seed fell to."""
    found = PartEval(node_id=NODE, position=0, is_elsewhere=True, whole=WHOLE, state="elsewhere")
    return Part(package_version=VERSION, shard=(index, count), evals=(found,))


def test_a_shard_alone_may_be_below_the_threshold_and_the_whole_decides() -> None:
    worse = replace_rule(WHOLE, min_reward=0.81)
    (entry,) = merge_parts(parts(4, whole=worse))
    assert entry.outcome == "failed"
    assert entry.gate_text.startswith("gate failed: mean reward 0.80 over 20 seeds is below min_reward 0.81")


def replace_rule(whole: Whole, **changes: Any) -> Whole:
    return whole.model_copy(update={"rule": whole.rule.model_copy(update=changes)})


def test_missing_rewards_of_all_shards_are_counted_together() -> None:
    allowed = replace_rule(WHOLE, allow_missing=2, min_reward=0.5)
    (entry,) = merge_parts(parts(4, whole=allowed, lose=(100, 101)))
    assert (entry.outcome, entry.seeds_done) == ("passed", 18)
    (entry,) = merge_parts(parts(4, whole=allowed, lose=(100, 101, 102)))
    assert entry.outcome == "incomplete"
    assert entry.gate_text.startswith("gate incomplete: 3 of 20 seeds have no reward (100-102: lost)")


def test_a_share_that_was_not_run_counts_as_missing() -> None:
    given = parts(4)
    lost = given["part-3.json"].evals[0]
    given["part-3.json"] = Part(
        package_version=VERSION,
        shard=(3, 4),
        evals=(lost.model_copy(update={"state": "not_run", "entries": ()}),),
    )
    (entry,) = merge_parts(given)
    assert entry.outcome == "incomplete"
    assert "5 of 20 seeds have no reward (102, 106, 110, 114, 118: not run in shard 3/4)" in entry.gate_text
    given["part-3.json"] = Part(
        package_version=VERSION,
        shard=(3, 4),
        evals=(lost.model_copy(update={"state": "skipped", "entries": ()}),),
    )
    (entry,) = merge_parts(given)
    assert "skipped in shard 3/4" in entry.gate_text


def test_a_test_that_all_shards_have_skipped_is_left_out_and_one_that_none_ran_is_incomplete() -> None:
    def without(state: str) -> dict[str, Part]:
        return {
            name: one.model_copy(
                update={"evals": (one.evals[0].model_copy(update={"state": state, "entries": ()}),)}
            )
            for name, one in parts(2).items()
        }

    assert merge_parts(without("skipped")) == ()
    assert skipped_tests(without("skipped").values(), ()) == [NODE]
    assert skipped_tests(parts(2).values(), merge_parts(parts(2))) == []
    (entry,) = merge_parts(without("not_run"))
    assert (entry.outcome, entry.gate_text) == (
        "incomplete",
        "gate incomplete: it did not run in any shard",
    )


def test_a_baseline_travels_in_the_parts_and_is_compared_over_all_seeds() -> None:
    conditions = Conditions(model="openai/m", scorer="s", data="d")
    rows = [row(seed, 1.0, split="test") for seed in SEEDS]
    stored = Baseline.of(observe(rows, seeds=SEEDS, split="test"), conditions).to_text()
    whole = replace_rule(WHOLE, min_reward=None, max_regression=0.1).model_copy(update={"baseline": stored})
    given = parts(4, whole=whole, scorer_fingerprint="s", data_fingerprint="d")
    (entry,) = merge_parts(given)
    assert entry.outcome == "failed"
    assert entry.baseline is not None
    assert [change.seed for change in entry.baseline.newly_failing] == [100, 105, 110, 115]
    (entry,) = merge_parts(parts(4, whole=whole, scorer_fingerprint="other", data_fingerprint="d"))
    assert "scorer was 's' and is 'other'" in entry.gate_text


def test_a_share_that_is_incomplete_for_another_reason_makes_the_whole_incomplete() -> None:
    given = parts(2, outcome="incomplete", gate_text="gate incomplete: stored prompt is stale")
    (entry,) = merge_parts(given)
    assert (entry.outcome, entry.gate_text) == ("incomplete", "gate incomplete: stored prompt is stale")


def whole_test(node_id: str, *, state: str = "run", **fields: Any) -> PartEval:
    entries = (replace(entry_of((), **fields), node_id=node_id),) if state == "run" else ()
    return PartEval.model_validate(
        {"node_id": node_id, "position": 1, "seeds_asked": 3, "state": state, "entries": entries}
    )


def test_a_test_that_runs_whole_in_one_shard_is_taken_from_there() -> None:
    node_id = "test_a.py::test_looks_itself"
    home = Shard(1, 2).home_of(node_id)
    given = {}
    for n, one in enumerate(parts(2).values(), start=1):
        state = "run" if n == home.index else "elsewhere"
        given[f"p{n}"] = one.model_copy(
            update={
                "evals": (
                    *one.evals,
                    whole_test(node_id, state=state, outcome="failed", expected_failure=True),
                )
            }
        )
    entries = merge_parts(given)
    assert [(e.node_id, e.told_outcome) for e in entries] == [
        (NODE, "passed"),
        (node_id, "failed (expected)"),
    ]


def test_parts_with_different_tests_are_put_side_by_side() -> None:
    one = Part(package_version=VERSION, evals=(whole_test("a", outcome="passed"),))
    two = Part(
        package_version=VERSION,
        evals=(
            whole_test("b", outcome="failed"),
            whole_test("c", state="skipped"),
            whole_test("d", state="not_run"),
        ),
    )
    entries = merge_parts({"1.json": one, "2.json": two})
    assert [(e.node_id, e.outcome) for e in entries] == [
        ("a", "passed"),
        ("b", "failed"),
        ("d", "incomplete"),
    ]
    assert entries[2].gate_text == "gate incomplete: it did not run; the run of '2.json' ended before"


def with_seed_100_too(made: Part) -> Part:
    (found,) = made.evals
    (entry,) = found.entries
    more = entry.model_copy(update={"rows": (*entry.rows, row(100, 1.0, split="test"))})
    return made.model_copy(update={"evals": (found.model_copy(update={"entries": (more,)}),)})


REFUSED = [
    pytest.param(dict, "there is no part to merge", id="none"),
    pytest.param(
        lambda: {name: one for name, one in parts(4).items() if name != "part-2.json"},
        "the part of shard 2/4 is missing; its job has written none, or it was lost",
        id="missing",
    ),
    pytest.param(
        lambda: parts(2) | {"again.json": part(2, 2)},
        "shard 2/2 is there twice: 'part-2.json' and 'again.json'",
        id="twice",
    ),
    pytest.param(
        lambda: parts(2) | {"other.json": part(3, 3)},
        "the parts do not belong together: 'part-1.json' is shard 1/2, 'other.json' is shard 3/3",
        id="other count",
    ),
    pytest.param(
        lambda: parts(2) | {"plain.json": Part(package_version=VERSION)},
        "the parts do not belong together: 'part-1.json' is of a run with --synth-shard, 'plain.json' is not",
        id="split and not",
    ),
    pytest.param(
        lambda: {"1": part(1, 2), "2": part(2, 2, whole=replace_rule(WHOLE, min_reward=0.7))},
        "the parts do not belong together: seeds, criteria or baseline of test_a.py::test_b are not the same "
        "in '1' and '2'",
        id="other rule",
    ),
    pytest.param(
        lambda: {"1": part(1, 2), "2": Part(package_version=VERSION, shard=(2, 2))},
        "the parts do not belong together: test_a.py::test_b is in '1' and not in '2'",
        id="other tests",
    ),
    pytest.param(
        lambda: {"1": Part(package_version=VERSION, shard=(1, 2)), "2": part(2, 2)},
        "the parts do not belong together: test_a.py::test_b is in '2' and not in '1'",
        id="more tests",
    ),
    pytest.param(
        lambda: {"1": part(1, 2), "2": part(2, 2, model="openai/other")},
        "the parts do not belong together: the model of test_a.py::test_b is 'openai/m' in one and "
        "'openai/other' in another",
        id="other model",
    ),
    pytest.param(
        lambda: {"1": part(1, 2), "2": part(2, 2, prompt_fingerprint="ffff")},
        "the parts do not belong together: the prompt of test_a.py::test_b is '3f9c2a81d0aa' in one and "
        "'ffff' in another",
        id="other prompt",
    ),
    pytest.param(
        lambda: {"1": part(1, 2), "2": with_seed_100_too(part(2, 2))},
        "the parts do not belong together: test_a.py::test_b: two rows for seed 100, sample 0",
        id="seed twice",
    ),
    pytest.param(
        lambda: {n: Part(package_version=VERSION, evals=(whole_test("a"),)) for n in ("1", "2")},
        "a is in '1' and in '2'; let one job run each test, or split the seeds of all tests with "
        "--synth-shard",
        id="test twice",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("make", "text"), REFUSED)
def test_parts_that_do_not_make_one_run_are_refused(make: Callable[[], dict[str, Part]], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        merge_parts(make())
    assert str(caught.value) == text


def test_a_share_of_the_seeds_is_neither_passed_nor_failed() -> None:
    low = entry_of(tuple(row(seed, 0.0) for seed in range(5)), mean_reward=0.0)
    told = undecided(low, WHOLE, Shard(1, 4))
    assert (told.outcome, told.threshold, told.rule) == ("measured", 0.8, WHOLE.rule)
    assert told.gate_text == "shard 1/4, 5 of 20 seeds: mean reward 0.00; pytest-synth merge decides"


def test_a_share_fails_only_for_more_missing_rewards_than_the_whole_may_lack() -> None:
    allowed = replace_rule(WHOLE, allow_missing=2)
    gone = entry_of(
        tuple(row(seed, None, error="lost") for seed in range(2)),
        outcome="incomplete",
        gate_text="gate: 2 gone",
    )
    assert undecided(gone, allowed, Shard(1, 10)).outcome == "measured"
    assert undecided(gone, allowed, Shard(1, 10)).gate_text == (
        "shard 1/10, 2 of 20 seeds: no reward; pytest-synth merge decides"
    )
    told = undecided(gone, replace_rule(WHOLE, allow_missing=1), Shard(1, 10))
    assert (told.outcome, told.gate_text) == ("incomplete", "shard 1/10, 2 of 20 seeds: gate: 2 gone")


def test_every_seed_and_every_test_is_in_exactly_one_shard() -> None:
    shards = [Shard(n, 7) for n in range(1, 8)]
    assert sorted(seed for shard in shards for seed in shard.seeds(SEEDS)) == list(SEEDS)
    homes = {shards[0].home_of(f"test_{n}") for n in range(100)}
    assert homes == set(shards)
    assert all(shard.home_of("test_x") == shards[0].home_of("test_x") for shard in shards)


def test_a_part_can_be_written_and_read_back(tmp_path: Path) -> None:
    rows = (row(100, 1.0, split="test", query="\ud800", details={"x": float("inf"), "expected": "ü"}),)
    written = part(1, 2).model_copy(
        update={"evals": (part(1, 2).evals[0].model_copy(update={"entries": (entry_of(rows),)}),)}
    )
    write_part(written, tmp_path / "new" / "part.json")
    read = read_part(tmp_path / "new" / "part.json")
    assert (read.shard, read.evals[0].whole, read.evals[0].state) == ((1, 2), WHOLE, "run")
    back = read.evals[0].entries[0].rows[0]
    assert (back.query, back.details) == ("\ufffd", {"x": None, "expected": "ü"})
    assert part(2, 2) == round_trip(part(2, 2), tmp_path)


def round_trip(made: Part, folder: Path) -> Part:
    write_part(made, folder / "part.json")
    return read_part(folder / "part.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("{", "is not JSON: Expecting property name", id="no json"),
        pytest.param("[]", "is no part of a run; pytest --synth-shard-out writes one", id="list"),
        pytest.param('{"version": 1, "evals": []}', "is no part of a run;", id="report"),
        pytest.param(
            '{"package_version": "0.0.9"}',
            "was written by pytest-synth 0.0.9, and this is 0.1.0; use one version in all jobs",
            id="version",
        ),
        pytest.param(
            json.dumps({"package_version": VERSION, "evals": [{"node_id": 1}]}),
            "cannot be read: evals.0.node_id: Input should be a valid string",
            id="field",
        ),
    ],
)
def test_a_file_that_is_no_part_says_why(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "part.json"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_part(file)
    assert str(caught.value).startswith(f"{str(file)!r} {message}")


def test_a_part_that_is_not_there_or_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read '.*absent\.json': No such file"):
        read_part(tmp_path / "absent.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(SynthError, match=r"cannot write the part '.*/file/part\.json': "):
        write_part(part(1, 2), tmp_path / "file" / "part.json")
