"""Values of eval jobs: what is asked for (`EvalJobConfig`) and what comes back (`EvalResult`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Self

from pydantic import ValidationError

from pytest_synth.client import credentials
from pytest_synth.client.flows import Json
from pytest_synth.client.polling import status_of
from pytest_synth.contracts.evals import EvalRow
from pytest_synth.contracts.jobs import JobStatus
from pytest_synth.errors import ConfigError, UnexpectedAnswer


@dataclass
class EvalJobConfig:
    """What an eval job is asked to do. Nothing is uploaded or minted by making one.

    Attributes:
        task_app_url: http(s) URL of the task app; `local_api_url` is another name for it.
        api_key, backend_url: Default: SYNTH_API_KEY and SYNTH_BACKEND_URL.
        task_app_api_key: Key that the task app expects; `local_api_key` is another name for it. Default:
            ENVIRONMENT_API_KEY, DEV_ENVIRONMENT_API_KEY, ENVIRONMENT_API_KEY_ALIASES; with none of them
            the backend uses the one that was uploaded.
        seeds: Rows of the split that `env_config["split"]` names.
        policy_config: `model`, `provider` and whatever else the task app takes.
        concurrency: Rollouts in flight.
        timeout: Seconds for one rollout.
        save_trace: Keep full traces at the backend.
        extensions: What the embedded backend takes beyond the hosted service's API; None sends nothing.

    Raises:
        ConfigError: If something required is missing or a value makes no sense.
    """

    task_app_url: str = ""
    api_key: str = field(default="", repr=False)
    backend_url: str | None = ""
    task_app_api_key: str | None = field(default=None, repr=False)
    app_id: str | None = None
    env_name: str | None = None
    seeds: Sequence[int] = ()
    # Not shown, as task apps take keys in it.
    policy_config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    env_config: Mapping[str, Any] = field(default_factory=dict)
    verifier_config: Mapping[str, Any] | None = None
    concurrency: int = 5
    timeout: float = 600.0
    save_trace: bool = False
    local_api_url: str = field(default="", repr=False)
    local_api_key: str | None = field(default=None, repr=False)
    extensions: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        self.task_app_url = self.task_app_url or self.local_api_url
        if not self.task_app_url:
            raise ConfigError("task_app_url (or local_api_url) is required")
        if not self.task_app_url.startswith(("http://", "https://")):
            raise ConfigError(f"task_app_url is {self.task_app_url!r}; it starts with http:// or https://")
        self.seeds = list(self.seeds)
        if not self.seeds:
            raise ConfigError("seeds is empty; an eval needs at least one seed")
        for seed in self.seeds:
            if isinstance(seed, bool) or not isinstance(seed, int):
                raise ConfigError(f"seeds holds {seed!r}, which is no integer")
        if self.concurrency < 1:
            raise ConfigError(f"concurrency is {self.concurrency!r}; it must be 1 or more")
        if not self.timeout > 0:
            raise ConfigError(f"timeout is {self.timeout!r}; it must be more than 0 seconds")
        self.backend_url = credentials.backend_url(self.backend_url)
        self.api_key = credentials.synth_api_key(self.api_key)
        self.task_app_api_key = credentials.environment_api_key(self.task_app_api_key or self.local_api_key)

    def to_wire(self) -> Json:
        """Make the body of the submission; it shares nothing with this object."""
        body: Json = {
            "task_app_url": self.task_app_url,
            "task_app_api_key": self.task_app_api_key,
            "app_id": self.app_id,
            "env_name": self.env_name,
            "seeds": list(self.seeds),
            "policy": deepcopy(dict(self.policy_config)),
            "env_config": deepcopy(dict(self.env_config)),
            "verifier_config": None if self.verifier_config is None else deepcopy(dict(self.verifier_config)),
            "max_concurrent": self.concurrency,
            "timeout": self.timeout,
            "save_trace": self.save_trace,
        }
        if self.extensions is not None:
            body["extensions"] = deepcopy(dict(self.extensions))
        return body


@dataclass(frozen=True)
class EvalResult:
    """The state of an eval job and what it has brought. 0 and 0.0 are values; None means unknown.

    Attributes:
        mean_reward: As the backend says, over the seeds that have a reward; look at `rows` for those
            that have none.
        total_cost_usd: US dollars.
        num_completed, num_total: Rollouts.
        seed_results: The rows as they came.
        rows: The same rows, typed and checked; in a row `score` and `outcome_reward` are the same.
        raw: The whole document.
    """

    job_id: str
    status: JobStatus
    mean_reward: float | None = None
    total_tokens: int | None = None
    total_cost_usd: float | None = None
    num_completed: int = 0
    num_total: int = 0
    seed_results: list[Json] = field(default_factory=list)
    error: str | None = None
    raw: Json = field(default_factory=dict, repr=False)
    rows: tuple[EvalRow, ...] = field(default=(), repr=False)

    @classmethod
    def from_response(cls, job_id: str, data: Mapping[str, Any]) -> Self:
        """Read a status or a results document.

        Raises:
            UnexpectedAnswer: If the status is unknown, or a row is none; it names the row and the field.
        """
        results = data.get("results")
        summary = _object(data.get("summary"))
        nested = _object(results)
        items = results if isinstance(results, list) else nested.get("items")
        if items is not None and not isinstance(items, list):
            raise UnexpectedAnswer(f"results.items of job {job_id} is {items!r}, not a list")
        seed_results = [dict(row) if isinstance(row, Mapping) else row for row in items or []]
        rows = tuple(_row(job_id, index, row) for index, row in enumerate(seed_results))
        finished = [summary.get("num_successful"), summary.get("num_failed")]
        counts = [count for count in finished if isinstance(count, int)]
        counted = sum(counts) if len(counts) == len(finished) else len(rows)
        return cls(
            job_id=job_id,
            status=status_of(data, job_id),
            mean_reward=_number(job_id, "mean_reward", summary, data, nested),
            total_tokens=_number(job_id, "total_tokens", summary, data, nested),
            total_cost_usd=_number(job_id, "total_cost_usd", summary, data, nested),
            num_completed=_given(nested.get("completed"), counted),
            num_total=_given(nested.get("total"), _given(summary.get("num_seeds"), len(rows))),
            seed_results=seed_results,
            error=data.get("error"),
            raw=dict(data),
            rows=rows,
        )

    @property
    def succeeded(self) -> bool:
        """Whether the job ended well; single seeds may still have failed."""
        return self.status.is_success

    @property
    def failed(self) -> bool:
        return self.status is JobStatus.FAILED

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended, one way or another."""
        return self.status.is_terminal


def _row(job_id: str, index: int, value: object) -> EvalRow:
    if not isinstance(value, Mapping):
        raise UnexpectedAnswer(f"results[{index}] of job {job_id} is {value!r}, not an object")
    present = {name: field for name, field in value.items() if field is not None}
    reward = next((present[n] for n in ("outcome_reward", "score", "reward_mean") if n in present), None)
    if reward is not None:
        present |= {"score": reward, "outcome_reward": reward}
    try:
        return EvalRow.model_validate(present)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(str(step) for step in problem["loc"])
        raise UnexpectedAnswer(f"results[{index}].{place} of job {job_id}: {problem['msg']}") from error


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _number(job_id: str, name: str, *places: Mapping[str, Any]) -> Any:  # an int where JSON has one
    """Take the first value that is there; 0 is one, which `or` would skip."""
    value = next((place[name] for place in places if place.get(name) is not None), None)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise UnexpectedAnswer(f"{name} of job {job_id} is {value!r}, not a number")
    return value


def _given(value: Any, default: int) -> int:
    return value if isinstance(value, int) else default
