"""Make a task app: the HTTP API through which a Synth backend runs your task and reads its reward.

`task_app` is the short way (rows, one function that calls the model, a score); `create_local_api` is the
full one, with the names of the published SDK. Running and testing an app is not in here.
"""

from __future__ import annotations

from pytest_synth.contracts.rollouts import RolloutMetrics, RolloutRequest, RolloutResponse, TaskInfo
from pytest_synth.localapi.app import create_local_api
from pytest_synth.localapi.config import LocalAPIConfig
from pytest_synth.localapi.inference import chat_completions_url
from pytest_synth.localapi.llm import LLM, AsyncLLM
from pytest_synth.localapi.replies import Reply, ToolCall
from pytest_synth.localapi.tasks import Score, task_app

__all__ = [
    "LocalAPIConfig",
    "create_local_api",
    "task_app",
    "RolloutMetrics",
    "RolloutRequest",
    "RolloutResponse",
    "TaskInfo",
    "AsyncLLM",
    "LLM",
    "Reply",
    "Score",
    "ToolCall",
    "chat_completions_url",
]
