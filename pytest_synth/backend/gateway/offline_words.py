"""Text to stemmed words, as the offline models compare them."""

from __future__ import annotations

import re
from functools import lru_cache

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_VOWEL = re.compile(r"[aeiouy]")

# English words that say nothing about the subject. Words of other languages are left to their rarity.
_STOP_WORDS = """
    a about after all also am an and any are as at be because been being but by can could did do does
    doing for from had has have having he her here hers him his how i if in into is it its just let me
    mine my no of on or our ours please pls say says she should so some somebody someone such than that
    the their them then there these they this those to too us use used using very via want wants was we
    were what when where whether which while who whom whose why will with would you your yours
    hello hey hi thanks thank thx customer customers user users answer query
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())

# "can't", "doesnt" and the like say "not", which matters ("card_not_working").
_NEGATION = re.compile(
    r"^(?:cannot|(?:ai|are|ca|could|did|do|does|had|has|have|is|must|need|should|was|were|wo|would)n'?t)$"
)


def words(text: str) -> list[str]:
    """Split a text into stemmed words in their order, without stop words; `snake_case` is split too."""
    return [stem for stem, _ in spelled_words(text)]


def spelled_words(text: str) -> list[tuple[str, str]]:
    """Like `words`, each stem with the word as it is spelled in the text, in lower case."""
    found = []
    for match in _WORD.finditer(text.lower().replace("\u2019", "'")):
        stem = _stem(match[0])
        if stem:
            found.append((stem, match[0]))
    return found


@lru_cache(maxsize=20_000)
def _stem(word: str) -> str:
    """Strip English endings so that "cards", "charged" and "charging" meet "card" and "charge".

    After step 1 of Porter's algorithm (1980), shortened, with "-ation" added; "" for a stop word.
    """
    if _NEGATION.match(word):
        return "not"
    word = word.partition("'")[0]
    if word in STOP_WORDS:
        return ""
    if len(word) <= 3 or not word.isascii() or not word.isalpha():
        return word
    if word.endswith("ies"):
        word = word[:-3] + "y"
    elif word.endswith("s") and word[-2] not in "su":
        word = word[:-1]
    for ending in ("ation", "ing", "ed"):
        rest = word.removesuffix(ending)
        if rest != word and len(rest) >= 3 and _VOWEL.search(rest):
            word = rest
            break
    if len(word) > 3 and word.endswith("e"):
        word = word[:-1]
    if len(word) > 3 and word.endswith("y"):
        word = word[:-1] + "i"
    # "cancel", "cancelled" and "cancellation", "bill" and "billed" meet without their double letters.
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word
