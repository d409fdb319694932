"""The offline reflection model against the reflection prompts that gepa really renders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from gepa.strategies.instruction_proposal import InstructionProposalSignature

from pytest_synth.backend.gateway.offline import OfflineRefusal, complete

INSTRUCTION = """Sort the messages of customers, {tone}.

Intents:
- refund: money back
- track_order: where it is
- cancel_order: stop it

Answer with the name only."""

Record = Mapping[str, Any]


def record(query: str, expected: str, predicted: str) -> dict[str, Any]:
    return {
        "Inputs": {"query": query},
        "Generated Outputs": predicted,
        "Feedback": f"expected: {expected}\npredicted: {predicted}",
    }


def render(instruction: str, records: Sequence[Record], template: str | None = None) -> str:
    text = InstructionProposalSignature.prompt_renderer(
        {
            "current_instruction_doc": instruction,
            "dataset_with_feedback": records,
            "prompt_template": template,
        }
    )
    assert isinstance(text, str)
    return text


def reflect(prompt: str, *further: Mapping[str, str]) -> str:
    body = {"messages": [{"role": "user", "content": prompt}, *further]}
    answer = complete(body, "offline/reflect")["choices"][0]["message"]["content"]
    assert isinstance(answer, str)
    return InstructionProposalSignature.output_extractor(answer)["new_instruction"]


def propose(instruction: str, records: Sequence[Record], template: str | None = None) -> str:
    return reflect(render(instruction, records, template))


def test_the_line_of_a_missed_label_gets_the_words_of_its_query() -> None:
    records = [record("Where is my parcel from the courier?", "track_order", "refund")]
    expected = INSTRUCTION.replace("where it is", "where it is; also: courier, parcel")
    assert propose(INSTRUCTION, records) == expected


def test_words_of_other_labels_queries_are_left_out_and_words_of_their_lines_come_last() -> None:
    records = [
        record("money for the shoes and hat", "track_order", "refund"),
        record("give back the shoes", "refund", "refund"),
    ]
    assert "- track_order: where it is; also: hat, money\n" in propose(INSTRUCTION, records)


def test_the_rarest_words_come_first_and_there_are_four_for_each_miss() -> None:
    records = [record("money stop parcel courier doorstep van neighbour", "track_order", "refund")]
    line = propose(INSTRUCTION, records).splitlines()[4]
    assert line == "- track_order: where it is; also: neighbour, doorstep, courier, parcel"


def test_numbers_and_negations_tell_nothing_apart() -> None:
    records = [record("order 4711 doesn't move, parcel", "track_order", "refund")]
    line = propose(INSTRUCTION.replace("stop it", "stop an order"), records).splitlines()[4]
    assert line == "- track_order: where it is; also: parcel, move"


def test_two_misses_of_a_label_give_it_up_to_eight_words() -> None:
    records = [
        record("courier doorstep neighbour van", "track_order", "refund"),
        record("parcel package shipment box", "track_order", "refund"),
    ]
    line = propose(INSTRUCTION, records).splitlines()[4]
    assert line == (
        "- track_order: where it is; also: neighbour, doorstep, shipment, courier, parcel, package, van, box"
    )


def test_a_second_proposal_goes_on_in_the_same_line() -> None:
    first = propose(INSTRUCTION, [record("the parcel", "track_order", "refund")])
    second = propose(first, [record("a courier, a parcel", "track_order", "refund")])
    assert "- track_order: where it is; also: parcel, courier\n" in second


def test_the_proposal_makes_the_offline_model_answer_right() -> None:
    query = "has the courier left already"
    records = [record(query, "track_order", "refund")]

    def answer(prompt: str) -> str:
        messages = [{"role": "system", "content": prompt}, {"role": "user", "content": query}]
        return str(complete({"messages": messages}, "lexical")["choices"][0]["message"]["content"])

    assert answer(INSTRUCTION) == "refund"
    assert answer(propose(INSTRUCTION, records)) == "track_order"


@pytest.mark.parametrize(
    "records",
    [
        pytest.param([record("a parcel", "track_order", "track_order")], id="all right"),
        pytest.param(
            [{"Inputs": "a parcel", "Generated Outputs": "refund", "Feedback": "wrong"}], id="no label"
        ),
        pytest.param([record("where is it", "track_order", "refund")], id="nothing new"),
    ],
)
def test_without_anything_to_learn_the_instruction_comes_back_unchanged(records: list[Record]) -> None:
    assert propose(INSTRUCTION, records) == INSTRUCTION


@pytest.mark.parametrize(
    ("outputs", "feedback"),
    [
        ("refund", "expected: track_order\npredicted: refund"),
        ("refund", "feedback: wrong label\nexpected: track_order\npredicted: refund"),
        ("refund", {"expected": "track_order", "predicted": "refund"}),
        ("refund", {"score": 0.0, "expected": "track_order"}),
        ('{"intent": "refund"}', "Expected 'track_order', but got 'refund'."),
        ("refund", "The correct label is track_order, not refund."),
        ("refund", "should be `track_order`"),
        ("refund", '{"expected": "track_order", "predicted": "refund"}'),
        ("I think it is a refund", "**Expected:** track_order"),
        ("", "expected answer: track_order. Nothing was answered."),
        ("track_order", "expected: track_order\npredicted: refund"),
    ],
)
def test_the_expected_label_is_read_from_feedback_as_task_apps_write_it(
    outputs: str, feedback: object
) -> None:
    records = [{"Inputs": {"query": "the parcel"}, "Generated Outputs": outputs, "Feedback": feedback}]
    assert "- track_order: where it is; also: parcel\n" in propose(INSTRUCTION, records)


@pytest.mark.parametrize(
    "inputs",
    [
        "the parcel",
        {"query": "the parcel", "available_intents": "1. refund\n2. track_order\n3. cancel_order"},
        "Customer Query: the parcel\n\nAvailable Intents:\n1. refund\n2. track_order",
        [{"role": "user", "content": "Query: the parcel"}],
    ],
)
def test_only_the_query_counts_of_the_inputs(inputs: object) -> None:
    records = [{"Inputs": inputs, "Generated Outputs": "refund", "Feedback": "expected: track_order"}]
    assert "- track_order: where it is; also: parcel\n" in propose(INSTRUCTION, records)


def test_a_label_without_a_line_gets_one_below_the_others() -> None:
    records = [record("a receipt", "invoice", "refund")]
    assert "- cancel_order: stop it\n- invoice: receipt\n\nAnswer" in propose(INSTRUCTION, records)
    numbered = "1. refund\n2. track_order"
    assert propose(numbered, records) == "1. refund\n2. track_order\n3. invoice: receipt"


def test_an_instruction_without_labels_gets_a_list_of_key_words() -> None:
    records = [record("a receipt", "invoice", "refund"), record("parcel", "track", "refund")]
    expected = "Classify the query.\n\nKey words:\n- invoice: receipt\n- track: parcel"
    assert propose("Classify the query.", records) == expected


def test_labels_may_stand_in_the_inputs_alone() -> None:
    inputs = "Query: the parcel\n\nIntents:\n1. refund: hat\n2. track_order: shoes"
    records = [{"Inputs": inputs, "Generated Outputs": "refund", "Feedback": "expected: track_order"}]
    assert propose("Classify.", records) == "Classify.\n\nKey words:\n- track_order: parcel"
    assert "track_order: parcel" in propose("Classify.\n\n`refund` is about a hat.", records)


@pytest.mark.parametrize(
    ("line", "sharpened"),
    [
        ("- track_order", "- track_order: parcel"),
        ("- track_order:", "- track_order: parcel"),
        ("- **track_order** - where it is.", "- **track_order** - where it is; also: parcel"),
        ("### track_order\nwhere it is", "### track_order\nKey words: parcel\nwhere it is"),
    ],
)
def test_a_line_is_extended_in_its_own_form(line: str, sharpened: str) -> None:
    instruction = f"- refund\n- cancel_order\n\n{line}\n"
    proposal = propose(instruction, [record("a parcel", "track_order", "refund")])
    assert proposal == f"- refund\n- cancel_order\n\n{sharpened}"


def test_fences_and_examples_of_the_instruction_itself_survive() -> None:
    instruction = f'{INSTRUCTION}\n\n# Example 1\n```json\n{{"intent": "refund"}}\n```\nEnd.'
    proposal = propose(instruction, [record("the parcel", "track_order", "refund")])
    assert proposal == instruction.replace("where it is", "where it is; also: parcel")


def test_a_template_of_ones_own_is_read_too() -> None:
    template = "Prompt:\n```\n<curr_param>\n```\nRollouts:\n<side_info>\nWrite a better one in a ``` block."
    proposal = propose(INSTRUCTION, [record("the parcel", "track_order", "refund")], template)
    assert "- track_order: where it is; also: parcel\n" in proposal


def test_fences_behind_the_examples_are_no_part_of_them() -> None:
    template = "```\n<curr_param>\n```\n<side_info>\n\nYour task is to answer like this:\n```\nlike this\n```"
    records = [{"Feedback": "expected: track_order", "Inputs": "the parcel"}]
    assert "- track_order: where it is; also: parcel\n" in propose(INSTRUCTION, records, template)


def test_a_longer_label_is_not_taken_for_the_expected_one() -> None:
    records = [
        {"Inputs": "the parcel", "Generated Outputs": "track_order_2", "Feedback": "expected: track_order"}
    ]
    assert "also: parcel" in propose(INSTRUCTION, records)


def test_examples_without_headings_are_read_too() -> None:
    prompt = (
        f"```\n{INSTRUCTION}\n```\nExample 1\nInputs: the parcel\nGenerated Outputs: refund\n"
        "Feedback: expected track_order\nExample 2\n**Inputs**: shoes\n**Feedback**: expected refund\n"
    )
    proposal = reflect(prompt)
    assert "- track_order: where it is; also: parcel\n" in proposal
    assert "- refund: money back; also: shoes\n" in proposal


def test_an_example_without_sections_teaches_nothing() -> None:
    assert reflect(f"```\n{INSTRUCTION}\n```\n# Example 1\nthe parcel") == INSTRUCTION


def test_a_repair_call_gets_a_proposal_too() -> None:
    prompt = render(INSTRUCTION, [record("the parcel", "track_order", "refund")])
    further = (
        {"role": "assistant", "content": "```\nshort\n```"},
        {"role": "user", "content": "Your text lost {tone}."},
    )
    assert "{tone}" in reflect(prompt, *further)


def test_anything_else_is_refused_with_what_it_looks_for() -> None:
    with pytest.raises(OfflineRefusal) as refused:
        reflect("Where is my parcel?")
    assert refused.value.status == 400
    assert refused.value.message == (
        "offline/reflect found no reflection prompt in this request; it looks for a user message with the "
        "current instruction in a ``` fence and, below it, '# Example 1', '## Inputs', '## Generated "
        "Outputs', '## Feedback' (the default template of gepa), with 'expected: <label>' in the feedback; "
        "for any other template name a real reflection model"
    )
