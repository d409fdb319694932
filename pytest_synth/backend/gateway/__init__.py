"""Where every model call of a run goes through: substitution, providers, record and replay, accounting."""

from __future__ import annotations

from pytest_synth.backend.gateway.budget import Budget
from pytest_synth.backend.gateway.cassette import CassetteError
from pytest_synth.backend.gateway.gateway import Gateway
from pytest_synth.backend.gateway.open_relays import Relay, RelayUse
from pytest_synth.backend.gateway.recorder import CassetteSummary, CassetteUse, RecordMode
from pytest_synth.backend.gateway.refusals import CallRefused, PolicyRefused
from pytest_synth.backend.gateway.rollouts import CallFailure, ModelCall, Rollout, RolloutSpec, RolloutUse
from pytest_synth.backend.gateway.upstream import Patience

__all__ = [
    "Budget",
    "CallFailure",
    "CallRefused",
    "CassetteError",
    "CassetteSummary",
    "CassetteUse",
    "Gateway",
    "ModelCall",
    "Patience",
    "PolicyRefused",
    "RecordMode",
    "Relay",
    "RelayUse",
    "Rollout",
    "RolloutSpec",
    "RolloutUse",
]
