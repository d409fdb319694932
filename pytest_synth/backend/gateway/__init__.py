"""Where every model call of a run goes through: prompt substitution, providers, accounting."""

from __future__ import annotations

from pytest_synth.backend.gateway.gateway import Gateway
from pytest_synth.backend.gateway.refusals import PolicyRefused
from pytest_synth.backend.gateway.rollouts import ModelCall, Rollout, RolloutSpec, RolloutUse

__all__ = ["Gateway", "ModelCall", "PolicyRefused", "Rollout", "RolloutSpec", "RolloutUse"]
