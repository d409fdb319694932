"""The offline provider: built-in stand-ins for a model, pure and deterministic, with no key and no network.

`lexical` answers classification prompts by shared words (`offline_lexical.py`), `reflect` proposes a better
prompt from failures (`offline_reflect.py`). Neither is a language model. They make the whole product run, and
be tested, anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from pytest_synth.backend.gateway.offline_answers import OfflineAnswer, OfflineRefusal, read_messages
from pytest_synth.backend.gateway.offline_lexical import answer_lexical
from pytest_synth.backend.gateway.offline_reflect import answer_reflect
from pytest_synth.prompts import fingerprint

__all__ = ["OfflineRefusal", "complete"]

CHARACTERS_PER_TOKEN = 4  # the usual rule of thumb for English; nothing is tokenised
MAX_CHOICES = 128  # as in the OpenAI API

_MODELS: Final[Mapping[str, Callable[[Mapping[str, Any]], OfflineAnswer]]] = {
    "lexical": answer_lexical,
    "reflect": answer_reflect,
}


def complete(body: Mapping[str, Any], model: str) -> dict[str, Any]:
    """Answer a chat completion request.

    The same body always gets the same answer, `id` and usage included; all `n` choices are equal, and
    sampling parameters change nothing. `stream` is ignored: the gateway cuts the answer up.

    Args:
        body: An OpenAI chat completion request; it is not changed.
        model: `lexical` or `reflect`, with or without `offline/` before it.

    Returns:
        A `chat.completion` object. Usage counts four characters as one token.

    Raises:
        OfflineRefusal: If the model is unknown (404), or the request cannot be answered (400).
    """
    name = model.removeprefix("offline/")
    answer = _MODELS.get(name)
    if answer is None:
        known = " and ".join(repr(known) for known in _MODELS)
        raise OfflineRefusal(f"the offline provider has no model {model!r}; it has {known}", status=404)
    count = body.get("n", 1)
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MAX_CHOICES:
        raise OfflineRefusal(f"n is {count!r}; allowed: 1 to {MAX_CHOICES}")
    if body.get("logprobs") or body.get("top_logprobs"):
        raise OfflineRefusal(f"offline/{name} has no logprobs: it is not a language model")
    return _completion(body, name, answer(body), count)


def _completion(body: Mapping[str, Any], model: str, answer: OfflineAnswer, count: int) -> dict[str, Any]:
    request = fingerprint([model, body.get("messages"), body.get("tools"), body.get("response_format")])
    prompt_tokens = _tokens(*(text for _, text, _ in read_messages(body)), _json(body.get("tools")))
    completion_tokens = count * _tokens(answer.text)
    return {
        "id": f"chatcmpl-{request}",
        "object": "chat.completion",
        "created": 0,  # the same request gets the same bytes
        "model": model,
        "choices": [
            {
                "index": index,
                "message": _message(answer, f"call_{request}"),
                "logprobs": None,
                "finish_reason": "stop" if answer.tool is None else "tool_calls",
            }
            for index in range(count)
        ],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    }


def _message(answer: OfflineAnswer, call_id: str) -> dict[str, Any]:
    if answer.tool is None:
        return {"role": "assistant", "content": answer.text}
    function = {"name": answer.tool, "arguments": answer.text}
    call = {"id": call_id, "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def _tokens(*texts: str) -> int:
    return -(-sum(map(len, texts)) // CHARACTERS_PER_TOKEN)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) if value else ""
