"""The store's own rules: transactions, migrations, what JSON keeps."""

from __future__ import annotations

import contextlib
import math
import sqlite3
from pathlib import Path

import pytest

from pytest_synth.backend.store import RolloutPlace, RootSecret, Store, database
from pytest_synth.backend.store.encoding import decode, encode
from pytest_synth.backend.store.events import timestamp
from pytest_synth.contracts.jobs import JobStatus


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "b.sqlite"


def test_a_transaction_writes_all_or_nothing(path: Path) -> None:
    with Store(path, RootSecret.random()) as store:
        with contextlib.suppress(RuntimeError), store.database.transaction():
            store.jobs.add(job_id="eval-1", tenant="me", kind="eval", body={})
            with store.database.transaction():  # joins the outer one
                store.events.add(1, "x", {})
            raise RuntimeError
        assert store.jobs.find("me", "eval-1") is None
        store.jobs.add(job_id="eval-2", tenant="me", kind="eval", body={})
        assert store.jobs.find("me", "eval-2") is not None


def test_a_new_change_is_applied_to_an_old_database_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = RootSecret.random()
    with Store(path, root) as store:
        store.jobs.add(job_id="eval-1", tenant="me", kind="eval", body={"a": 1})
    changes = (*database.MIGRATIONS, ("more", "ALTER TABLE jobs ADD COLUMN more TEXT DEFAULT 'new'"))
    monkeypatch.setattr(database, "MIGRATIONS", changes)
    for _ in range(2):
        with Store(path, root) as store:
            assert store.database.rows("SELECT id, more FROM jobs") == [("eval-1", "new")]


def test_a_change_that_fails_leaves_the_database_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = RootSecret.random()
    with Store(path, root):
        pass
    script = "ALTER TABLE jobs ADD COLUMN more TEXT; ALTER TABLE absent ADD COLUMN x TEXT"
    with monkeypatch.context() as patched:
        patched.setattr(database, "MIGRATIONS", (*database.MIGRATIONS, ("broken", script)))
        with pytest.raises(Exception, match="no such table: absent"):
            Store(path, root)
    with Store(path, root) as store, pytest.raises(sqlite3.OperationalError, match="no such column"):
        store.database.rows("SELECT more FROM jobs")


def test_progress_counts_what_has_ended_and_keeps_unknown_costs_unknown(path: Path) -> None:
    places = [RolloutPlace(place, place, 0) for place in range(4)]
    with Store(path, RootSecret.random()) as store:
        job = store.jobs.add(job_id="eval-1", tenant="me", kind="eval", body={}, rollouts=places)
        store.jobs.finish_place(job.number, 2, {"seed": 2}, reward=0.5, tokens=3, cost_usd=0.25)
        store.jobs.finish_place(job.number, 0, {"seed": 0}, reward=None, tokens=2, cost_usd=0.5)
        progress = store.jobs.progress(job.number)
        assert (progress.total, progress.completed, progress.rewards) == (4, 2, (0.5,))
        assert (progress.tokens, progress.cost_usd) == (5, 0.75)
        assert [place.seed for place in store.jobs.open_places(job.number)] == [1, 3]
        assert store.jobs.rows(job.number) == [{"seed": 0}, {"seed": 2}]
        store.jobs.finish_place(job.number, 3, {"seed": 3}, reward=1.0, tokens=0, cost_usd=None)
        assert store.jobs.progress(job.number).cost_usd is None


def test_a_job_is_unfinished_until_it_ends(path: Path) -> None:
    with Store(path, RootSecret.random()) as store:
        jobs = [store.jobs.add(job_id=f"eval-{n}", tenant="me", kind="eval", body={}) for n in range(3)]
        store.jobs.start(jobs[1].number)
        store.jobs.end(jobs[0].number, JobStatus.FAILED, "no \ud800 text")
        assert [job.id for job in store.jobs.unfinished()] == ["eval-1", "eval-2"]
        assert store.jobs.get(jobs[0].number).error == "no \ud800 text"


def test_json_is_ascii_and_holds_no_number_that_json_does_not_know() -> None:
    value = {"text": "naïve\u2028\ud800", "numbers": [1.5, math.nan, {"x": (math.inf, -math.inf)}]}
    text = encode(value)
    assert text.isascii()
    assert decode(text) == {"text": "naïve\u2028\ud800", "numbers": [1.5, None, {"x": [None, None]}]}


def test_times_are_utc_with_milliseconds() -> None:
    assert timestamp(1_700_000_000.1234) == "2023-11-14T22:13:20.123Z"


def test_a_root_secret_is_never_shown() -> None:
    root = RootSecret(bytes(range(32)))
    assert root.local_key not in repr(root)
    assert "\\x01" not in repr(root)
    assert root.local_key == RootSecret(bytes(range(32))).local_key != RootSecret.random().local_key


def test_a_database_without_a_path_has_no_file_that_a_crash_could_leave() -> None:
    with Store(None, RootSecret.random()) as store:
        store.jobs.add(job_id="eval-1", tenant="me", kind="eval", body={"text": "long " * 2_000_000})
        assert store.database.rows("PRAGMA database_list") == [(0, "main", "")]
        assert store.jobs.find("me", "eval-1") is not None
