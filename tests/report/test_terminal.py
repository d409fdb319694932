from __future__ import annotations

import pytest
from fakes.entries import replace, row

from pytest_synth.report import BaselineEntry, EvalEntry, SeedChange, failure_text, terminal_lines
from pytest_synth.report.terminal import sparkline

GOOD = EvalEntry(
    node_id="tests/test_intents.py::test_refunds",
    outcome="passed",
    gate_text="gate passed: mean reward 0.87 over 200 seeds, min_reward 0.80",
    mean_reward=0.87,
    threshold=0.8,
    seeds_asked=200,
    seeds_done=200,
    rollouts=200,
    duration_s=0.5,
    tokens=12345,
    cost_usd=0.0123,
    model="offline/lexical",
    prompt_source="marker",
    prompt_fingerprint="3f9c2a81d0aa",
)
BAD = replace(
    GOOD,
    node_id="tests/test_intents.py::test_typos",
    outcome="failed",
    gate_text="gate failed: mean reward 0.62 over 200 seeds is below min_reward 0.80; lowest: seed 7 0.00",
    gate_details=("latency_ms 412.00 over 200 seeds, limit <= 900",),
    mean_reward=0.62,
    duration_s=25.0,
)
DEAD = replace(
    GOOD,
    node_id="tests/test_intents.py::test_cards",
    outcome="incomplete",
    gate_text="gate incomplete: 2 of 20 seeds have no reward (3, 11: task app answered 500)",
    mean_reward=None,
    seeds_asked=20,
    seeds_done=18,
    rollouts=20,
    cost_usd=None,
    replayed=5,
)


def test_summary_shows_one_aligned_line_for_each_eval_and_a_total() -> None:
    rows = [row(n, 1.0) for n in range(20)] + [row(20, 0.5)] + [row(n, 0.0) for n in range(21, 24)]
    assert terminal_lines([replace(GOOD, rows=rows), BAD, DEAD], width=100) == [
        "eval                                 reward   min    seeds  per s   rewards  gate",
        "tests/test_intents.py::test_refunds    0.87  0.80  200/200    400  ▂   ▁  █  passed",
        "tests/test_intents.py::test_typos      0.62  0.80  200/200    8.0            failed",
        "tests/test_intents.py::test_cards         -  0.80    18/20     40            incomplete",
        "3 evals: 1 passed, 1 failed, 1 incomplete; 420 rollouts; 37,035 tokens; cost unknown",
        "replayed 5 calls",
    ]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_no_line_is_wider_than_the_terminal_and_the_end_of_a_node_id_is_kept(width: int) -> None:
    long = replace(BAD, node_id="tests/" + "very/" * 30 + "test_intents.py::test_typos[case-17]")
    lines = terminal_lines([GOOD, long, DEAD], width=width)
    assert max(map(len, lines)) <= width
    assert "-17]  " in lines[2]


def test_many_outcomes_are_told_on_several_lines() -> None:
    shown = [(26, GOOD), (3, replace(GOOD, outcome="measured")), (3, BAD), (2, DEAD)]
    evals = [entry for n, entry in shown for _ in range(n)]
    evals += [replace(entry, expected_failure=True) for entry in (BAD, DEAD)]
    lines = terminal_lines(evals, width=80)
    assert max(map(len, lines)) <= 80
    assert lines[-3:] == [
        "36 evals: 26 passed, 3 measured, 3 failed, 1 failed (expected), 2 incomplete,",
        "1 incomplete (expected); 6,660 rollouts; 444,420 tokens; cost unknown",
        "replayed 15 calls",
    ]


@pytest.mark.parametrize(
    ("width", "unicode"), [pytest.param(79, True, id="narrow"), pytest.param(100, False, id="no unicode")]
)
def test_a_terminal_without_room_or_characters_gets_no_sparkline(width: int, unicode: bool) -> None:
    lines = terminal_lines([replace(GOOD, rows=[row(1, 1.0)])], width=width, unicode=unicode)
    assert "".join(lines).isascii()


def test_names_go_before_sparklines_where_there_is_not_room_for_both() -> None:
    """Cut to `…t_typos`, the rows of two files would look the same."""
    entry = replace(GOOD, rows=[row(1, 1.0)])
    (_, fits, *_) = terminal_lines([entry], width=83)
    (_, short, *_) = terminal_lines([entry], width=82)
    assert fits == "tests/test_intents.py::test_refunds    0.87  0.80  200/200    400         █  passed"
    assert short == "tests/test_intents.py::test_refunds    0.87  0.80  200/200    400  passed"


@pytest.mark.parametrize(
    ("rewards", "bars"),
    [
        pytest.param([], "        ", id="nothing"),
        pytest.param([1.0], "       █", id="one belongs to the last eighth"),
        pytest.param([0.0] * 100 + [1.0], "█      ▁", id="a single seed is still seen"),
        pytest.param([n / 8 for n in range(8)], "████████", id="even"),
    ],
)
def test_sparkline_counts_rewards_in_eighths(rewards: list[float], bars: str) -> None:
    assert sparkline(rewards) == bars


def test_an_eval_that_was_ended_early_shows_the_most_that_was_possible() -> None:
    (_, line, _) = terminal_lines([replace(BAD, mean_reward=None, at_most=0.71)], width=100)
    assert "<=0.71" in line


def test_known_costs_are_added_up() -> None:
    assert terminal_lines([GOOD, BAD], width=120)[-1].endswith("400 rollouts; 24,690 tokens; cost $0.0246")


def test_an_eval_without_limit_or_time_shows_a_dash() -> None:
    (_, line, _) = terminal_lines([replace(GOOD, threshold=None, duration_s=0.0)], width=100)
    assert line == "tests/test_intents.py::test_refunds    0.87    -  200/200      -            passed"


def test_an_expected_failure_and_a_mere_measurement_do_not_read_as_failure_and_success() -> None:
    entries = [replace(BAD, expected_failure=True), replace(GOOD, outcome="measured"), BAD, GOOD]
    lines = terminal_lines(entries, width=100)
    assert [line.rsplit("  ", 1)[-1] for line in lines[1:5]] == [
        "failed (expected)", "measured", "failed", "passed",
    ]  # fmt: skip
    assert lines[5].startswith("4 evals: 1 passed, 1 measured, 1 failed, 1 failed (expected);")


def test_without_evals_there_is_no_summary() -> None:
    assert terminal_lines([], width=80) == []


def test_failure_shows_gate_worst_seeds_missing_seeds_and_which_prompt_ran() -> None:
    rows = [
        row(9, 0.0, query="Where is\nmy card?", answer="card_arrival",
            details={"expected": "card_lost", "feedback": "confused with arrival"}),
        row(2, 0.5, details={"predicted": "refund"}),
        row(4, 1.0),
        row(5, None, error="task app answered 500"),
        row(6, None, error="no answer within 30 s"),
        row(7, None, error="no answer within 30 s"),
    ]  # fmt: skip
    assert failure_text(replace(BAD, rows=rows)).splitlines() == [
        "gate failed: mean reward 0.62 over 200 seeds is below min_reward 0.80; lowest: seed 7 0.00",
        "  latency_ms 412.00 over 200 seeds, limit <= 900",
        "lowest rewards:",
        "  seed 9: reward 0.00",
        "    query     Where is my card?",
        "    answer    card_arrival",
        "    expected  card_lost",
        "    feedback  confused with arrival",
        "  seed 2: reward 0.50",
        "    answer    refund",
        "no reward:",
        "  2 seeds 6, 7: no answer within 30 s",
        "  seed 5: task app answered 500",
        "prompt: the marker's, fingerprint 3f9c2a81d0aa; model: offline/lexical",
    ]


def test_a_reward_with_an_error_beside_it_is_shown_as_missing() -> None:
    text = failure_text(replace(BAD, rows=[row(3, 1.0, error="prompt not applied")]))
    assert "  seed 3: prompt not applied" in text.splitlines()


def test_failure_shows_at_most_five_seeds_each_with_shortened_values() -> None:
    rows = [row(n, 0.0, query="long " * 1000, answer="x" * 5000) for n in range(50)]
    lines = failure_text(replace(BAD, rows=rows)).splitlines()
    assert [line for line in lines if line.startswith("  seed")] == [
        f"  seed {n}: reward 0.00" for n in range(5)
    ]
    assert max(map(len, lines)) <= 220


def test_failure_shows_newly_failing_seeds_before_those_that_always_failed() -> None:
    baseline = BaselineEntry(
        mean=0.8, difference=-0.2, interval=(-0.3, -0.1), lower_bound=-0.3,
        newly_failing=(SeedChange(seed=8, before=1.0, now=0.2),),
    )  # fmt: skip
    entry = replace(BAD, rows=[row(n, 0.0) for n in range(7)] + [row(8, 0.2)], baseline=baseline)
    shown = [line for line in failure_text(entry).splitlines() if line.startswith("  seed")]
    assert shown[:2] == ["  seed 8: reward 0.20", "  seed 0: reward 0.00"]


def test_failure_of_a_seed_with_samples_shows_its_lowest_one() -> None:
    rows = [
        row(1, 1.0, sample=0, answer="right", split="test"),
        row(1, 0.0, sample=1, answer="wrong", split="test"),
    ]
    lines = failure_text(replace(BAD, rows=rows)).splitlines()
    assert lines[3:5] == ["  seed test/1: reward 0.50 over 2 samples; the lowest one:", "    answer    wrong"]


def test_an_answer_cannot_act_on_the_terminal() -> None:
    hostile = "\x1b[2J\x1b]0;owned\x07 ok \u202edesrever\x9b31m\r\n"
    text = failure_text(replace(BAD, rows=[row(1, 0.0, answer=hostile, details={"feedback": hostile})]))
    assert not {c for c in text if not c.isprintable()} - {"\n"}
    assert r"\x1b[2J\x1b]0;owned\x07 ok \u202edesrever\x9b31m" in text


def test_a_prompt_that_no_model_call_showed_is_said_to_be_unknown() -> None:
    entry = replace(BAD, prompt_source="app", prompt_fingerprint=None, model=None)
    assert failure_text(entry).splitlines()[-1] == (
        "prompt: the task app's own, fingerprint unknown (no model call was seen); model: unknown"
    )
