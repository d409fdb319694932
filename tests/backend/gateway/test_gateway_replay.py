"""Record and replay through a served gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes.gateway_server import KEY, GatewayUnderTest, chat
from fakes.model_provider import completion, events
from starlette.requests import Request
from starlette.responses import JSONResponse

from pytest_synth.backend.gateway import CassetteError, PolicyRefused, Rollout, RolloutUse
from pytest_synth.backend.gateway.rollouts import LiveRollout

NAME = "evals/cassettes/test_x.jsonl"
MakeGateway = Callable[..., GatewayUnderTest]


def echo(body: dict[str, Any]) -> dict[str, Any]:
    return completion(f"answer to {body['messages'][-1]['content']}")


@pytest.fixture
def make(make_gateway: MakeGateway, tmp_path: Path) -> MakeGateway:
    def made(**more: Any) -> GatewayUnderTest:
        served = make_gateway(cassettes=tmp_path, **more)
        served.provider.reply = echo
        return served

    return made


def run(served: GatewayUnderTest, mode: str, *queries: str, **more: Any) -> tuple[list[Any], RolloutUse]:
    """One rollout with a call for each query; returns what the task app got, and the use."""
    rollout = served.open(cassette=NAME, record_mode=mode, **more)
    answers = [served.post(rollout, chat(query)) for query in queries]
    return answers, served.gateway.close_rollout(rollout)


def texts(answers: list[Any]) -> list[str]:
    return [answer.json()["choices"][0]["message"]["content"] for answer in answers]


def finish(served: GatewayUnderTest, mode: str, *, is_complete: bool = True) -> Any:
    return served.stage.run(served.gateway.finish_cassette(NAME, record_mode=mode, is_complete=is_complete))


def recorded(make: MakeGateway, *queries: str, mode: str = "once", **more: Any) -> GatewayUnderTest:
    served = make()
    run(served, mode, *queries, **more)
    finish(served, mode)
    served.provider.seen.clear()
    return served


def test_a_recording_is_replayed_without_provider_and_key(make: MakeGateway, tmp_path: Path) -> None:
    served = make()
    first, paid = run(served, "once", "one", "two")
    assert finish(served, "once").recorded == 2
    assert (paid.replayed, paid.saved_ms) == (0, 0.0)
    assert (tmp_path / NAME).exists()

    offline = make(environ={"OPENAI_API_KEY": "", "OPENAI_BASE_URL": ""})
    served.provider.seen.clear()
    again, use = run(offline, "none", "one", "two")
    assert [answer.json() for answer in again] == [answer.json() for answer in first]
    assert served.provider.seen == []
    assert (use.replayed, use.tokens, use.failure) == (2, paid.tokens, None)
    assert use.cost_usd == 0.0
    assert use.saved_usd is None  # the price of 'm-1' is not known
    assert use.saved_ms > 0
    assert all(call.replayed for call in use.calls)


def test_a_replay_says_what_it_saves(make: MakeGateway) -> None:
    prices = {"openai/m-1": {"input": 100, "output": 1000}}
    _, paid = run(make(prices=prices), "once", "one")
    assert paid.cost_usd == pytest.approx(7 * 100e-6 + 4 * 1000e-6)
    served = make(prices=prices)
    _, use = run(served, "new_episodes", "one")
    assert use.cost_usd is not None  # not saved yet: another gateway
    finish(served, "new_episodes")
    _, use = run(make(prices=prices), "none", "one")
    assert (use.cost_usd, use.saved_usd) == (0.0, pytest.approx(paid.cost_usd))


def test_a_miss_is_a_failure_with_the_nearest_call_and_the_difference(make: MakeGateway) -> None:
    served = recorded(make, "I lost my card", "where is my refund")
    (answer,), use = run(served, "none", "where is the refund")
    assert answer.status_code == 422
    message = answer.json()["error"]["message"]
    assert message == (
        f"replay has no answer for this request (model 'm-1') in {NAME!r}; "
        "the nearest recorded call differs: messages[1] (user): 'where is[- my-]{+ the+} refund'; "
        "run with --synth-record-mode=new_episodes to add it"
    )
    assert use.failure is not None
    assert (use.failure.kind, use.failure.message, use.is_void) == ("replay_miss", message, True)
    assert served.provider.seen == []


def test_a_miss_stays_the_failure_of_a_rollout_whose_app_goes_on(make: MakeGateway) -> None:
    served = recorded(make, "known")
    _, use = run(served, "none", "unknown", "known")
    assert use.is_void
    assert use.answer == "answer to known"


def test_without_a_cassette_a_replay_says_how_to_record_one(make: MakeGateway) -> None:
    (answer,), _ = run(make(), "none", "one")
    assert answer.json()["error"]["message"] == (
        f"replay has no cassette {NAME!r} (model 'm-1'); record it with --synth-record-mode=once"
    )


@pytest.mark.parametrize(
    ("mode", "calls", "entries"),
    [
        pytest.param("off", ["old", "new"], ["old"], id="off"),
        pytest.param("none", [], ["old"], id="none"),
        pytest.param("once", [], ["old"], id="once"),
        pytest.param("new_episodes", ["new"], ["new", "old"], id="new_episodes"),
        pytest.param("all", ["old", "new"], ["new", "old"], id="all"),
    ],
)
def test_the_modes_mean_what_vcr_means_by_them(
    make: MakeGateway, tmp_path: Path, mode: str, calls: list[str], entries: list[str]
) -> None:
    """A cassette with `old` is there; the run asks for `old` and `new`."""
    recorded(make, "old")
    served = make()
    run(served, mode, "old", "new")
    finish(served, mode)
    assert [seen.body["messages"][-1]["content"] for seen in served.provider.seen] == calls
    lines = [json.loads(line) for line in (tmp_path / NAME).read_text("utf-8").splitlines()]
    assert [line["request"]["messages"][1]["content"] for line in lines if "key" in line] == entries


@pytest.mark.parametrize(("is_complete", "left"), [(True, 2), (False, 3)])
def test_rewrite_drops_what_a_whole_run_did_not_use(make: MakeGateway, is_complete: bool, left: int) -> None:
    recorded(make, "old", "both")
    served = make()
    run(served, "rewrite", "both", "new")
    use = finish(served, "rewrite", is_complete=is_complete)
    assert len(served.provider.seen) == 2
    assert (use.entries, use.dropped, use.recorded) == (left, 3 - left, 2)
    assert served.gateway.describe_cassette(NAME).calls == left


def test_unused_entries_are_counted(make: MakeGateway) -> None:
    recorded(make, "one", "two", "three")
    served = make()
    run(served, "none", "two")
    use = finish(served, "none")
    assert (use.entries, use.replayed, use.unused) == (3, 1, 2)


def test_samples_have_answers_of_their_own(make: MakeGateway) -> None:
    served = make()
    answers = iter(range(100))
    served.provider.reply = lambda body: completion(f"answer {next(answers)}")
    first = [texts(run(served, "once", "same", sample=sample)[0]) for sample in range(5)]
    finish(served, "once")
    assert first == [[f"answer {number}"] for number in range(5)]
    again = make()
    assert [texts(run(again, "none", "same", sample=sample)[0]) for sample in range(5)] == first


def test_equal_calls_of_a_rollout_have_answers_of_their_own(make: MakeGateway) -> None:
    served = make()
    answers = iter(range(100))
    served.provider.reply = lambda body: completion(f"vote {next(answers)}")
    votes = texts(run(served, "once", "same", "same", "same")[0])
    assert votes == ["vote 0", "vote 1", "vote 2"]
    finish(served, "once")
    assert texts(run(make(), "none", "same", "same", "same")[0]) == votes


def test_equal_calls_of_two_rollouts_are_made_once(make: MakeGateway) -> None:
    served = make()
    assert texts(run(served, "once", "same", seed=1)[0]) == texts(run(served, "once", "same", seed=2)[0])
    assert len(served.provider.seen) == 1


def test_equal_calls_at_the_same_time_are_made_once(make: MakeGateway) -> None:
    served = make()
    waiting = asyncio.Event()

    async def slow(request: Request) -> JSONResponse:
        await asyncio.wait_for(waiting.wait(), 10)
        return JSONResponse(completion("slow"))

    served.provider.script = [slow]
    rollouts = [served.open(cassette=NAME, record_mode="once", seed=seed) for seed in (1, 2)]

    async def both() -> list[Any]:
        calls = [asyncio.ensure_future(served.gateway.ask(each, chat("same"))) for each in rollouts]
        await asyncio.sleep(0.05)
        served.provider_stage.call(waiting.set)
        return await asyncio.gather(*calls)

    one, other = served.stage.run(both())
    assert one == other == completion("slow")
    assert len(served.provider.seen) == 1


def test_a_call_that_fails_is_not_recorded_and_its_repeat_is_the_same_call(make: MakeGateway) -> None:
    served = make()
    served.provider.script = [(400, {}, "bad")]
    answers, _ = run(served, "once", "same", "same")
    assert [answer.status_code for answer in answers] == [400, 200]
    assert finish(served, "once").recorded == 1
    assert texts(run(make(), "none", "same")[0]) == ["answer to same"]


FRAME = {"id": "c", "object": "chat.completion.chunk"}
CHUNKS = [
    {**FRAME, "choices": [{"index": 0, "delta": {"role": "assistant", "content": "re"}}]},
    {**FRAME, "choices": [{"index": 0, "delta": {"content": "funds"}, "finish_reason": "stop"}]},
    {**FRAME, "choices": [], "usage": completion()["usage"]},
]


def lines(answer: Any) -> list[str]:
    assert answer.headers["content-type"].startswith("text/event-stream")
    return [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]


def stream(served: GatewayUnderTest, mode: str) -> tuple[Any, RolloutUse]:
    rollout = served.open(cassette=NAME, record_mode=mode)
    answer = served.post(rollout, chat("q", stream=True))
    return answer, served.gateway.close_rollout(rollout)


def test_a_stream_is_replayed_as_a_stream_and_as_an_answer(make: MakeGateway) -> None:
    served = make()
    served.provider.script = [events(*CHUNKS)]
    stream(served, "once")
    finish(served, "once")
    again = make()
    answer, use = stream(again, "none")
    got = lines(answer)
    assert got[-1] == "[DONE]"
    parts = [json.loads(line)["choices"][0]["delta"].get("content", "") for line in got[:-1]]
    assert "".join(parts) == "refunds"
    assert (use.tokens, use.answer, use.replayed) == (11, "refunds", 1)
    assert texts(run(again, "none", "q")[0]) == ["refunds"]


def test_seeds_that_only_redacted_texts_tell_apart_keep_their_own_answers(make: MakeGateway) -> None:
    queries = {seed: f"card 111122223333{seed:04}" for seed in range(3)}
    served = make(redact=[r"\b\d{16}\b"])
    first = [run(served, "once", query, seed=seed)[0][0] for seed, query in queries.items()]
    assert texts(first) == [f"answer to {query}" for query in queries.values()]
    assert finish(served, "once").recorded == 3
    again = make(redact=[r"\b\d{16}\b"])
    replayed = [run(again, "none", query, seed=seed) for seed, query in queries.items()]
    assert [use.replayed for _, use in replayed] == [1, 1, 1]


def test_a_stream_that_is_cut_is_not_recorded(make: MakeGateway) -> None:
    served = make()
    served.provider.script = [events(CHUNKS[0], done=False), events(*CHUNKS)]
    answer, use = stream(served, "once")
    message = json.loads(lines(answer)[-1])["error"]["message"]
    assert message == "openai ended the stream before its end"
    assert use.failure is not None
    assert (use.failure.message, use.is_cut_off, use.is_void) == (message, True, False)
    _, use = stream(served, "once")
    assert use.failure is None
    assert finish(served, "once").recorded == 1


def test_the_offline_model_is_not_recorded(make: MakeGateway, tmp_path: Path) -> None:
    served = make()
    rollout = served.open({}, cassette=NAME, record_mode="once")
    body = chat("refund please", system="Answer with one of:\n- refunds: money back\n- cards: lost cards")
    assert served.post(rollout, body).status_code == 200
    finish(served, "once")
    assert not (tmp_path / NAME).exists()


def test_keys_and_patterns_do_not_get_into_a_cassette(make: MakeGateway, tmp_path: Path) -> None:
    served = make(redact=[r"\b\d{16}\b"])
    served.provider.reply = lambda body: completion(f"your key is {KEY}, your card 1234567812345678")
    (first,), _ = run(served, "once", f"my key is {KEY}, my card 8765432187654321")
    assert KEY in first.text  # the task app gets what the provider said
    finish(served, "once")
    text = (tmp_path / NAME).read_text("utf-8")
    assert "my key is [redacted], my card [redacted]" in text
    assert "your key is [redacted], your card [redacted]" in text
    assert KEY not in text
    assert "authorization" not in text.lower()
    (again,), _ = run(make(redact=[r"\b\d{16}\b"]), "none", f"my key is {KEY}, my card 1111222233334444")
    assert again.status_code == 200  # the pattern's text does not matter to the key


@pytest.mark.parametrize(
    ("policy", "mode", "exists", "refused"),
    [
        pytest.param("openai", "none", True, False, id="none"),
        pytest.param("openai", "none", False, False, id="none-without-cassette"),
        pytest.param("openai", "once", True, False, id="once"),
        pytest.param("openai", "once", False, True, id="once-without-cassette"),
        pytest.param("openai", "new_episodes", True, False, id="new_episodes"),
        pytest.param("openai", "all", True, True, id="all"),
        pytest.param("openai", "off", True, True, id="off"),
        pytest.param("offline", "all", False, False, id="offline"),
    ],
)
def test_a_key_is_needed_where_calls_will_be_made(
    make: MakeGateway, policy: str, mode: str, exists: bool, refused: bool
) -> None:
    if exists:
        recorded(make, "one")
    gateway = make(environ={"OPENAI_API_KEY": "", "OPENAI_BASE_URL": ""}).gateway
    given = {"provider": policy} if policy == "offline" else {"provider": policy, "model": "m-1"}
    if not refused:
        gateway.check_policy(given, record_mode=mode, cassette=NAME)
        return
    with pytest.raises(PolicyRefused, match="has no key"):
        gateway.check_policy(given, record_mode=mode, cassette=NAME)


@pytest.mark.parametrize(
    "name",
    [
        "/etc/cassettes/passwd.jsonl",
        "../cassettes/x.jsonl",
        "a/../../cassettes/x.jsonl",
        "cassettes.jsonl",
        "evals/x.jsonl",
        "cassettes/x.json",
        "cassettes\\x.jsonl",
    ],
)
def test_a_name_that_is_not_a_cassettes_is_refused(make: MakeGateway, name: str) -> None:
    with pytest.raises(PolicyRefused) as refused:
        make().open(cassette=name, record_mode="once")
    assert str(refused.value) == (
        f"cassette {name!r}: a name is a relative path with '/', in a folder 'cassettes', "
        "with the suffix '.jsonl'"
    )


def test_a_link_out_of_the_folder_is_refused(make: MakeGateway, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (tmp_path / "cassettes").symlink_to(outside, target_is_directory=True)
    with pytest.raises(PolicyRefused, match="lies outside of the folder"):
        make().open(cassette="cassettes/x.jsonl", record_mode="once")


def test_without_a_folder_there_are_no_cassettes(make_gateway: MakeGateway) -> None:
    with pytest.raises(PolicyRefused) as refused:
        make_gateway().open(cassette=NAME, record_mode="once")
    assert str(refused.value) == "this backend has no folder for cassettes; use --synth-record-mode=off"


def test_an_unknown_mode_is_refused(make: MakeGateway) -> None:
    with pytest.raises(PolicyRefused) as refused:
        make().open(cassette=NAME, record_mode="sometimes")
    assert str(refused.value) == (
        "record mode 'sometimes' is unknown; allowed: off, none, once, new_episodes, all, rewrite"
    )


def test_a_broken_cassette_is_refused_before_the_first_rollout(make: MakeGateway, tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.parent.mkdir(parents=True)
    path.write_text("<<<<<<< HEAD\n", "utf-8")
    with pytest.raises(PolicyRefused, match="is no cassette"):
        make().gateway.check_policy({"provider": "openai", "model": "m"}, record_mode="none", cassette=NAME)


@pytest.mark.parametrize("mode", ["none", "new_episodes"])
def test_an_entry_that_was_cut_off_is_named_and_the_others_are_replayed(
    make: MakeGateway, tmp_path: Path, mode: str
) -> None:
    recorded(make, "one", "two")
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes()[:-40])
    answers, use = run(make(), mode, "one", "two")
    assert [answer.status_code for answer in answers] == [200, 422]
    message = answers[1].json()["error"]["message"]
    assert message.startswith(f"cassette {path}: the entry of key ")
    assert message.endswith("; restore the file, or record it again with --synth-record-mode=rewrite")
    assert use.is_void


def test_what_was_recorded_is_saved_at_shutdown(make: MakeGateway, tmp_path: Path) -> None:
    served = make()
    run(served, "once", "one")
    served.stage.run(served.gateway.shutdown())
    assert "answer to one" in (tmp_path / NAME).read_text("utf-8")


def test_a_cassette_is_described(make: MakeGateway) -> None:
    served = make(prices={"openai/m-1": {"input": 100, "output": 1000}})
    assert (
        served.gateway.describe_cassette(NAME).calls,
        served.gateway.describe_cassette(NAME).cost_usd,
    ) == (0, 0.0)
    _, paid = run(served, "once", "one", "two")
    finish(served, "once")
    summary = served.gateway.describe_cassette(NAME)
    assert (summary.calls, summary.cost_usd) == (2, pytest.approx(paid.cost_usd))


def test_a_call_from_inside_is_recorded_too(make: MakeGateway) -> None:
    served = make()

    def ask(mode: str) -> tuple[dict[str, Any], RolloutUse]:
        rollout: Rollout = served.open(cassette=NAME, record_mode=mode)
        answer = served.stage.run(served.gateway.ask(rollout, chat("reflect")))
        return answer, served.gateway.close_rollout(rollout)

    first, _ = ask("once")
    again, use = ask("none")
    assert again == first
    assert use.replayed == 1


def test_a_cassette_that_cannot_be_written_is_told_at_the_end_of_the_job_and_tried_again(
    make: MakeGateway, tmp_path: Path
) -> None:
    served = make()
    (tmp_path / "evals").write_text("in the way", "utf-8")
    run(served, "once", "one")
    with pytest.raises(CassetteError) as failed:
        finish(served, "once")
    assert str(failed.value) == f"cannot write the cassette {tmp_path / NAME}: Not a directory"
    (tmp_path / "evals").unlink()
    assert finish(served, "once").entries == 1
    assert "answer to one" in (tmp_path / NAME).read_text("utf-8")


@pytest.mark.parametrize("mode", ["all", "rewrite"])
def test_what_was_made_anew_answers_the_equal_calls_of_the_run(make: MakeGateway, mode: str) -> None:
    recorded(make, "same")
    served = make()
    for seed in (1, 2):
        run(served, mode, "same", seed=seed)
    assert len(served.provider.seen) == 1


def test_a_rewrite_that_records_nothing_loses_nothing(make: MakeGateway) -> None:
    recorded(make, "one", "two")
    served = make()
    served.provider.reply = lambda body: (400, {}, "bad")
    run(served, "rewrite", "one", "two")
    assert (finish(served, "rewrite").dropped, served.gateway.describe_cassette(NAME).calls) == (0, 2)


def test_the_number_of_an_equal_call_is_the_lowest_that_is_free(make: MakeGateway) -> None:
    live = LiveRollout(spec=None, target=None)  # type: ignore[arg-type]
    assert [live.take_repeat("k") for _ in range(3)] == [0, 1, 2]
    live.give_back_repeat("k", 1)
    assert [live.take_repeat("k"), live.take_repeat("k"), live.take_repeat("other")] == [1, 3, 0]
