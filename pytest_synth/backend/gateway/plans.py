"""What a call's body becomes: whose call it is, which model answers it, and with which system message."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pytest_synth.backend.gateway import chat, messages, responses
from pytest_synth.backend.gateway.dialect import Dialect
from pytest_synth.backend.gateway.providers import CHAT, OFFLINE, Provider, Target, resolve, with_maker
from pytest_synth.backend.gateway.refusals import CallRefused, PolicyRefused
from pytest_synth.backend.gateway.rollouts import LiveRollout, shorten
from pytest_synth.backend.gateway.substitution import fit, substitute
from pytest_synth.contracts.texts import without_halves

DIALECTS: Final[Mapping[str, Dialect]] = {
    dialect.OPERATION: dialect for dialect in (chat, responses, messages)
}
# Settings of the policy that its own calls get where the task app sent none.
_FILLED: Final = ("temperature", "top_p")
_LIMITS: Final = ("max_completion_tokens", "max_tokens")


@dataclass(frozen=True)
class Plan:
    """A call that is ready to be answered.

    Attributes:
        body: With the prompt under test and the policy's settings; without what only one provider needs.
        is_policy: The policy's own call, not a judge's.
        wants_usage: The caller of a stream asked for its usage.
        headers: Of the caller's, those that its provider may need.
    """

    operation: str
    target: Target
    model: str
    body: dict[str, Any]
    is_policy: bool
    streams: bool
    wants_usage: bool
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def dialect(self) -> Dialect:
        return DIALECTS[self.operation]

    @property
    def provider(self) -> Provider:
        return self.target.provider


def parse(raw: bytes) -> dict[str, Any]:
    """Read a call's body.

    Raises:
        CallRefused: If it is no JSON object.
    """
    try:
        body = json.loads(raw)
        if b"\\ud" in raw or b"\\uD" in raw:
            body = without_halves(body)
    except ValueError as error:
        raise CallRefused(400, f"the body is not JSON: {error}") from error
    except RecursionError as error:
        raise CallRefused(400, "the body is not JSON: it is nested too deep") from error
    if not isinstance(body, dict):
        raise CallRefused(400, f"the body is {type(body).__name__}, not an object")
    return body


def plan_call(
    operation: str,
    body: dict[str, Any],
    headers: Mapping[str, str],
    live: LiveRollout | None,
    providers: Mapping[str, Provider],
) -> Plan:
    """Decide everything about a call that needs no network.

    Args:
        live: The call's rollout, which notes what it was; None for a call outside of one, whose body
            names provider and model.

    Raises:
        CallRefused: If the body is no call, names no model, or the provider does not speak this API.
    """
    dialect = DIALECTS[operation]
    problem = dialect.refuse_body(body)
    if problem is not None:
        raise CallRefused(400, problem)
    if live is None or live.relay is None:  # a field of the published client, for its own backend
        body = {name: value for name, value in body.items() if name != "thinking_budget"}
    is_policy = True
    if live is None:
        target = _target_of(body, providers)
    else:
        target = live.target
        body, is_policy = _under_test(dialect, body, live)
    if operation not in target.provider.operations:
        spoken = " and ".join(f"/{name}" for name in sorted(target.provider.operations))
        raise CallRefused(
            400, f"provider {target.provider.name!r} does not speak /{operation}; it speaks {spoken}"
        )
    body["model"] = model = _model(body, target, is_policy=is_policy)
    options = body.get("stream_options")
    return Plan(
        operation=operation,
        target=target,
        model=model,
        body=body,
        is_policy=is_policy,
        streams=bool(body.get("stream")),
        wants_usage=isinstance(options, dict) and bool(options.get("include_usage")),
        headers=headers,
    )


def _target_of(body: Mapping[str, Any], providers: Mapping[str, Provider]) -> Target:
    model = body.get("model")
    if not model:
        raise CallRefused(400, "'model' is missing; write 'provider/model', such as 'offline/lexical'")
    try:
        return resolve({"model": with_maker(model) if isinstance(model, str) else model}, providers)
    except PolicyRefused as refused:
        raise CallRefused(400, str(refused).replace("policy.model", "model", 1)) from refused


def _under_test(dialect: Dialect, body: dict[str, Any], live: LiveRollout) -> tuple[dict[str, Any], bool]:
    """Put the prompt in, if the call is the policy's own; say whether it is."""
    system, baseline, prompt = dialect.system_text(body), live.spec.baseline, live.spec.prompt
    pattern = None if baseline is None else baseline.system
    fits = pattern is not None and system is not None and fit(pattern, system) is not None
    if not live.claim(system, fits=fits):
        return body, False
    live.own_system = pattern if fits else system
    live.system_ran = live.own_system
    if prompt is not None:
        done = substitute(dialect, body, prompt, baseline)
        body, live.reason = done.body, done.reason
        if done.reason is None and done.system != system:
            live.system_ran = done.system
    _fill(dialect, body, live.spec.policy)
    texts = [text for text in dialect.user_texts(body) if text is not None]
    live.query = shorten(texts[-1]) if texts else None
    return body, True


def _fill(dialect: Dialect, body: dict[str, Any], policy: Mapping[str, Any]) -> None:
    for name in _FILLED:
        if policy.get(name) is not None:
            body.setdefault(name, policy[name])
    if dialect.output_limit(body) is None:
        for name in _LIMITS:
            if policy.get(name) is not None:
                body[name if dialect.OPERATION == CHAT else dialect.LIMIT_FIELD] = policy[name]
                return


def _model(body: Mapping[str, Any], target: Target, *, is_policy: bool) -> str:
    """The policy's model for its own calls; a judge's call keeps the model that it names."""
    named = body.get("model")
    if target.model is not None and (is_policy or target.provider.name == OFFLINE):
        return target.model
    if isinstance(named, str) and named:
        return named.removeprefix(f"{target.provider.name}/")
    if target.model is not None:
        return target.model
    raise CallRefused(400, "neither the policy nor the call names a model")
