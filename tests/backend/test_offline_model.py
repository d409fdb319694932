"""The offline provider: what it answers, in which form, and what it refuses."""

from __future__ import annotations

import copy
import json
import random
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import pytest

from pytest_synth.backend.gateway.offline import OfflineRefusal, complete
from pytest_synth.backend.gateway.offline_words import words

PROMPT = """You sort messages of customers. Answer with one name only.

Intents:
- refund: money back after a return
- track_order: where a parcel is, tracking number
- cancel_order: stop an order before it ships
"""
NAMES = ["refund", "track_order", "cancel_order"]


def ask(query: str, *, prompt: str | None = PROMPT, **fields: Any) -> dict[str, Any]:
    system = [] if prompt is None else [{"role": "system", "content": prompt}]
    return complete({"messages": [*system, {"role": "user", "content": query}], **fields}, "lexical")


def text(answer: Mapping[str, Any]) -> str:
    content = answer["choices"][0]["message"]["content"]
    assert isinstance(content, str)
    return content


def arguments(answer: Mapping[str, Any]) -> Any:
    return json.loads(answer["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"])


def tool(parameters: Mapping[str, Any], name: str = "classify") -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def enum(names: Sequence[object], field: str = "intent") -> dict[str, Any]:
    return {"type": "object", "properties": {field: {"enum": list(names)}}, "required": [field]}


@pytest.mark.parametrize(
    ("query", "label"),
    [
        ("Where is my parcel?", "track_order"),
        ("I want my MONEY back!", "refund"),
        ("please stop it before it ships", "cancel_order"),
        ("any news from the tracking page?", "track_order"),
        ("cancelled orders", "cancel_order"),
    ],
)
def test_the_label_that_shares_most_with_the_query_wins(query: str, label: str) -> None:
    assert text(ask(query)) == label


def test_a_description_that_goes_lowers_the_score_and_a_key_word_raises_it() -> None:
    query = "the courier lost it, I want to be reimbursed"
    assert text(ask(query, prompt=PROMPT.replace("parcel is", "courier is"))) == "track_order"
    assert text(ask(query, prompt=PROMPT.replace("money back", "reimbursed, lost things"))) == "refund"
    bare = "\n".join(f"- {name}" for name in NAMES)
    assert text(ask("Where is my parcel?", prompt=PROMPT)) == "track_order"
    assert text(ask("Where is my parcel?", prompt=bare)) == "refund"  # nothing shared: the first


@pytest.mark.parametrize(
    "prompt",
    [
        "- refund: money back\n- track: where a parcel is",
        "* refund - money back\n* track - where a parcel is",
        "1. refund: money back\n2. track: where a parcel is",
        "1) **refund**: money back\n\n2) **track:** where a parcel is",
        "- `refund` - money back\n- `track` \u2013 where a parcel is",
        '- "refund" (money back)\n- "track" (where a parcel is)',
        "  - refund => money back\n  - track => where a parcel is",
        "- refund\n    money back\n- track\n    where a parcel is",
        "Classes:\n- refund\n- track\n\n## refund\nmoney back\n\n## track\nwhere a parcel is",
        "- refund\n- track\n\n| name | meaning |\n|---|---|\n| refund | money back |\n| track | parcel |",
        "Rules:\n- Be brief.\n- Be kind.\n\nIntents:\n- refund: money back\n- track: where a parcel is",
        "- refund: money back\n- track: where a parcel is\n\nRemember:\n- be brief\n- be kind\n- be exact",
        "Answer with one of: refund, track.\n`track` is about a parcel.\n`refund` is about money.",
        "Answer with one of refund or track\nUse 'track' for a parcel.",
    ],
)  # fmt: skip
def test_the_list_of_a_prompt_is_read_as_people_write_it(prompt: str) -> None:
    assert text(ask("my parcel", prompt=prompt)) == "track"
    assert text(ask("what about the money", prompt=prompt)) == "refund"


@pytest.mark.parametrize(
    ("prompt", "query", "label"),
    [
        pytest.param("- track\n- refund\n  - shoes\n  - hats", "hats", "refund", id="nested"),
        pytest.param(
            "- be\n- do\n\nIntents:\n- refund: money\n- track: parcel", "parcel", "track", id="the later"
        ),
        pytest.param(
            "- Read it all, then decide.\n- Be kind\n- Be brief\n- Never, ever guess.\n- No, no jokes.\n\n"
            "Answer with one of: refund, track.\n'track' is about a parcel.",
            "parcel",
            "track",
            id="sentences are no labels",
        ),
        pytest.param(
            "- track\n- refund\n\n## refund\nmoney\n## Tone\nkind words\n\n'track': parcel",
            "kind words",
            "track",
            id="a heading ends the text of the one before",
        ),
    ],
)
def test_what_belongs_to_a_list_and_to_a_label(prompt: str, query: str, label: str) -> None:
    assert text(ask(query, prompt=prompt)) == label


def test_a_rare_word_outweighs_a_common_one_and_a_long_description_is_no_advantage() -> None:
    prompt = "- one: order order\n- two: order lost\n- three: order late\n- four: stop"
    assert text(ask("order lost", prompt=prompt)) == "two"
    prompt = "- one: order parcel\n- two: order parcel\n- three: order zeppelin"
    assert text(ask("order parcel zeppelin", prompt=prompt)) == "three"
    prompt = f"- one: parcel, {', '.join(f'word{n}' for n in range(40))}\n- two: parcel, stop"
    assert text(ask("parcel", prompt=prompt)) == "two"
    prompt = "- one: parcel parcel parcel parcel\n- two: parcel lost"
    assert text(ask("parcel lost", prompt=prompt)) == "two"


@pytest.mark.parametrize(
    ("text_of_query", "same"),
    [
        ("cards", "card"),
        ("charged charges charging", "charge"),
        ("deliveries", "delivery"),
        ("cancelled cancellation cancels", "cancel"),
        ("bills billed", "bill"),
        ("can't cannot DOESNT won\u2019t", "not"),
        ("the customer's", ""),
        ("my bank's", "bank"),
        ("card_not_working", "card not work"),
        ("\u00dcberweisung", "\u00fcberweisung"),
        ("news bus", "news bus"),
    ],
)
def test_words_are_compared_without_their_endings(text_of_query: str, same: str) -> None:
    assert set(words(text_of_query)) == set(words(same))
    assert bool(words(same)) == bool(same)


def test_a_line_of_prose_describes_the_only_label_that_it_names() -> None:
    prompt = (
        "- other_thing\n- cancel_order\n- track_order\n\n"
        "Customers who speak of a courier mean track_order.\n"
        "cancel_order and track_order differ: only one of them is about regrets.\n"
    )
    assert text(ask("the courier", prompt=prompt)) == "track_order"
    assert text(ask("regrets", prompt=prompt)) == "other_thing"  # that line names two: it describes none


def test_a_label_that_is_an_ordinary_word_is_not_described_by_prose_that_happens_to_use_it() -> None:
    prompt = "- other: anything else\n- refund: money\n\nBe polite if a refund is about shoes."
    assert text(ask("my shoes", prompt=prompt)) == "other"
    assert text(ask("my shoes", prompt=prompt.replace("a refund", "`refund`"))) == "refund"


def test_names_may_have_spaces_question_marks_and_another_case_in_the_descriptions() -> None:
    parameters = enum(["Card arrival", "reverted_payment?"])
    prompt = "- card_arrival: waiting in the mail\n- Reverted payment?: came back"
    answer = ask("it came back", prompt=prompt, tools=[tool(parameters)])
    assert arguments(answer) == {"intent": "reverted_payment?"}
    answer = ask("I am waiting", prompt=prompt, tools=[tool(parameters)])
    assert arguments(answer) == {"intent": "Card arrival"}


def test_the_list_in_the_user_message_is_no_part_of_the_query() -> None:
    listed = "\n".join(f"{n}. {name}" for n, name in enumerate(NAMES, 1))
    query = f"Customer Query: my parcel\n\nAvailable Intents:\n{listed}"
    assert text(ask(query, prompt="- track_order: parcel")) == "track_order"
    # "customer" and "intents" belong to the frame, "order" to the list
    prompt = "- refund: customer, available intents, order order\n- track_order: parcel"
    assert text(ask(query, prompt=prompt)) == "track_order"


def test_one_user_message_may_hold_instruction_list_and_query() -> None:
    message = f"{PROMPT}\nThe money is what matters.\n\nQuery: Where is my parcel?\nAnswer:"
    assert text(ask(message, prompt=None)) == "track_order"


def test_earlier_turns_are_examples_of_their_answers() -> None:
    shots = [
        {"role": "user", "content": "Query: my zeppelin"},
        {"role": "assistant", "content": "track_order"},
        {"role": "user", "content": "Query: the banjo"},
        {"role": "assistant", "tool_calls": [{"function": {"arguments": '{"intent": "cancel_order"}'}}]},
    ]
    for query, label in (("a zeppelin", "track_order"), ("banjo", "cancel_order")):
        last = {"role": "user", "content": query}
        body = {"messages": [{"role": "system", "content": PROMPT}, *shots, last]}
        assert text(complete(body, "lexical")) == label


def test_the_list_in_an_example_is_no_part_of_it() -> None:
    frame = "\n\nIntents:\n1. track_order: parcel\n2. cancel_order: stop"
    shots = [
        {"role": "user", "content": f"Customer query: my zeppelin{frame}, parcel parcel parcel"},
        {"role": "assistant", "content": "cancel_order"},
    ]
    body = {"messages": [*shots, {"role": "user", "content": f"Query: parcel{frame}"}]}
    assert text(complete(body, "lexical")) == "track_order"


def test_an_instruction_may_stand_in_a_user_message_of_its_own() -> None:
    for between in ([], [{"role": "user", "content": "Here it comes."}]):
        messages = [{"role": "user", "content": PROMPT}, *between, {"role": "user", "content": "my parcel"}]
        assert text(complete({"messages": messages}, "lexical")) == "track_order"


def test_the_enum_of_a_tool_is_answered_as_a_call_of_it() -> None:
    answer = ask(
        "my parcel",
        tools=[tool(enum(NAMES), "other"), tool(enum(NAMES))],
        tool_choice={"type": "function", "function": {"name": "classify"}},
    )
    message = answer["choices"][0]["message"]
    assert message["content"] is None
    assert message["tool_calls"][0]["type"] == "function"
    assert message["tool_calls"][0]["function"]["name"] == "classify"
    assert arguments(answer) == {"intent": "track_order"}
    assert answer["choices"][0]["finish_reason"] == "tool_calls"


def test_without_a_named_tool_the_one_that_offers_a_choice_is_called() -> None:
    tools = [tool({"type": "object", "properties": {"q": {"type": "string"}}}, "look_up"), tool(enum(NAMES))]
    assert arguments(ask("my parcel", tools=tools)) == {"intent": "track_order"}


def test_only_labels_of_the_enum_are_answered() -> None:
    assert arguments(ask("my parcel", tools=[tool(enum(["refund", "cancel_order"]))])) == {"intent": "refund"}


def test_a_tool_without_choices_gets_the_best_label_of_the_prompts_list_in_its_first_text() -> None:
    properties = {
        "sure": {"type": "boolean"},
        "intent": {"type": "string"},
        "why": {"type": "string"},
        "stars": {"type": ["integer", "null"]},
        "tags": {"type": "array"},
    }
    answer = ask("my parcel", tools=[tool({"type": "object", "properties": properties})])
    expected = {"sure": False, "intent": "track_order", "why": "", "stars": 0, "tags": []}
    assert arguments(answer) == expected


def test_no_tool_is_called_when_the_choice_is_none() -> None:
    assert text(ask("my parcel", tools=[tool(enum(NAMES))], tool_choice="none")) == "track_order"


def test_a_structured_answer_fits_its_schema() -> None:
    schema = {
        "$defs": {"Intent": {"type": "string", "enum": NAMES}},
        "type": "object",
        "properties": {
            "kind": {"const": "triage"},
            "intents": {"type": "array", "items": {"$ref": "#/$defs/Intent"}},
            "mood": {
                "oneOf": [
                    {"const": "calm", "description": "polite"},
                    {"const": 2, "description": "angry, parcel lost"},
                ]
            },
            "note": {"anyOf": [{"type": "null"}, {"type": "string"}]},
            "best": {"allOf": [{"$ref": "#/$defs/Intent"}]},
        },
    }
    answer = ask("my parcel", response_format={"type": "json_schema", "json_schema": {"schema": schema}})
    assert json.loads(text(answer)) == {
        "kind": "triage",
        "intents": ["track_order"],
        "mood": 2,
        "note": "",
        "best": "track_order",
    }
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_a_schema_that_refers_to_itself_ends() -> None:
    node = {"type": "object", "properties": {"child": {"$ref": "#/$defs/Node"}, "x": enum(NAMES)}}
    schema = {"$defs": {"Node": node}, "$ref": "#/$defs/Node"}
    answer = ask("my parcel", response_format={"type": "json_schema", "json_schema": {"schema": schema}})
    assert json.loads(text(answer))["x"] == {"intent": "track_order"}


def test_content_in_parts_is_read_and_images_are_not_seen() -> None:
    parts = [{"type": "text", "text": "my parcel"}, {"type": "image_url", "image_url": {"url": "data:"}}]
    body = {"messages": [{"role": "developer", "content": PROMPT}, {"role": "user", "content": parts}]}
    assert text(complete(body, "offline/lexical")) == "track_order"


def test_the_answer_is_a_chat_completion_and_the_same_for_the_same_body() -> None:
    messages = [{"role": "system", "content": PROMPT}, {"role": "user", "content": "x" * 41}]
    body = {"messages": messages, "n": 2}
    before = copy.deepcopy(body)
    answer = complete(body, "lexical")
    assert body == before
    assert complete(copy.deepcopy(body), "offline/lexical") == answer
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "lexical"
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "refund"}
    prompt_tokens = -(-(len(PROMPT) + 41) // 4)  # four characters are one token, rounded up
    assert answer["usage"] == {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": 2 * 2,
        "total_tokens": prompt_tokens + 4,
    }
    with_tools = complete({**body, "tools": [tool(enum(NAMES))], "tool_choice": "none"}, "lexical")
    assert with_tools["usage"]["prompt_tokens"] > prompt_tokens + 20
    other = complete({**body, "messages": [*messages, {"role": "user", "content": "y"}]}, "lexical")
    assert other["id"] != answer["id"]


@pytest.mark.parametrize(
    ("fields", "status", "message"),
    [
        (
            {"messages": [{"role": "user", "content": "Write a poem"}]},
            400,
            "offline/lexical found no candidate answers in this request; it looks for an enum in the "
            "parameters of a tool or in the json_schema of response_format, else for a list in the prompt "
            "with a line for each answer, such as '- refund: wants money back'; for any other task name a "
            "real provider",
        ),
        (
            {"tools": [tool({"type": "object"})], "messages": [{"role": "user", "content": "hello"}]},
            400,
            "offline/lexical found no candidate answers in this request; it looks for",
        ),
        ({"logprobs": True}, 400, "offline/lexical has no logprobs: it is not a language model"),
        ({"n": 0}, 400, "n is 0; allowed: 1 to 128"),
        ({"n": True}, 400, "n is True; allowed: 1 to 128"),
        ({"messages": []}, 400, "'messages' must be a list with at least one message"),
        ({"messages": ["hello"]}, 400, "messages[0] is str, not an object"),
        (
            {"tools": [tool(enum(NAMES))], "tool_choice": {"type": "function", "function": {"name": "gone"}}},
            400,
            "tool_choice names the function 'gone', which is not among the tools",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_refused_with_the_reason(
    fields: dict[str, Any], status: int, message: str
) -> None:
    body = {"messages": [{"role": "system", "content": PROMPT}, {"role": "user", "content": "x"}], **fields}
    with pytest.raises(OfflineRefusal) as refused:
        complete(body, "lexical")
    assert refused.value.status == status
    assert refused.value.message.startswith(message)


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(OfflineRefusal) as refused:
        complete({"messages": [{"role": "user", "content": "x"}]}, "offline/gpt-9")
    assert refused.value.status == 404
    assert str(refused.value) == (
        "the offline provider has no model 'offline/gpt-9'; it has 'lexical' and 'reflect'"
    )


def test_a_prompt_that_was_seen_costs_well_under_a_millisecond() -> None:
    names = [f"intent_number_{number}" for number in range(77)]
    prompt = "\n".join(f"- {name}: word{number}, every thing of it" for number, name in enumerate(names))
    listed = "\n".join(f"{number}. {name}" for number, name in enumerate(names, 1))
    times = []
    for number in range(60):
        started = time.thread_time()
        answer = ask(
            f"Customer Query: word{number} of {number}\n\nAvailable Intents:\n{listed}",
            prompt=prompt,
            tools=[tool(enum(names))],
        )
        times.append(time.thread_time() - started)
        assert arguments(answer) == {"intent": f"intent_number_{number}"}
    assert sorted(times)[len(times) // 2] < 0.001  # measured: 0.25 ms


@pytest.mark.parametrize("model", ["lexical", "reflect"])
def test_any_text_is_answered_or_refused(model: str) -> None:
    pieces = ["\n", "- ", "1. ", "# Example 1\n", "## Feedback\n", "## Inputs\n", "expected", "predicted"]
    pieces += ["```\n", "Query:", "refund", "track_order", "`", "**", "|", "(", " - ", "one of", "a, b", "\t"]
    pieces += ["#", ":", " ", "\u00e9", "\u65e5\u672c", "'", "\u2019", "{x}", "[", "\\", "?"]
    chance = random.Random(7)
    answers = refusals = 0
    for _ in range(1000):
        first, second = ("".join(chance.choices(pieces, k=chance.randrange(40))) for _ in range(2))
        message = f"```\n{first}\n```\n# Example 1\n{second}" if chance.random() < 0.8 else first
        try:
            answers += bool(complete({"messages": [{"role": "user", "content": message}]}, model))
        except OfflineRefusal:
            refusals += 1
    assert answers + refusals == 1000
    assert min(answers, refusals) > 20


@pytest.mark.parametrize("model", ["lexical", "reflect"])
@pytest.mark.parametrize("blank", [" ", "\t", "#", "*", "`"])
def test_long_runs_of_one_character_take_no_long_time(blank: str, model: str) -> None:
    run = blank * 20_000
    for message in (
        f"{run}Query",
        f"- a: b\n- c: d\nx:{run}b",
        f"```\nI\n```\n# Example 1\n#{run}x\n## Feedback\nexpected{run}x\npredicted{run}x",
    ):
        started = time.thread_time()
        with suppress(OfflineRefusal):
            complete({"messages": [{"role": "user", "content": message}]}, model)
        assert time.thread_time() - started < 1.0  # measured: at most 0.01 s
