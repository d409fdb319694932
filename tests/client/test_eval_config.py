from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_synth.client import EvalJob, EvalJobConfig
from pytest_synth.errors import ConfigError


def config(**changes: Any) -> EvalJobConfig:
    given = {"task_app_url": "http://app", "api_key": "sk-1", "seeds": [0, 1], **changes}
    return EvalJobConfig(**given)


def test_the_body_has_the_fields_of_the_wire() -> None:
    body = config(
        backend_url="http://b/api",
        task_app_api_key="env",
        app_id="a",
        env_name="banking77",
        policy_config={"model": "m", "provider": "p"},
        env_config={"split": "test"},
        concurrency=3,
        timeout=12.5,
        save_trace=True,
    ).to_wire()
    assert body == {
        "task_app_url": "http://app",
        "task_app_api_key": "env",
        "app_id": "a",
        "env_name": "banking77",
        "seeds": [0, 1],
        "policy": {"model": "m", "provider": "p"},
        "env_config": {"split": "test"},
        "verifier_config": None,
        "max_concurrent": 3,
        "timeout": 12.5,
        "save_trace": True,
    }


def test_extensions_are_sent_when_there_are_any() -> None:
    assert config(extensions={"samples": 2}).to_wire()["extensions"] == {"samples": 2}


def test_the_published_aliases_and_a_range_of_seeds_work() -> None:
    made = EvalJobConfig(local_api_url="http://app", local_api_key="env", api_key="k", seeds=range(3))
    body = made.to_wire()
    assert (body["task_app_url"], body["task_app_api_key"], body["seeds"]) == ("http://app", "env", [0, 1, 2])


def test_address_and_keys_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTH_API_KEY", "sk-env")
    monkeypatch.setenv("SYNTH_BACKEND_URL", "http://backend/api/")
    monkeypatch.setenv("ENVIRONMENT_API_KEY", "env-key")
    made = config(api_key="")
    assert (made.api_key, made.backend_url, made.task_app_api_key) == ("sk-env", "http://backend", "env-key")


def test_making_one_mints_writes_and_uploads_nothing(tmp_path: Path) -> None:
    # Any call would end in an error: the port is closed.
    assert config(backend_url="http://127.0.0.1:1").task_app_api_key is None
    assert list((tmp_path / "home").iterdir()) == []


def test_the_body_shares_nothing_with_the_callers_dicts() -> None:
    policy = {"model": "m", "nested": {"a": 1}}
    seeds = [1, 2]
    made = config(policy_config=policy, seeds=seeds)
    body = made.to_wire()
    body["policy"]["nested"]["a"] = 2
    body["seeds"].append(3)
    assert (policy, seeds, made.seeds) == ({"model": "m", "nested": {"a": 1}}, [1, 2], [1, 2])
    assert made.to_wire()["policy"] == policy


def test_no_key_is_shown() -> None:
    shown = repr(config(api_key="sk-1", local_api_key="env-2", policy_config={"api_key": "sk-3"}))
    assert not any(key in shown for key in ("sk-1", "env-2", "sk-3"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task_app_url": ""}, r"task_app_url \(or local_api_url\) is required"),
        ({"task_app_url": "localhost:8000"}, "task_app_url is 'localhost:8000'; it starts with http://"),
        ({"api_key": ""}, "api_key is required"),
        ({"seeds": []}, "seeds is empty"),
        ({"seeds": [1, "2"]}, "seeds holds '2', which is no integer"),
        ({"seeds": [True]}, "seeds holds True"),
        ({"concurrency": 0}, "concurrency is 0; it must be 1 or more"),
        ({"timeout": 0}, "timeout is 0; it must be more than 0 seconds"),
        ({"backend_url": "nowhere"}, "'nowhere', not a URL"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**changes)
    with pytest.raises(ValueError, match=message):  # as the published client
        config(**changes)


def write(folder: Path, text: str) -> Path:
    path = folder / "job.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_toml_file_makes_a_job(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        [eval]
        url = "http://app"
        env_name = "banking77"
        seeds = {start = 10, end = 14, step = 2}
        concurrency = 7
        timeout = 30
        policy_config = {model = "m", provider = "p"}
        [eval.env_config]
        split = "test"
        """,
    )
    made = EvalJob.from_config(path, backend_url="http://b", api_key="k", task_app_api_key="env").config
    assert made == EvalJobConfig(
        task_app_url="http://app",
        backend_url="http://b",
        api_key="k",
        task_app_api_key="env",
        env_name="banking77",
        seeds=[10, 12],
        concurrency=7,
        timeout=30,
        policy_config={"model": "m", "provider": "p"},
        env_config={"split": "test"},
    )


def test_arguments_stand_above_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, '[eval]\ntask_app_url = "http://app"\nseeds = [1]\n')
    made = EvalJob.from_config(path, api_key="k", task_app_url="http://other", seeds=[7]).config
    assert made is not None
    assert (made.task_app_url, made.seeds) == ("http://other", [7])


def test_a_file_of_a_prompt_learning_job_evaluates_its_training_seeds(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        [prompt_learning]
        task_app_url = "http://app"
        task_app_id = "banking77"
        [prompt_learning.policy]
        model = "m"
        [prompt_learning.gepa]
        env_name = "e"
        [prompt_learning.gepa.evaluation]
        seeds = [3, 4]
        """,
    )
    made = EvalJob.from_config(path, api_key="k").config
    assert made is not None
    assert (made.app_id, made.env_name, made.seeds, made.policy_config) == (
        "banking77",
        "e",
        [3, 4],
        {"model": "m"},
    )


def test_unknown_keys_of_a_file_are_named(tmp_path: Path) -> None:
    path = write(tmp_path, '[eval]\nurl = "http://app"\nseeds = [1]\nsedes = [2]\n')
    with pytest.warns(UserWarning, match=r"unknown keys in \[eval\] are ignored: sedes"):
        EvalJob.from_config(path, api_key="k")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[other]\n", r"has no section \[eval\]"),
        ("not toml", "is not a TOML file"),
        ('[eval]\nurl = "http://app"\n', "seeds is empty"),
        ('[eval]\nurl = "http://app"\nseeds = "1-5"\n', "is '1-5', neither a list nor a table"),
        ('[eval]\nurl = "http://app"\nseeds = {start = 1}\n', r"a range is \{start, end, step\}"),
        ("[eval]\nseeds = [1]\n", "task_app_url .* is required"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EvalJob.from_config(write(tmp_path, text), api_key="k")


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read '.*none\.toml': No such file"):
        EvalJob.from_config(tmp_path / "none.toml", api_key="k")
