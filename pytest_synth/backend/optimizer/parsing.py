"""Reads the wire's `prompt_learning` section into a `GepaConfig`, or refuses it field by field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from pytest_synth.backend.optimizer.components import wildcards_of
from pytest_synth.backend.optimizer.config import (
    CHARS_PER_TOKEN,
    DEFAULT_MINIBATCH,
    MAX_FAILURES,
    GepaConfig,
    PipelineConfig,
    PipelineMode,
    ReflectionConfig,
    TaskConfig,
)
from pytest_synth.backend.optimizer.fields import Findings, GepaConfigError, Section, shown
from pytest_synth.backend.optimizer.seeds import SeedSets, read_seeds
from pytest_synth.contracts.evals import MAX_ROLLOUTS
from pytest_synth.contracts.rewards import asks_for_task_app_rewards
from pytest_synth.errors import ConfigError
from pytest_synth.prompts import Prompt

_URL_NAMES = ("task_app_url", "localapi_url", "local_api_url")
_SYSTEM_ROLES = ("system", "developer")
_PLACEHOLDERS = ("<curr_param>", "<side_info>")
_DEFAULT_ENV_NAME = "banking77"  # the published client fills it in wherever `gepa.env_name` is absent
_CLIENTS_MINIBATCH = 8  # the published client fills it in, however few seeds there are


def parse_gepa_config(
    section: Mapping[str, Any],
    *,
    path: str = "prompt_learning",
    replaced: Literal["system", "all"] = "system",
) -> GepaConfig:
    """Read the `prompt_learning` section of a job.

    Fields are those of the published client. Beside them: `gepa.reflection` (`provider`, `model`,
    `temperature`, `timeout_seconds`), `gepa.pipeline` (`mode`, `window`), `gepa.rollout.reuse_known`,
    `gepa.rollout.max_failures`, `gepa.max_time_seconds`.

    Args:
        section: The section as JSON or TOML gives it; not changed.
        path: Where it stands, for messages.
        replaced: Which messages the host can put in the place of the task app's own: the first system
            message, or any. Others are not rewritten, since no rollout would see it.

    Raises:
        GepaConfigError: If a field is missing, wrong, unknown, or asks for what this engine does not
            have; it names all such fields.
    """
    findings = Findings()
    root = Section(section, path, findings)
    root.text("algorithm", allowed=("gepa",))
    if not root.has("algorithm"):
        root.refuse("algorithm", "is missing; allowed: gepa")
    gepa = root.section("gepa")
    if not gepa.is_present:
        root.refuse("gepa", "is missing; it holds the settings of the search")
    task = _task(root, gepa)
    prompt, required = _prompt(root)
    rewritten = _rewritten(root, prompt, findings) if replaced == "system" else None
    seeds = read_seeds(root, gepa.section("evaluation"), gepa.section("archive"), task.split)
    config = _search(root, gepa, task, prompt, required, seeds, rewritten, findings)
    root.ignored("display", "results_folder", "use_byok")
    root.not_applied("auto_discover_patterns", False, reason="the messages are taken from initial_prompt")
    _verifier(root, findings)
    _refuse_unsupported(root, ("proxy_models", "mipro"))
    root.close()
    gepa.close()
    if findings.problems:
        raise GepaConfigError(findings.problems)
    return replace(config, not_applied=tuple(findings.not_applied))


def _task(root: Section, gepa: Section) -> TaskConfig:
    names = [name for name in _URL_NAMES if root.has(name)]
    urls = [root.text(name) for name in _URL_NAMES]
    url = next((url for url in urls if url is not None), "")
    if not names:
        root.refuse("task_app_url", "is missing; it is the URL of the task app")
    elif url and not url.startswith(("http://", "https://")):
        root.refuse(names[0], f"is {shown(url)}; it must start with http:// or https://")
    env_name, inner_name = root.text("env_name"), gepa.text("env_name")
    if env_name and inner_name not in (None, env_name, _DEFAULT_ENV_NAME):
        gepa.refuse("env_name", f"is {shown(inner_name)}, but {root.path}.env_name is {shown(env_name)}")
    env_config, inner_config = root.mapping("env_config"), gepa.mapping("env_config")
    if env_config and inner_config and env_config != inner_config:
        gepa.refuse("env_config", f"differs from {root.path}.env_config; give one of them")
    split = (env_config or inner_config).get("split")
    if split is not None and not isinstance(split, str):
        root.refuse("env_config.split", f"is {shown(split)}, not a text")
    return TaskConfig(
        app_url=url,
        app_id=root.text("task_app_id"),
        app_key=root.text("task_app_api_key"),
        env_name=env_name or inner_name,
        env_config=dict(env_config or inner_config),
        policy=_policy(root),
    )


def _policy(root: Section) -> Mapping[str, Any]:
    """What goes into each rollout's `policy.config`: all fields, and those of `policy.config` beside them."""
    policy = root.section("policy")
    if not policy.is_present:
        root.refuse("policy", "is missing; it names the model (policy.model, policy.provider)")
        return {}
    if policy.text("model") is None and not policy.has("model"):
        policy.refuse("model", "is missing")
    if policy.text("provider") is None and not policy.has("provider"):
        policy.refuse("provider", "is missing")
    policy.text("inference_mode", allowed=("synth_hosted",))
    policy.number("temperature", 0.0)
    policy.integer("max_completion_tokens", 1, at_least=1)
    for name in ("inference_url", "api_base", "base_url"):
        if policy.has(name):
            policy.refuse(name, "is given, but the backend supplies the URL of the model; leave it out")
    whole = dict(root.mapping("policy"))
    return {**policy.mapping("config"), **{name: whole[name] for name in whole if name != "config"}}


def _prompt(root: Section) -> tuple[Prompt | None, frozenset[str]]:
    section = root.section("initial_prompt")
    if not section.is_present:
        root.refuse("initial_prompt", "is missing; the search starts from its messages")
        return None, frozenset()
    section.ignored("id", "name")
    metadata = section.mapping("metadata")
    if metadata.get("pipeline_modules"):
        section.refuse("metadata.pipeline_modules", "names modules, but only one prompt can be searched")
    messages = section.get("messages")
    wildcards = section.mapping("wildcards")
    section.close()
    prompt: Prompt | None = None
    if not isinstance(messages, list) or not messages:
        section.refuse("messages", f"is {shown(messages)}, not a list with at least one message")
    elif any(isinstance(entry, Mapping) and "pattern" not in entry for entry in messages):
        section.refuse("messages", "has a message without 'pattern'")
    else:
        try:
            prompt = Prompt.parse(messages)
        except ConfigError as error:
            section.refuse("messages", f"cannot be read: {error}")
    return prompt, _required(section, prompt, wildcards)


def _has_wildcards(declared: Mapping[str, Any], prompt: Prompt | None) -> bool:
    """Whether braces stand for wildcards; a system message with other ones is text as it stands."""
    system = prompt.system if prompt is not None else None
    return bool(declared) and wildcards_of(system or "") <= set(declared)


def _rewritten(root: Section, prompt: Prompt | None, findings: Findings) -> tuple[int, ...]:
    """The place of the first system message; the other messages are noted as not rewritten."""
    path = f"{root.path}.initial_prompt.messages"
    messages = prompt.messages if prompt is not None else ()
    first = next((i for i, message in enumerate(messages) if message.role in _SYSTEM_ROLES), None)
    if prompt is not None and first is None:
        findings.problems.append(
            (path, "has no system message, but only that one can be put into the task app's model calls")
        )
    for place, message in enumerate(messages):
        if place != first:
            findings.not_applied.append(
                f"{path}[{place}] ({message.role}): it is not rewritten, only the first system message is"
            )
    return () if first is None else (first,)


def _required(section: Section, prompt: Prompt | None, wildcards: Mapping[str, Any]) -> frozenset[str]:
    """Holes that must stay: those that are not declared optional."""
    optional = set()
    holes = prompt.wildcards if prompt is not None else frozenset()
    for name, kind in wildcards.items():
        word = kind.upper() if isinstance(kind, str) else ""
        if word not in ("REQUIRED", "OPTIONAL"):
            section.refuse(f"wildcards.{name}", f"is {shown(kind)}; allowed: REQUIRED, OPTIONAL")
        elif word == "OPTIONAL":
            optional.add(name)
        elif prompt is not None and name not in holes:
            section.refuse(f"wildcards.{name}", f"is REQUIRED, but no message has {{{name}}}")
    return holes - optional


def _search(
    root: Section,
    gepa: Section,
    task: TaskConfig,
    prompt: Prompt | None,
    required: frozenset[str],
    seeds: SeedSets,
    rewritten: tuple[int, ...] | None,
    findings: Findings,
) -> GepaConfig:
    rollout, population = gepa.section("rollout"), gepa.section("population")
    budget = rollout.integer("budget", None, at_least=1, at_most=MAX_ROLLOUTS)
    generations = population.integer("num_generations", None, at_least=1)
    if budget is None and generations is None and not findings.problems:
        rollout.refuse("budget", f"is missing, and so is {population.path}.num_generations; give one of them")
    children = population.integer("children_per_generation", 3, at_least=1)
    spend, max_chars = _tokens(gepa)
    mutation = gepa.section("mutation")
    config = GepaConfig(
        task=task,
        prompt=prompt or Prompt(()),
        rewritten=rewritten,
        required_wildcards=required,
        has_wildcards=_has_wildcards(root.section("initial_prompt").mapping("wildcards"), prompt),
        train_seeds=seeds.train,
        validation_seeds=seeds.validation,
        validation_split=seeds.validation_split,
        validation_top_k=seeds.validation_top_k,
        pareto_set_size=seeds.pareto_set_size,
        archive_size=seeds.archive_size,
        budget=budget,
        max_concurrent=rollout.integer("max_concurrent", 20, at_least=1),
        minibatch_size=_minibatch(rollout, seeds, findings),
        initial_size=population.integer("initial_size", 1, at_least=1),
        children_per_generation=children,
        num_generations=generations,
        patience=population.integer("patience_generations", None, at_least=1),
        mutation_rate=_mutation_rate(mutation, rewritten, prompt, findings),
        max_prompt_chars=max_chars,
        max_spend_usd=spend,
        max_time_s=gepa.number("max_time_seconds", None, excludes_low=True),
        reuse_known=rollout.flag("reuse_known", default=not task.policy.get("temperature")),
        max_failures=rollout.integer("max_failures", MAX_FAILURES, at_least=1),
        rng_seed=gepa.integer("rng_seed", 0, at_least=0),
        pipeline=_pipeline(gepa, children),
        reflection=_reflection(gepa, mutation),
    )
    _verifier(gepa, findings)
    _not_had(gepa, population)
    for section in (rollout, population, mutation):
        section.close()
    return config


def _mutation_rate(
    mutation: Section, rewritten: tuple[int, ...] | None, prompt: Prompt | None, findings: Findings
) -> float:
    rate = mutation.number("rate", 0.3, high=1.0)
    messages = len(prompt.messages) if prompt is not None else 0
    if mutation.has("rate") and (messages if rewritten is None else len(rewritten)) == 1:
        findings.not_applied.append(
            f"{mutation.path}.rate = {rate:g}: only one message is rewritten, and each child rewrites one"
        )
    return rate


def _minibatch(rollout: Section, seeds: SeedSets, findings: Findings) -> int:
    feedback = len(seeds.train) - seeds.pareto_set_size
    size = rollout.integer("minibatch_size", min(DEFAULT_MINIBATCH, max(1, feedback)), at_least=1)
    if size == _CLIENTS_MINIBATCH and 1 <= feedback < size:
        findings.not_applied.append(
            f"{rollout.path}.minibatch_size = {size}: only {feedback} seeds are left for feedback, so"
            f" {feedback} are taken"
        )
        return feedback
    if seeds.train and feedback >= 1 and size > feedback:
        rollout.refuse(
            "minibatch_size",
            f"is {size}, but {len(seeds.train)} seeds less a Pareto set of {seeds.pareto_set_size} leave"
            f" {feedback} for feedback",
        )
    return size


def _tokens(gepa: Section) -> tuple[float | None, int | None]:
    """The cap on spending, and the longest message in characters."""
    token = gepa.section("token")
    limit = gepa.integer("proposed_prompt_max_tokens", 32_000, at_least=1)
    limit = min(limit, token.integer("max_limit", limit, at_least=1))
    is_enforced = token.flag("enforce_pattern_limit", default=True)
    token.not_applied(
        "counting_model", "gpt-4", reason=f"a token is taken as {CHARS_PER_TOKEN} characters here"
    )
    spend = token.number("max_spend_usd", None, excludes_low=True)
    token.close()
    return spend, limit * CHARS_PER_TOKEN if is_enforced else None


def _pipeline(gepa: Section, children: int) -> PipelineConfig:
    section = gepa.section("pipeline")
    mode = section.text("mode", allowed=("generations", "window"))
    window = section.integer("window", children, at_least=1)
    section.close()
    chosen: PipelineMode = "window" if mode == "window" else "generations"
    return PipelineConfig(chosen, window)


def _reflection(gepa: Section, mutation: Section) -> ReflectionConfig:
    section = gepa.section("reflection")
    template = mutation.text("prompt")
    missing = [mark for mark in _PLACEHOLDERS if template is not None and mark not in template]
    if missing:
        mutation.refuse(
            "prompt", f"lacks {' and '.join(missing)}: the place of the prompt and of the examples"
        )
    for name in ("llm_model", "llm_provider", "llm_inference_url"):
        if mutation.has(name):
            mutation.refuse(name, f"is given; name the model that proposes prompts in {section.path}")
        mutation.ignored(name)
    config = ReflectionConfig(
        provider=section.text("provider"),
        model=section.text("model"),
        temperature=section.number("temperature", 1.0),
        timeout_s=section.number("timeout_seconds", 120.0, excludes_low=True),
        template=template,
    )
    section.close()
    return config


def _not_had(gepa: Section, population: Section) -> None:
    """Fields of the published client that this engine has nothing for."""
    population.not_applied("crossover_rate", 0.5, 0.0, reason="there is no crossover")
    population.not_applied("selection_pressure", 1.0, reason="parents are drawn by the seeds that they win")
    gepa.not_applied("proposer_type", "dspy", "gepa-ai", reason="the gepa library's proposer is used")
    gepa.not_applied("proposer_effort", "LOW", reason="gepa.reflection names the model that proposes")
    gepa.not_applied("proposer_output_tokens", "FAST", reason="gepa.reflection names the model that proposes")
    gepa.ignored("use_byok")
    _refuse_unsupported(gepa, ("metaprompt", "modules", "proxy_models", "unified_optimization"))
    for name in ("adaptive_pool", "adaptive_batch"):
        value = gepa.get(name)
        level = value.get("level") if isinstance(value, Mapping) else value
        if value is not None and level != "NONE":
            gepa.refuse(name, f"is {shown(value)}; there is none here, only the level NONE is accepted")


def _verifier(section: Section, findings: Findings) -> None:
    """Accept a verifier only if the rewards stay the task app's own."""
    value = section.get("verifier")
    if not value:
        return
    if not isinstance(value, Mapping) or not asks_for_task_app_rewards(value):
        section.refuse(
            "verifier",
            f"is {shown(value)}, but there is none here: rewards come from the task app; leave it out,"
            " or give reward_source = 'task_app'",
        )
        return
    findings.not_applied.append(f"{section.path}.verifier: rewards come from the task app, as it says")


def _refuse_unsupported(section: Section, names: tuple[str, ...]) -> None:
    for name in names:
        if section.get(name):
            section.refuse(name, "is given, but there is no such thing here; leave it out")
