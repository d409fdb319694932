from __future__ import annotations

import inspect

import pytest

import pytest_synth
from pytest_synth import client

# Names and the arguments of the published client (synth-ai 0.7.0); ours may take more.
PUBLISHED = {
    "EvalJobConfig": "task_app_url api_key backend_url task_app_api_key app_id env_name seeds policy_config "
    "env_config verifier_config concurrency timeout save_trace local_api_url local_api_key",
    "EvalJob": "config job_id",
    "EvalJob.from_config": "config_path backend_url api_key task_app_api_key task_app_url seeds",
    "EvalJob.from_job_id": "job_id backend_url api_key",
    "EvalJob.poll_until_complete": "self timeout interval progress on_status",
    "EvalJob.stream_until_complete": "self timeout interval on_event",
    "EvalJob.cancel": "self reason",
    "EvalJob.download_traces": "self output_dir",
    "PromptLearningJob": "config job_id skip_health_check",
    "PromptLearningJob.from_config": "config_path backend_url api_key task_app_api_key allow_experimental "
    "overrides",
    "PromptLearningJob.from_dict": "config_dict backend_url api_key task_app_api_key allow_experimental "
    "overrides skip_health_check",
    "PromptLearningJob.from_job_id": "job_id backend_url api_key",
    "PromptLearningJob.poll_until_complete": "self timeout interval progress on_status request_timeout",
    "PromptLearningJob.stream_until_complete": "self timeout interval on_event",
    "PromptLearningJob.get_best_prompt_text": "self rank",
    "PromptLearningClient": "base_url api_key timeout",
    "PromptLearningClient.get_events": "self job_id since_seq limit",
    "PromptLearningClient.get_prompt_text": "self job_id rank",
    "mint_demo_api_key": "backend_url ttl_hours timeout",
    "mint_environment_api_key": "",
    "setup_environment_api_key": "backend_base synth_api_key token timeout",
}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_arguments_have_the_published_names_and_order(name: str) -> None:
    owner, _, method = name.partition(".")
    value = getattr(pytest_synth, owner)
    value = getattr(value, method) if method else value
    expected = PUBLISHED[name].split()
    assert list(inspect.signature(value).parameters)[: len(expected)] == expected


@pytest.mark.parametrize("name", client.__all__)
def test_the_clients_names_can_be_had(name: str) -> None:
    value = getattr(client, name)
    assert value.__name__ == name
    assert getattr(pytest_synth, name, value) is value


def test_a_name_that_is_none_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"'pytest_synth\.client' has no attribute 'Nothing'"):
        _ = client.Nothing  # type: ignore[attr-defined]
