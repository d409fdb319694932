"""What a task app is made of: the user's functions and a few settings."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request
from starlette.middleware import Middleware

from pytest_synth.contracts.rollouts import RolloutRequest, TaskInfo

Description = Mapping[str, Any]
DescribeTaskset = Callable[[], Description | Awaitable[Description]]
ProvideInstances = Callable[[Sequence[int]], Any]
"""Seeds to an iterable of `TaskInfo` (or mappings that fit), one for each seed, in the same order."""
Rollout = Callable[[RolloutRequest, Request], Any]
"""A rollout request and FastAPI's request to a `RolloutResponse`, or a mapping that fits."""
Hook = Callable[..., Any]


@dataclass
class LocalAPIConfig:
    """A task app as data; `create_local_api` makes the app of it.

    Every function may be `def` or `async def`. A `def` runs in a thread of its own, so it may block; an
    `async def` runs in the app's event loop and must not. Many rollouts run at once: what they share must
    be safe to share.

    Attributes:
        app_id: Short name of the task app; `/` and `/done` say it.
        name, description: For people.
        provide_taskset_description: Gives a mapping for `/task_info` without seeds. Put `splits` (names)
            and `sizes` (rows for each split) in: a seed out of range is then refused before it runs.
        provide_task_instances: Gets a list of seeds; gives (or yields) one `TaskInfo` for each, in order.
        rollout: Gets a `RolloutRequest` and FastAPI's `Request`; gives a `RolloutResponse` whose
            `trace_correlation_id` is the request's and whose `reward_info.outcome_reward` lies in [0, 1].
            Whatever it raises becomes the reason why this seed has no reward; an `HTTPException` keeps its
            status and detail.
        base_task_info: What `/info` says about the task; default: made of `app_id` and `name`.
        dataset_registry: For your own use; the app does not look at it.
        rubrics: What `/info` says under `rubrics`; left out if None.
        proxy: Not supported; a value other than None is refused.
        routers: Further FastAPI routers of the app; their routes are not behind the key.
        middleware: Further Starlette middleware of the app.
        app_state: Becomes attributes of `app.state`.
        require_api_key: False opens every route to everybody who can reach the app.
        ensure_localapi_auth: Accepted for compatibility; the key always comes from the environment, and
            none is ever minted, stored or uploaded by the app.
        expose_debug_env: Whether `/debug/env` exists; it says which keys are set, and nothing of them.
        cors_origins: Origins that browsers may call from, `["*"]` for all; None or empty: no CORS headers.
        startup_hooks, shutdown_hooks: Called with the app, or without argument, when it starts and stops.
    """

    app_id: str
    name: str
    description: str
    provide_taskset_description: DescribeTaskset
    provide_task_instances: ProvideInstances
    rollout: Rollout
    base_task_info: TaskInfo | None = None
    dataset_registry: Any = None
    rubrics: Any = None
    proxy: Any = None
    routers: Sequence[APIRouter] = ()
    middleware: Sequence[Middleware] = ()
    app_state: MutableMapping[str, Any] = field(default_factory=dict)
    require_api_key: bool = True
    ensure_localapi_auth: bool = True
    expose_debug_env: bool = True
    cors_origins: Sequence[str] | None = None
    startup_hooks: Sequence[Hook] = ()
    shutdown_hooks: Sequence[Hook] = ()
