"""Stored prompts: they run in place of others, are never lost, and never hide an edit of the code's."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_synth.prompt_files import PromptRecord
from pytest_synth.prompts import Prompt, StoredPrompt
from pytest_synth.report.json import from_json

# The model answers "blue" for water only; with `GOOD` for both.
OWN = "Labels:\n- red: fire\n- blue: water"
GOOD = "Labels:\n- blue: fire, water\n- red: x\n"

APP = f"""
import pathlib
from pytest_synth import task_app

SYSTEM = {OWN!r}

async def run(row, llm):
    with pathlib.Path("rollouts.txt").open("a") as file:
        file.write(row + "\\n")
    reply = await llm.chat([{{"role": "system", "content": SYSTEM}}, {{"role": "user", "content": row}}])
    return reply.text

app = task_app(rows={{"test": ["fire", "water"]}}, run=run, score=lambda row, answer: answer == "blue")
"""

TEST = """
import pytest

@pytest.mark.synth_eval(seeds=[0, 1], min_reward=1)
def test_it(): ...
"""

PLAIN = ("-p", "no:randomly", "-p", "no:cacheprovider")
UPDATE = "--snapshot-update"


@pytest.fixture
def painted(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT"):
        monkeypatch.delenv(name, raising=False)  # syrupy takes a run in a worker's process for the worker's
    project.makepyfile(my_app=APP, test_it=TEST)
    monkeypatch.chdir(project.path)
    return project


def store(
    project: pytest.Pytester, name: str = "test_it", *, text: str = GOOD, origin: str | None = OWN
) -> Path:
    """Store a prompt for a test of `test_it.py`; `origin` is the prompt that it was optimised from."""
    file = project.path / "__snapshots__" / "test_it" / f"{name}.prompt"
    file.parent.mkdir(parents=True, exist_ok=True)
    fingerprint = None if origin is None else Prompt.parse(origin).fingerprint
    record = PromptRecord(reward=1.0, baseline_fingerprint=fingerprint)
    file.write_bytes(StoredPrompt(Prompt.parse(text), record).to_text().encode())
    return file


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return project.runpytest(*PLAIN, *arguments)


def rollouts(project: pytest.Pytester) -> int:
    file = project.path / "rollouts.txt"
    return len(file.read_text().splitlines()) if file.exists() else 0


def test_stored_prompt_runs_and_is_named(painted: pytest.Pytester) -> None:
    run(painted).assert_outcomes(failed=1)
    store(painted)
    painted.makepyfile(
        test_it=f"""
        import pytest
        from pytest_synth import Prompt

        @pytest.mark.synth_eval(seeds=[0, 1], min_reward=1)
        def test_it(synth_result, synth_prompt):
            assert synth_prompt == Prompt.parse({GOOD!r})
            assert {{row.prompt_source for row in synth_result.rows}} == {{"snapshot"}}
            assert {{row.prompt_fingerprint for row in synth_result.rows}} == {{synth_prompt.fingerprint}}
        """
    )
    run(painted).assert_outcomes(passed=1)


def test_report_shows_what_the_stored_prompt_has_changed_of_the_markers(painted: pytest.Pytester) -> None:
    store(painted)
    painted.makepyfile(test_it=TEST.replace("min_reward=1", f"min_reward=1, prompt={OWN!r}"))
    run(painted, "--synth-report", "r.json", "--synth-report", "r.html").assert_outcomes(passed=1)
    (entry,) = from_json((painted.path / "r.json").read_text(encoding="utf-8")).evals
    assert entry.prompt is not None
    assert entry.code_prompt is not None
    assert (entry.prompt[0].pattern, entry.code_prompt[0].pattern) == (GOOD, OWN)
    page = (painted.path / "r.html").read_text(encoding="utf-8")
    assert "Stored snapshot against the code&#x27;s prompt" in page
    assert "<del>only in the code</del> <ins>only in the prompt under test</ins>" in page


def test_failing_stored_prompt_is_named_in_the_failure(painted: pytest.Pytester) -> None:
    store(painted, text=OWN)
    result = run(painted)
    result.assert_outcomes(failed=1)
    fingerprint = Prompt.parse(OWN).fingerprint
    result.stdout.fnmatch_lines([f"prompt: the stored snapshot's, fingerprint {fingerprint}; model: *"])


def test_stored_prompt_comes_before_the_markers(painted: pytest.Pytester) -> None:
    painted.makepyfile(test_it=TEST.replace("min_reward=1", f"min_reward=1, prompt={OWN!r}"))
    run(painted).assert_outcomes(failed=1)
    store(painted)
    run(painted).assert_outcomes(passed=1)


def test_synth_prompt_is_the_markers_where_none_is_stored(painted: pytest.Pytester) -> None:
    painted.makepyfile(
        test_it="""
        import pytest

        @pytest.mark.synth_eval(seeds=[0], min_reward=0, prompt="Labels: red, blue")
        def test_it(synth_prompt):
            assert synth_prompt.system == "Labels: red, blue"

        @pytest.mark.synth_eval(seeds=[0], min_reward=0)
        def test_own(synth_prompt): ...
        """
    )
    result = run(painted)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*UsageError: synth_prompt in test_it.py::test_own: the test has no stored prompt, and its "
            "marker names none; the task app's own is known to the app alone"
        ]
    )


def test_damaged_stored_prompt_is_told_before_anything_runs(painted: pytest.Pytester) -> None:
    file = store(painted)
    file.write_text(file.read_text().replace("- red: x", "<<<<<<< HEAD"))
    result = run(painted)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [f"ERROR: synth_eval on test_it.py::test_it: the stored prompt '{file}' cannot be read: line 9 is *"]
    )
    assert rollouts(painted) == 0


def test_changed_prompt_of_the_marker_makes_the_stored_one_stale_and_spends_nothing(
    painted: pytest.Pytester,
) -> None:
    painted.makepyfile(test_it=TEST.replace("min_reward=1", "min_reward=0, prompt='Labels: edited'"))
    store(painted)
    result = run(painted)
    result.assert_outcomes(failed=1)
    then, now = Prompt.parse(OWN).fingerprint, Prompt.parse("Labels: edited").fingerprint
    result.stdout.fnmatch_lines(
        [
            "gate incomplete: stored prompt is stale: the code's prompt has changed since it was optimised "
            f"(fingerprint {then} then, {now} now); optimise it again with --synth-optimize "
            "--snapshot-update, or delete test_it.prompt",
        ]
    )
    assert rollouts(painted) == 0


def test_changed_prompt_of_the_app_makes_the_stored_one_stale(painted: pytest.Pytester) -> None:
    store(painted)
    run(painted).assert_outcomes(passed=1)
    painted.makepyfile(my_app=APP.replace("- red: fire", "- red: fire, and much else"))
    result = run(painted)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["gate incomplete: stored prompt is stale: the code's prompt has changed*"])
    result.stdout.fnmatch_lines(["test_it.py::test_it *incomplete"])


def test_stale_prompt_fails_a_test_without_criteria_too(painted: pytest.Pytester) -> None:
    body = TEST.replace(", min_reward=1", "").replace("test_it()", "test_it(synth_result)")
    painted.makepyfile(test_it=body)
    store(painted, origin="Labels: before the edit")
    result = run(painted)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["gate incomplete: stored prompt is stale*"])


def test_app_that_ships_the_stored_prompt_is_not_stale(painted: pytest.Pytester) -> None:
    store(painted, origin="what it was optimised from")
    painted.makepyfile(my_app=APP.replace(repr(OWN), repr(GOOD)))
    run(painted).assert_outcomes(passed=1)


def test_app_whose_prompt_differs_from_row_to_row_has_none_to_compare(painted: pytest.Pytester) -> None:
    store(painted, origin="what it was optimised from")
    painted.makepyfile(my_app=APP.replace('"content": SYSTEM', '"content": SYSTEM + row'))
    run(painted).assert_outcomes(passed=1)


def test_stored_prompt_without_an_origin_is_never_stale(painted: pytest.Pytester) -> None:
    store(painted, origin=None)
    run(painted).assert_outcomes(passed=1)


SNAPSHOT_TEST = """
import pytest
from pytest_synth import Prompt

@pytest.mark.parametrize("text", {texts!r})
def test_it(text, synth_snapshot):
    assert Prompt.parse(text) == synth_snapshot
"""


def test_snapshot_is_written_on_demand_and_compared_afterwards(painted: pytest.Pytester) -> None:
    painted.makepyfile(test_it=SNAPSHOT_TEST.format(texts=["a\r\nb\n"]))
    run(painted).assert_outcomes(failed=1)
    run(painted, UPDATE).assert_outcomes(passed=1)
    (file,) = (painted.path / "__snapshots__" / "test_it").iterdir()
    before = file.read_bytes()
    assert before.endswith(b"=== system ===\na\r\nb\n\n=== end ===\n")
    run(painted).assert_outcomes(passed=1)
    assert file.read_bytes() == before


def test_messages_alone_are_compared_and_shown(painted: pytest.Pytester) -> None:
    file = store(painted)
    painted.makepyfile(
        test_it=f"""
        from pytest_synth import Prompt

        def test_it(synth_snapshot):
            assert Prompt.parse({GOOD!r}) == synth_snapshot
        """
    )
    before = file.read_bytes()
    assert b"reward: 1.0" in before
    run(painted, UPDATE).assert_outcomes(passed=1)
    assert file.read_bytes() == before
    file.write_bytes(before.replace(b"- red: x", b"- red: y"))
    result = run(painted)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E   *- - red: y", "E   *+ - red: x"])
    assert not [line for line in result.outlines if line.startswith("E") and "reward" in line]


def test_damaged_snapshot_is_not_overwritten(painted: pytest.Pytester) -> None:
    file = store(painted)
    file.write_text("<<<<<<< HEAD\n")
    painted.makepyfile(test_it="def test_it(synth_snapshot):\n    assert 'a' == synth_snapshot")
    result = run(painted, UPDATE)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*line 1 is '<<<<<<< HEAD', not the beginning of a stored prompt*"])
    assert file.read_text() == "<<<<<<< HEAD\n"


def test_every_parameter_and_class_has_a_file_of_its_own(painted: pytest.Pytester) -> None:
    texts = ["x/y", "xy", "x\\y", "a::b", "a.b", "ü", "long " * 60, "long " * 61]
    painted.makepyfile(
        test_it=SNAPSHOT_TEST.format(texts=texts)
        + "\nclass TestA:\n    class TestB:\n        def test_it(self, synth_snapshot):\n"
        "            assert 'nested' == synth_snapshot\n"
        "\ndef test_more(synth_snapshot):\n    assert 'one' == synth_snapshot\n"
        "    assert 'two' == synth_snapshot\n    assert 'three' == synth_snapshot(name='a/b')\n"
    )
    run(painted, UPDATE).assert_outcomes(passed=len(texts) + 2)
    run(painted).assert_outcomes(passed=len(texts) + 2)
    files = list((painted.path / "__snapshots__" / "test_it").iterdir())
    stored = sorted(StoredPrompt.from_text(f.read_bytes().decode()).prompt.system or "" for f in files)
    assert stored == sorted([*texts, "nested", "one", "two", "three"])
    names = {file.name for file in files}
    assert {"test_it[xy].prompt", "TestA.TestB.test_it.prompt", "test_more.1.prompt"} <= names


# A snapshot of syrupy's own that no test asserts any more; where it goes, its cleaning was at work.
CLEANED, KEPT = True, False
SCENARIOS = {
    "failing test": (TEST.replace("test_it(): ...", "test_it():\n    assert False"), (), CLEANED),
    "failing gate": (TEST.replace("min_reward=1", "min_reward=1, split='nowhere'"), (), CLEANED),
    "failing fixture": (TEST.replace("test_it()", "test_it(nothing)"), (), CLEANED),
    "failing assertion": (
        TEST.replace("test_it(): ...", "test_it(synth_snapshot):\n    assert 1 == synth_snapshot"),
        (),
        CLEANED,
    ),
    "skipped test": (TEST.replace("@pytest", "@pytest.mark.skip\n@pytest"), (), CLEANED),
    "renamed parameter": (
        TEST.replace("test_it()", "test_it(p)").replace(
            "@pytest", "@pytest.mark.parametrize('p', ['new'])\n@pytest"
        ),
        (),
        CLEANED,
    ),
    "renamed test": (TEST.replace("test_it()", "test_other()"), (), CLEANED),
    "no eval any more": ("def test_it(): ...", (), CLEANED),
    "service down": (TEST, ("--synth-backend", "http://127.0.0.1:9"), CLEANED),
    "workers": (TEST.replace("test_it()", "test_other()"), ("-n", "2"), CLEANED),
    "deselected test": (TEST, ("-k", "syrupy"), KEPT),
    "another file named": (TEST, ("test_two.py",), CLEANED),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_stored_prompt_is_never_lost(
    name: str, painted: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNTH_API_KEY", "key-of-nowhere")
    module, arguments, is_cleaned = SCENARIOS[name]
    syrupys = "\n\ndef test_of_syrupy(snapshot):\n    assert 1 == snapshot\n"
    painted.makepyfile(test_it=module + syrupys, test_two=syrupys)
    files = [store(painted), store(painted, "test_it[old]")]
    before = files[0].read_bytes()
    stale = painted.path / "__snapshots__" / "test_two.ambr"
    stale.write_text("# serializer version: 1\n# name: test_gone\n  1\n# ---\n")
    result = run(painted, UPDATE, *arguments)
    assert ("1 unused snapshot deleted" in result.stdout.str()) == is_cleaned
    assert [file.read_bytes() for file in files] == [before, before]


def test_unused_stored_prompts_are_listed_and_fail_nothing(painted: pytest.Pytester) -> None:
    store(painted)
    store(painted, "test_gone")
    store(painted, "test_it.1")
    folder = painted.path / "__snapshots__" / "test_deleted"
    folder.mkdir()
    store(painted, "test_x").replace(folder / "test_x.prompt")
    result = run(painted)
    result.assert_outcomes(passed=1)
    assert result.ret == 0
    assert [line for line in result.outlines if line.startswith("warning:")] == [
        f"warning: the stored prompt __snapshots__/{name}.prompt belongs to no test; "
        "it is kept until you delete it"
        for name in ("test_deleted/test_x", "test_it/test_gone")
    ]


@pytest.mark.parametrize(
    "arguments", [("test_it.py::test_it",), ("-k", "test_it and not other"), ("-n", "1")]
)
def test_prompts_of_tests_that_did_not_run_are_not_unused(
    painted: pytest.Pytester, arguments: tuple[str, ...]
) -> None:
    painted.makepyfile(test_it=TEST + "\n\n@pytest.mark.skip\ndef test_other(): ...")
    store(painted)
    store(painted, "test_other")
    result = run(painted, *arguments)
    assert result.parseoutcomes()["passed"] == 1
    assert "warning:" not in result.stdout.str()


def test_unused_prompts_are_listed_once_with_workers(painted: pytest.Pytester) -> None:
    store(painted)
    store(painted, "test_gone")
    result = run(painted, "-n", "2")
    result.assert_outcomes(passed=1)
    assert result.stdout.str().count("test_gone.prompt belongs to no test") == 1


def test_stored_prompts_need_no_syrupy(painted: pytest.Pytester) -> None:
    store(painted)
    run(painted, "-p", "no:syrupy").assert_outcomes(passed=1)
