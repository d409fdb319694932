"""A job's secrets: taken out of its body before it is stored, and put back when it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_synth.backend.store import JobRecord, Store
from pytest_synth.backend.store.encoding import decode, encode

ENV_KEY = "ENVIRONMENT_API_KEY"


@dataclass(frozen=True)
class Credentials:
    """Finds the keys that a job needs.

    Attributes:
        local_tenant: The tenant of the machine's own user; it alone may fall back to the environment.
        environ: Of the backend's process.
    """

    store: Store
    local_tenant: str
    environ: Mapping[str, str]

    def put(self, job_id: str, secrets: Mapping[str, str | None]) -> None:
        """Keep a job's own secrets."""
        given = {name: value for name, value in secrets.items() if value is not None}
        if given:
            self.store.secrets.put(f"job:{job_id}", encode(given))

    def get(self, job_id: str) -> dict[str, str]:
        """Return a job's own secrets; empty if it has none, or they were lost with a process."""
        text = self.store.secrets.get(f"job:{job_id}")
        return {} if text is None else decode(text)

    def forget(self, job_id: str) -> None:
        """Drop the secrets of a job that has ended."""
        self.store.secrets.drop(f"job:{job_id}")

    def task_app_keys(self, job: JobRecord, secrets: Mapping[str, str]) -> tuple[str, ...]:
        """Return the environment keys for a job's task app, newest first.

        The one sent with the job alone, else those that the tenant has uploaded, else, for the local
        key, the one of the backend's environment.
        """
        own = secrets.get("task_app_api_key")
        if own is not None:
            return (own,)
        uploaded = self.store.env_keys.values(job.tenant)
        if uploaded:
            return uploaded
        fallback = self.environ.get(ENV_KEY) if job.tenant == self.local_tenant else None
        return (fallback,) if fallback else ()


def split_secrets(body: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str | None]]:
    """Divide a submitted eval body into what is stored as it is, and the secrets.

    The names of the secrets stay in the body (`secrets`), so that their loss is noticed.
    """
    kept = dict(body)
    secrets: dict[str, str | None] = {}
    key = kept.pop("task_app_api_key", None)
    if key is not None:
        secrets["task_app_api_key"] = key
    policy = dict(kept.get("policy", {}))
    own = policy.pop("api_key", None)
    if isinstance(own, str):
        secrets["policy_api_key"] = own
    kept["policy"] = policy
    kept["secrets"] = sorted(secrets)
    return kept, secrets
