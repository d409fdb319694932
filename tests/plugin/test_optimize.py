"""`--synth-optimize`: a search on the test that fails, judged on seeds that it has not seen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_synth.prompt_files import PromptRecord
from pytest_synth.prompts import Prompt, StoredPrompt, load_stored_prompt

START = "Choose one label:\n- card\n- refund\n- top_up\n"
# What the built-in models find out of the train rows; every test row holds one of these words.
GOOD = "Choose one label:\n- card: stolen, missing\n- refund: reimburse, money\n- top_up: deposit, cash\n"
# Right for the rows of one label of the three, as `START` is.
HALF = "Choose one label:\n- card: stolen, missing, vanished\n- refund: x\n- top_up: y\n"

APP = """
import os, pathlib
from pytest_synth import task_app

WORDS = {
    "card": ["stolen", "missing", "vanished"],
    "refund": ["reimburse", "money", "reimburse money"],
    "top_up": ["deposit", "cash", "deposit cash"],
}
ROWS = {
    split: [
        {"text": f"{opening} {word} {number}", "label": label}
        for number in range(2) for label, words in WORDS.items() for word in words
    ]
    for split, opening in {"train": "about my", "test": "please help with"}.items()
}

async def run(row, llm):
    with pathlib.Path("rollouts.txt").open("a") as file:
        file.write(row["text"].split()[0] + "\\n")
    if os.environ.get("BROKEN") == row["text"]:
        raise ValueError("broken row")
    reply = await llm.chat([{"role": "system", "content": "own"}, {"role": "user", "content": row["text"]}])
    return reply.text.strip()

def score(row, answer):
    return float(answer == row["label"]), f"it is {row['label']}"

app = task_app(rows=ROWS, run=run, score=score, expected="label")
"""

TEST = f"""
import pytest

@pytest.mark.synth_optimize(
    range(12), validation_seeds=range(12, 18), split="train", prompt={START!r}, budget=60, minibatch_size=6,
    pareto_set_size=6,
)
@pytest.mark.synth_eval(seeds=range(18), split="test", min_reward=0.9)
def test_it(): ...
"""

SEARCH = TEST[TEST.index("range(12)") : TEST.index(")\n@pytest.mark.synth_eval")]

OPTIMIZE, UPDATE = "--synth-optimize", "--snapshot-update"
PLAIN = ("-p", "no:randomly", "-p", "no:cacheprovider")


@pytest.fixture
def tunable(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    project.makepyfile(my_app=APP, test_it=TEST)
    monkeypatch.chdir(project.path)
    return project


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return project.runpytest(*PLAIN, *arguments)


def file(project: pytest.Pytester) -> Path:
    return project.path / "__snapshots__" / "test_it" / "test_it.prompt"


def store(project: pytest.Pytester, text: str, origin: str = START) -> bytes:
    file(project).parent.mkdir(parents=True)
    record = PromptRecord(candidate="c9", baseline_fingerprint=Prompt.parse(origin).fingerprint)
    file(project).write_bytes(StoredPrompt(Prompt.parse(text), record).to_text().encode())
    return file(project).read_bytes()


def rollouts(project: pytest.Pytester) -> tuple[int, int]:
    """Rollouts on train rows and on test rows."""
    log = project.path / "rollouts.txt"
    words = log.read_text().splitlines() if log.exists() else []
    return words.count("about"), words.count("please")


def test_search_finds_a_better_prompt_and_the_next_run_is_green_on_it(tunable: pytest.Pytester) -> None:
    run(tunable).assert_outcomes(failed=1)
    (tunable.path / "rollouts.txt").unlink()
    result = run(tunable, OPTIMIZE, UPDATE)
    result.assert_outcomes(passed=1)
    searched, judged = rollouts(tunable)
    assert 0 < searched <= 60
    assert judged == 2 * 18
    stored = load_stored_prompt(file(tunable))
    assert (stored.record.reward, stored.record.n, stored.record.seeds) == (1.0, 18, "test 0-17")
    assert stored.record.baseline_reward == pytest.approx(1 / 3, abs=1e-4)
    assert stored.record.interval is not None
    assert 0 < stored.record.interval[0] < stored.record.interval[1]
    assert stored.record.model == "offline/lexical"
    assert stored.record.candidate != stored.record.parent is not None
    assert stored.record.baseline_fingerprint == Prompt.parse(START).fingerprint
    run(tunable).assert_outcomes(passed=1)
    tunable.makepyfile(
        test_it=TEST.replace(
            "test_it(): ...",
            "test_it(synth_result):\n"
            "    assert {row.prompt_source for row in synth_result.rows} == {'snapshot'}",
        )
    )
    run(tunable).assert_outcomes(passed=1)


def test_plan_comes_before_the_first_rollout_and_the_result_at_the_end(tunable: pytest.Pytester) -> None:
    tunable.makepyfile(my_app=APP + "\n\nprint('the app is loaded')\n")
    result = run(tunable, OPTIMIZE, "-s")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        [
            "synth: test_it.py::test_it is to be optimised within 60 rollouts, and at most 2 x 18 on its "
            "eval seeds",
            "*the app is loaded",
            "synth: optimising test_it.py::test_it: 60 rollouts: baseline 6, * children, final check 12; "
            "then 2 x 18 on its eval seeds",
            "*= synth optimisations =*",
            "test_it.py::test_it",
            "  held-out reward 0.33 -> 1.00 on 18 seeds, difference +0.67 (interval +0.* to +0.*)",
            "  better: 0.33 -> 1.00 on 18 eval seeds; accept it with --snapshot-update",
            "  plan: 60 rollouts: baseline 6, *",
            "  * of 60 rollouts: baseline 6, * final check 12 (0.* -> 1.00); ended by *",
            "  lineage, with rewards on the search's own seeds: baseline 0.* -> candidate_* 1.00",
            "  system:",
            "*{+ refund: *reimburse*+}",
            "*= synth evals =*",
            "test_it.py::test_it *1.00  0.90  18/18 * passed",
        ]
    )
    assert not file(tunable).exists()


def test_quiet_run_announces_nothing(tunable: pytest.Pytester) -> None:
    result = run(tunable, OPTIMIZE, "-qq")
    assert "synth:" not in result.stdout.str()


def test_dry_run_tells_of_the_search_and_runs_nothing(tunable: pytest.Pytester) -> None:
    result = run(tunable, OPTIMIZE, "--synth-dry-run")
    result.stdout.fnmatch_lines(
        [
            "synth: test_it.py::test_it is to be optimised within 60 rollouts, and at most 2 x 18 on its "
            "eval seeds: not in the total, cost unknown"
        ]
    )
    assert rollouts(tunable) == (0, 0)


def test_without_the_flag_the_prompt_of_the_marker_is_judged(tunable: pytest.Pytester) -> None:
    result = run(tunable)
    result.assert_outcomes(failed=1)
    assert rollouts(tunable) == (0, 18)
    result.stdout.fnmatch_lines([f"prompt: the marker's, fingerprint {Prompt.parse(START).fingerprint}; *"])


def test_deselected_and_unmarked_tests_are_not_optimised(tunable: pytest.Pytester) -> None:
    other = TEST[TEST.index("@pytest.mark.synth_eval") :].replace("test_it", "test_other")
    tunable.makepyfile(test_it=TEST + other.replace("min_reward=0.9", f"min_reward=0, prompt={START!r}"))
    run(tunable, OPTIMIZE, "-k", "other").assert_outcomes(passed=1, deselected=1)
    assert rollouts(tunable) == (0, 18)


def test_improvement_over_the_stored_prompt_fails_until_it_is_accepted(tunable: pytest.Pytester) -> None:
    before = store(tunable, HALF)
    result = run(tunable, OPTIMIZE)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "improvement available: 0.33 -> 1.00 on 18 eval seeds; accept it with --snapshot-update",
            "  paired difference +0.67 (interval +0.* to +0.*)",
            "*- refund:[[]- x-[]]{+ *reimburse*+}",
            "prompt: the best one that was found, fingerprint *",
        ]
    )
    assert file(tunable).read_bytes() == before
    run(tunable, OPTIMIZE, UPDATE).assert_outcomes(passed=1)
    assert load_stored_prompt(file(tunable)).record.reward == 1.0


def test_second_search_finds_the_stored_prompt_again(tunable: pytest.Pytester) -> None:
    run(tunable, OPTIMIZE, UPDATE).assert_outcomes(passed=1)
    before = file(tunable).read_bytes()
    result = run(tunable, OPTIMIZE, UPDATE)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        ["  the stored prompt stands with 1.00 on 18 eval seeds; the search has found it again"]
    )
    assert file(tunable).read_bytes() == before


def test_stored_prompt_that_is_as_good_stands_and_is_not_rewritten(tunable: pytest.Pytester) -> None:
    before = store(tunable, GOOD)
    result = run(tunable, OPTIMIZE, UPDATE)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        ["  the stored prompt stands with 1.00 on 18 eval seeds; the best one found has 1.00"]
    )
    result.stdout.fnmatch_lines(["test_it.py::test_it *1.00*passed"])
    assert file(tunable).read_bytes() == before


def test_stale_prompt_is_replaced_by_a_new_search(tunable: pytest.Pytester) -> None:
    store(tunable, HALF, origin="an earlier prompt")
    run(tunable).assert_outcomes(failed=1)
    result = run(tunable, OPTIMIZE)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["gate incomplete: stored prompt is stale: *; accept it with --snapshot-update"]
    )
    run(tunable, OPTIMIZE, UPDATE).assert_outcomes(passed=1)
    assert load_stored_prompt(file(tunable)).record.baseline_fingerprint == Prompt.parse(START).fingerprint
    run(tunable).assert_outcomes(passed=1)


def test_stale_prompt_that_is_still_the_best_is_kept_under_its_new_origin(tunable: pytest.Pytester) -> None:
    store(tunable, GOOD, origin="an earlier prompt")
    run(tunable, OPTIMIZE, UPDATE).assert_outcomes(passed=1)
    stored = load_stored_prompt(file(tunable))
    assert (stored.prompt, stored.record.candidate) == (Prompt.parse(GOOD), "c9")
    assert stored.record.baseline_fingerprint == Prompt.parse(START).fingerprint


def test_result_with_a_missing_seed_is_never_stored(
    tunable: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKEN", "please help with stolen 0")
    tunable.makepyfile(test_it=TEST.replace("min_reward=0.9", "min_reward=0.9, allow_missing=3"))
    result = run(tunable, OPTIMIZE, UPDATE)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "gate incomplete: nothing is decided or stored: the code's prompt and the best prompt found has "
            "eval seeds without a reward",
        ]
    )
    assert not file(tunable).exists()


def test_service_that_is_down_leaves_the_stored_prompt_alone(
    tunable: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNTH_API_KEY", "key-of-nowhere")
    before = store(tunable, HALF)
    result = run(tunable, OPTIMIZE, UPDATE, "--synth-backend", "http://127.0.0.1:9")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["gate incomplete: the search was not started: *127.0.0.1:9*"])
    assert file(tunable).read_bytes() == before


def test_search_that_fails_stores_nothing_and_says_why(
    tunable: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    tunable.makepyfile(
        my_app=APP.replace('if os.environ.get("BROKEN") == row["text"]', "if 'about' in row['text']")
    )
    before = store(tunable, HALF)
    result = run(tunable, OPTIMIZE, UPDATE)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["gate incomplete: the search pl_* ended 'failed': *"])
    assert file(tunable).read_bytes() == before


def test_gate_is_held_against_the_best_prompt(tunable: pytest.Pytester) -> None:
    """One label has no train rows, so the best prompt is better and still not good enough."""
    seeds = "[0, 1, 2, 3, 4, 5, 9, 10, 11, 12]"
    tunable.makepyfile(
        test_it=TEST.replace("range(12)", seeds).replace("range(12, 18)", "[13, 14]").replace("=6,", "=4,")
    )
    result = run(tunable, OPTIMIZE, UPDATE)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "gate failed: mean reward 0.67 over 18 seeds is below min_reward 0.90; *",
            "  stored: 0.33 -> 0.67 on 18 eval seeds, in __snapshots__/test_it/test_it.prompt",
        ]
    )
    assert load_stored_prompt(file(tunable)).record.reward == pytest.approx(2 / 3, abs=1e-4)


def test_body_sees_the_best_prompt_and_its_result(tunable: pytest.Pytester) -> None:
    body = (
        "test_it(synth_prompt, synth_result):\n"
        "    assert 'reimburse' in synth_prompt.system\n"
        "    assert {row.prompt_fingerprint for row in synth_result.rows} == {synth_prompt.fingerprint}\n"
        "    assert {row.prompt_source for row in synth_result.rows} == {'optimized'}"
    )
    tunable.makepyfile(test_it=TEST.replace("test_it(): ...", body))
    run(tunable, OPTIMIZE).assert_outcomes(passed=1)


def test_same_prompt_is_found_again(tunable: pytest.Pytester) -> None:
    run(tunable, OPTIMIZE, UPDATE, "--synth-concurrency", "1").assert_outcomes(passed=1)
    first = file(tunable).read_bytes()
    file(tunable).unlink()
    run(tunable, OPTIMIZE, UPDATE, "--synth-concurrency", "32").assert_outcomes(passed=1)
    assert file(tunable).read_bytes() == first


def test_workers_optimise_each_test_once(tunable: pytest.Pytester) -> None:
    tunable.makepyfile(test_it=TEST, test_two=TEST)
    result = run(tunable, OPTIMIZE, UPDATE, "-n", "2", "--synth-report", "report.json")
    result.assert_outcomes(passed=2)
    assert rollouts(tunable)[0] <= 2 * 60
    assert rollouts(tunable)[1] == 2 * 2 * 18
    for name in ("test_it", "test_two"):
        assert load_stored_prompt(tunable.path / "__snapshots__" / name / "test_it.prompt").record.reward == 1
        result.stdout.fnmatch_lines([f"{name}.py::test_it", "  held-out reward 0.33 -> 1.00 on 18 seeds, *"])
    report = json.loads((tunable.path / "report.json").read_text())
    assert [found["held_out_best"] for found in report["optimizations"]] == [1.0, 1.0]
    assert report["optimizations"][0]["decision"].startswith("stored: 0.33 -> 1.00 on 18 eval seeds, in ")


REFUSED = {
    "alone": (
        TEST.replace("@pytest.mark.synth_eval(seeds=range(18), split=\"test\", min_reward=0.9)\n", ""),
        "needs a synth_eval marker on the same test, on whose seeds the result is judged",
    ),
    "shared seeds": (
        TEST.replace('split="test"', 'split="train"'),
        "seeds and the seeds of synth_eval share seeds 0, 1, 2, 3, 4, ... of split 'train'; the result is *",
    ),
    "unknown argument": (TEST.replace("budget=", "bugdet="), "unknown argument 'bugdet'; allowed: seeds, *"),
    "no file": (
        TEST.replace(SEARCH, "config='a.toml'"),
        "cannot read '*a.toml': No such file or directory",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_mistake_is_told_at_collection(name: str, tunable: pytest.Pytester) -> None:
    module, words = REFUSED[name]
    tunable.makepyfile(test_it=module)
    result = run(tunable)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: synth_optimize on test_it.py::test_it: {words}"])


def test_mistake_under_xdist_is_told_once(tunable: pytest.Pytester) -> None:
    tunable.makepyfile(test_it=REFUSED["alone"][0])
    result = run(tunable, "-n", "2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    told = [line for line in result.outlines if "synth_optimize on test_it.py::test_it" in line]
    assert len(told) == 1


def test_budget_that_is_too_small_is_refused_before_the_first_rollout(tunable: pytest.Pytester) -> None:
    tunable.makepyfile(test_it=TEST.replace("budget=60", "budget=20"))
    result = run(tunable, OPTIMIZE)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "gate incomplete: the search was not started: *budget is 20; at least * are needed: 6 for the *",
            "  18 seeds 0-17: not run, as the search has failed",
        ]
    )
    assert rollouts(tunable) == (0, 0)


GEPA_TOML = """
[prompt_learning]
algorithm = "gepa"
task_app_url = "http://127.0.0.1:9"  # the run's own is used
env_config = {{ split = "train" }}
policy = {{ provider = "offline", model = "lexical" }}
[prompt_learning.initial_prompt]
messages = [{{ role = "system", pattern = {pattern} }}]
[prompt_learning.gepa]
evaluation = {{ seeds = {{ start = 0, end = 12 }}, validation_seeds = [12, 13, 14, 15, 16, 17] }}
rollout = {{ budget = {budget}, minibatch_size = 6 }}
archive = {{ pareto_set_size = 6 }}
"""


def test_wildcard_that_no_eval_could_fill_in_is_refused(tunable: pytest.Pytester) -> None:
    tunable.makepyfile(test_it=TEST.replace(SEARCH, "config='gepa.toml'"))
    path = tunable.path / "gepa.toml"
    wildcards = '[prompt_learning.initial_prompt.wildcards]\nshop = "OPTIONAL"\n'
    path.write_text(GEPA_TOML.format(pattern=json.dumps("Sort for {shop}."), budget=60) + wildcards)
    result = run(tunable)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            f"ERROR: synth_optimize on test_it.py::test_it: '{path}': "
            "prompt_learning.initial_prompt.wildcards.shop stands in the system message, where the test's "
            "evals cannot fill it in; write the text itself there"
        ]
    )


def test_search_can_be_read_from_a_file_of_the_published_schema(tunable: pytest.Pytester) -> None:
    tunable.makepyfile(test_it=TEST.replace(SEARCH, "config='gepa.toml'"))
    path = tunable.path / "gepa.toml"
    path.write_text(GEPA_TOML.format(pattern=json.dumps(START), budget=60))
    run(tunable, OPTIMIZE, UPDATE).assert_outcomes(passed=1)
    assert load_stored_prompt(file(tunable)).record.reward == 1
    path.write_text(GEPA_TOML.format(pattern=json.dumps(START), budget='"many"'))
    result = run(tunable, OPTIMIZE)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            f"gate incomplete: the search was not started: '{path}': prompt_learning.gepa.rollout.budget "
            "is 'many', not an integer",
        ]
    )


BODY = f"""
def test_it(synth_optimize, synth_snapshot):
    found = synth_optimize(
        range(12), validation_seeds=range(12, 18), split="train", prompt={START!r}, budget=60,
        minibatch_size=6, pareto_set_size=6,
    )
    assert found.improved
    assert found.held_out.after > found.held_out.before
    assert found.rollouts <= 60
    assert found.snapshot == synth_snapshot
"""


def test_body_can_search_without_the_flag_and_store_what_it_finds(tunable: pytest.Pytester) -> None:
    tunable.makepyfile(test_it=BODY)
    run(tunable, UPDATE).assert_outcomes(passed=1)
    stored = load_stored_prompt(file(tunable))
    assert (stored.record.n, stored.record.seeds, stored.record.reward) == (6, "train 12-17", 1.0)
    result = run(tunable)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        [
            "synth: optimising test_it.py::test_it[[]call 1[]]: 60 rollouts: *",
            "test_it.py::test_it[[]call 1[]]",
            "  held-out reward 0.* -> 1.00 on 6 seeds, *",
        ]
    )


def test_search_of_a_body_that_is_refused_fails_the_test(tunable: pytest.Pytester) -> None:
    tunable.makepyfile(test_it=BODY.replace("budget=60", "budget=3"))
    result = run(tunable)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*OptimizationFailed: the search was not started: *budget is 3; at least *"])


def test_wrong_argument_in_a_body_is_named(tunable: pytest.Pytester) -> None:
    tunable.makepyfile(test_it=BODY.replace("budget=60", "budget=0"))
    result = run(tunable)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*UsageError: synth_optimize in test_it.py::test_it: budget is 0; allowed: a whole number from 1"]
    )
