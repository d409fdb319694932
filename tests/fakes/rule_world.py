"""A synthetic prompt task with a known best prompt, and a reflection model that reads its feedback.

A prompt is good by the rules that it names ("rule 17"). Each seed needs a few rules, some rules spoil
others for half of the seeds, and rules that do not exist (from 1000) hurt now and then. The feedback of a
seed names at most one rule that is missing and one that hurts, as a task app would. Everything follows
from hashes: no state, no order.
"""

from __future__ import annotations

import hashlib
import random
import re
import statistics
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

_RULE = re.compile(r"\brule (\d+)")
_HINT = re.compile(r"\b(missing|harmful) rule (\d+)")
_FIRST_FALSE_RULE = 1000
_HELD_OUT = 100_000  # seeds from here on are never in a config


def number_of(*parts: object) -> int:
    """A 64-bit number that depends on the parts alone."""
    text = "|".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def chance(*parts: object) -> float:
    """A number in [0, 1) that depends on the parts alone."""
    return number_of(*parts) / 2**64


def rules_in(text: str) -> tuple[int, ...]:
    return tuple(dict.fromkeys(int(number) for number in _RULE.findall(text)))


def write_prompt(rules: tuple[int, ...] | list[int], version: object = "") -> str:
    """A prompt that names these rules."""
    head = f"Answer the customer. Version {version}." if version != "" else "Answer the customer."
    return "\n".join([head, *(f"Follow rule {rule}." for rule in rules)])


@dataclass(frozen=True)
class World:
    """One instance of the task.

    Attributes:
        number: Which instance; it decides everything.
        mode: `partial` pays for each rule that a seed needs, `binary` only for all of them (or by luck).
        noise: Probability that a reward is replaced by another one.
        conflicts: How many rules are spoilt by another one.
    """

    number: int = 0
    rules: int = 40
    needs: int = 2
    mode: Literal["partial", "binary"] = "partial"
    noise: float = 0.0
    conflicts: int = 8
    known_at_start: int = 6

    @property
    def baseline(self) -> str:
        start = random.Random(f"start {self.number}").sample(range(self.rules), self.known_at_start)
        return write_prompt(start)

    @property
    def best_prompt(self) -> str:
        """Names all rules; without conflicts, nothing is better and every reward is 1."""
        return write_prompt(list(range(self.rules)))

    def needed(self, seed: int) -> tuple[int, ...]:
        return _needed(self.number, self.rules, self.needs, seed)

    def spoiler(self, rule: int) -> int | None:
        return _spoilers(self.number, self.rules, self.conflicts).get(rule)

    def judge(self, text: str, seed: int, sample: int = 0) -> tuple[float, str]:
        """The reward of a prompt on a seed, and a remark about what was wrong."""
        named = set(rules_in(text))
        missing = [rule for rule in self.needed(seed) if rule not in named]
        harmful = [
            spoiler
            for rule in self.needed(seed)
            if rule in named
            and (spoiler := self.spoiler(rule)) in named
            and chance(self.number, "spoilt", seed, rule) < 0.5
        ]
        false = [
            rule
            for rule in sorted(named)
            if rule >= _FIRST_FALSE_RULE and chance(self.number, "false", seed, rule) < 0.15
        ]
        met = self.needs - len(missing) - len(harmful)
        share = max(0.0, met / self.needs - len(false) / 3)
        reward = self._reward(share, seed, named)
        if self.noise and chance(self.number, "noisy", seed, sample, text) < self.noise:
            reward = self._other(reward, seed, sample)
        remarks = [f"missing rule {missing[number_of(self.number, seed) % len(missing)]}"] if missing else []
        remarks += [f"harmful rule {rule}" for rule in (*harmful[:1], *false[:1])]
        return reward, "; ".join(remarks) or "fine"

    def _reward(self, share: float, seed: int, named: set[int]) -> float:
        if self.mode == "partial":
            return share
        if share > 0.99:
            return 1.0
        return float(chance(self.number, "luck", seed, sorted(named)) < 0.5 * share)

    def _other(self, reward: float, seed: int, sample: int) -> float:
        if self.mode == "binary":
            return 1.0 - reward
        return min(1.0, max(0.0, reward + chance(self.number, "shift", seed, sample) - 0.5))

    def true_reward(self, text: str, seeds: int = 400) -> float:
        """Mean reward over many seeds of no config, without noise."""
        quiet = self if not self.noise else World(**{**self.__dict__, "noise": 0.0})
        return statistics.fmean(quiet.judge(text, _HELD_OUT + seed)[0] for seed in range(seeds))


@lru_cache(maxsize=100_000)
def _needed(world: int, rules: int, needs: int, seed: int) -> tuple[int, ...]:
    order = list(range(rules))
    random.Random(f"popular {world}").shuffle(order)
    draw = random.Random(f"needs {world} {seed}")
    weights = [(place + 1) ** -0.8 for place in range(rules)]
    found: list[int] = []
    while len(found) < needs:
        rule = draw.choices(order, weights)[0]
        if rule not in found:
            found.append(rule)
    return tuple(found)


@lru_cache(maxsize=1000)
def _spoilers(world: int, rules: int, conflicts: int) -> dict[int, int]:
    draw = random.Random(f"conflicts {world}")
    return dict(draw.sample(range(rules), 2) for _ in range(conflicts))


@dataclass(frozen=True)
class RuleReflection:
    """A reflection model that acts on hints with some skill, and slips now and then.

    Attributes:
        skill: Share of answers that use the hints; the others only rephrase.
        slips: Whether it forgets rules and invents false ones.
        most_added: Missing rules that one answer adds at most.
    """

    skill: float = 0.55
    slips: bool = True
    most_added: int = 2
    run: int = field(default=0)

    def rewrite(self, text: str, hints: list[tuple[str, int]], key: object) -> str:
        """A new prompt; depends on its arguments alone."""

        def draw(*parts: object) -> float:
            return chance(self.run, key, text, *parts)

        rules = list(rules_in(text))
        missing = [rule for kind, rule in hints if kind == "missing"]
        harmful = [rule for kind, rule in hints if kind == "harmful"]
        if draw("skill") < self.skill:
            by_votes = sorted(set(missing), key=lambda rule: (-missing.count(rule), draw("tie", rule)))
            if draw("careless") < 0.5:
                by_votes.sort(key=lambda rule: draw("order", rule))
            take = 1 + int(draw("take") * self.most_added)
            rules += [rule for rule in by_votes[:take] if rule not in rules]
            if harmful and draw("mend") < 0.5:
                rules = [rule for rule in rules if rule != harmful[int(draw("which") * len(harmful))]]
        if self.slips and draw("forget") < 0.45 and len(rules) > 2:
            rules.pop(int(draw("forgotten") * len(rules)))
        if self.slips and draw("invent") < 0.4:
            rules.append(_FIRST_FALSE_RULE + int(draw("false") * 200))
        return write_prompt(rules, number_of(self.run, key, text) % 10**8)

    def answer(self, question: str, key: object) -> str:
        """Answer a reflection question as a model would: some words, and the new text in a fence."""
        current = question.split("```\n", 1)[1].split("\n```", 1)[0]
        hints = [(kind, int(rule)) for kind, rule in _HINT.findall(question)]
        return f"Here is a better one.\n\n```\n{self.rewrite(current, hints, key)}\n```"
