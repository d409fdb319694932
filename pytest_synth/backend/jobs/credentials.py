"""A job's secrets: taken out of its body before it is stored, and put back when it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_synth.backend.store import JobRecord, Store
from pytest_synth.backend.store.encoding import decode, encode
from pytest_synth.errors import SynthError

ENV_KEY = "ENVIRONMENT_API_KEY"
TASK_APP_KEY = "task_app_api_key"
_KEY_NAMES = ("api_key", "apikey", "token", "secret", "password", "authorization")
"""How the names of fields end that hold keys."""


class LostSecret(SynthError):
    """A secret of a job ended with the process that held it; the message says what to do."""


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

    def put(self, job_id: str, secrets: Mapping[str, str]) -> None:
        """Keep a job's own secrets, by their paths in its body."""
        if secrets:
            self.store.secrets.put(f"job:{job_id}", encode(dict(secrets)))

    def get(self, job: JobRecord) -> dict[str, str]:
        """Return a job's own secrets, by their paths in its body.

        A task app's key that was lost with the process that had it is left out where another one will do.

        Raises:
            LostSecret: If one was lost, and no other one will do.
        """
        text = self.store.secrets.get(f"job:{job.id}")
        found: dict[str, str] = {} if text is None else decode(text)
        for path in job.body["secrets"]:
            is_app_key = path == TASK_APP_KEY
            if path not in found and not (is_app_key and self.task_app_keys(job, found)):
                raise LostSecret(
                    f"the job's {path} was kept in memory only and is lost; install PyNaCl"
                    " (pip install 'pytest-synth[hosted]') so that it is sealed beside the database"
                    + (f", or set {ENV_KEY} for the backend" if is_app_key else "")
                )
        return found

    def forget(self, job_id: str) -> None:
        """Drop the secrets of a job that has ended."""
        self.store.secrets.drop(f"job:{job_id}")

    def task_app_keys(self, job: JobRecord, secrets: Mapping[str, str]) -> tuple[str, ...]:
        """Return the environment keys for a job's task app, newest first.

        The one sent with the job alone, else those that the tenant has uploaded, else, for the local
        key, the one of the backend's environment.
        """
        own = secrets.get(TASK_APP_KEY)
        if own is not None:
            return (own,)
        uploaded = self.store.env_keys.values(job.tenant)
        if uploaded:
            return uploaded
        fallback = self.environ.get(ENV_KEY) if job.tenant == self.local_tenant else None
        return (fallback,) if fallback else ()


def key_paths(body: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Name the texts that are keys by their fields' names, at any depth of objects, by dotted path."""
    for name, value in body.items():
        if "." in name:
            continue
        if isinstance(value, Mapping):
            yield from key_paths(value, f"{path}{name}.")
        elif isinstance(value, str) and name.lower().endswith(_KEY_NAMES):
            yield f"{path}{name}"


def take_keys(body: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Divide a submitted body into what is stored as it is, and the keys in it: the task app's, and those
    of the `policy`, which belongs to the user.
    """
    policy = body.get("policy")
    paths = key_paths(policy, "policy.") if isinstance(policy, Mapping) else ()
    return take_secrets(body, [TASK_APP_KEY, *paths])


def take_secrets(body: Mapping[str, Any], paths: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Divide a submitted body into what is stored as it is, and its secrets by dotted path."""
    kept, secrets = dict(body), {}
    for path in paths:
        name, _, rest = path.partition(".")
        inner = kept.get(name)
        if rest and isinstance(inner, Mapping):
            kept[name], found = take_secrets(inner, [rest])
            secrets.update({f"{name}.{inner_path}": value for inner_path, value in found.items()})
        elif not rest and isinstance(inner, str):
            secrets[path] = kept.pop(name)
    return kept, secrets


def put_back(body: Mapping[str, Any], secrets: Mapping[str, str]) -> dict[str, Any]:
    """Put secrets where `take_secrets` found them."""
    whole = dict(body)
    for path, value in secrets.items():
        name, _, rest = path.partition(".")
        whole[name] = put_back(whole[name], {rest: value}) if rest else value
    return whole
