"""A prompt as the components that a search rewrites: one for each message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pytest_synth.prompts import HOLE, Message, Prompt


def wildcards_of(text: str) -> frozenset[str]:
    """Names of the `{wildcard}` holes in a text."""
    return frozenset(HOLE.findall(text))


@dataclass(frozen=True)
class Components:
    """Turns prompts of one shape into `{component: text}` and back.

    A component is named after the place and the role of its message (`"0:system"`), so that every
    candidate of a search has the same components.

    Attributes:
        rewritten: See `GepaConfig.rewritten`.
    """

    baseline: Prompt
    rewritten: tuple[int, ...] | None = None

    @property
    def rewritable(self) -> tuple[str, ...]:
        """Components that a search may rewrite; the others stay as they are."""
        names = self.names
        return names if self.rewritten is None else tuple(names[place] for place in self.rewritten)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"{place}:{message.role}" for place, message in enumerate(self.baseline.messages))

    def split(self, prompt: Prompt) -> dict[str, str]:
        return dict(zip(self.names, (message.pattern for message in prompt.messages), strict=True))

    def join(self, texts: Mapping[str, str]) -> Prompt:
        return Prompt(
            tuple(
                Message(message.role, texts[name])
                for name, message in zip(self.names, self.baseline.messages, strict=True)
            )
        )

    def replace(self, prompt: Prompt, texts: Mapping[str, str]) -> Prompt:
        """The prompt with some components' texts exchanged."""
        return self.join({**self.split(prompt), **texts})

    def wildcards(self, name: str) -> frozenset[str]:
        """Holes of the baseline's message: the ones that can be filled at this place."""
        return wildcards_of(self.split(self.baseline)[name])
