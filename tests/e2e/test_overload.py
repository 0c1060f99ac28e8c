"""Clients that hang up, come all at once, or read slowly."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import openai
import pytest

from bullpen_server import wait_until
from http_wire import Stream


def test_a_storm_of_hang_ups_leaves_nothing_behind(server):
    """100 clients leave at random: before, in and after prefill, in decode."""
    seed = 1234
    choices = random.Random(seed)
    plans = [(choices.choice([1, 40, 400]), choices.choice([0, 0, 1, 3, 20]),
              choices.random() < 0.5) for _ in range(100)]

    def client(plan):
        prompt_tokens, events, reset = plan
        stream = Stream(server, prompt=[556] * prompt_tokens, max_tokens=2000)
        try:
            if events and stream.start() == 200:
                for _ in zip(range(events), stream.events()):
                    pass
        finally:
            stream.hang_up(reset)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(client, plans))
    server.wait_idle(60)
    assert server.complete("The", max_tokens=4).status_code == 200
    assert server.metric("bullpen_requests_finished_total", reason="cancelled") > 0


def test_cancelling_one_request_does_not_touch_another(server):
    expected = server.complete("In the beginning", max_tokens=200, temperature=0,
                               ignore_eos=True).json()["choices"][0]["text"]
    with ThreadPoolExecutor(1) as pool:
        kept = pool.submit(lambda: server.complete(
            "In the beginning", max_tokens=200, temperature=0, ignore_eos=True).json())
        for _ in range(10):
            stream = Stream(server, max_tokens=500)
            stream.start()
            next(stream.events())
            stream.hang_up(reset=True)
        assert kept.result()["choices"][0]["text"] == expected
    server.wait_idle()


def test_a_burst_gets_only_200_or_429_and_a_retry_hint(start_server):
    server = start_server("--max-queue", 4, "--max-sequences", 2)
    model = server.model_id

    def one(_):
        return server.post("/v1/completions", {"model": model, "prompt": "The", "max_tokens": 200,
                                               "ignore_eos": True})
    with ThreadPoolExecutor(48) as pool:
        answers = list(pool.map(one, range(48)))
    statuses = sorted({answer.status_code for answer in answers})
    assert statuses == [200, 429]
    # Two run at once and four wait.
    assert sum(a.status_code == 200 for a in answers) >= 6
    for answer in answers:
        if answer.status_code == 429:
            assert float(answer.headers["retry-after"]) > 0
            assert answer.json()["error"]["code"] == "queue_full"
    server.wait_idle()
    rejected = server.metric("bullpen_requests_rejected_total", reason="queue_full")
    assert rejected == sum(a.status_code == 429 for a in answers)


def test_a_full_queue_is_a_rate_limit_error_and_resource_exhausted(start_server, stubs):
    server = start_server("--max-queue", 1, "--max-sequences", 1)
    streams = [Stream(server, max_tokens=4000)]
    try:
        # The first must have left the queue before the second fills it.
        wait_until(lambda: server.metric("bullpen_requests_running") == 1, 10, "a running request")
        streams.append(Stream(server, max_tokens=4000))
        wait_until(lambda: server.metric("bullpen_requests_waiting") == 1, 10, "a full queue")
        with pytest.raises(openai.RateLimitError):
            server.openai().completions.create(model=server.model_id, prompt="The")
        with pytest.raises(openai.RateLimitError):
            server.openai().completions.create(model=server.model_id, prompt=["The", "A"])
        with grpc.insecure_channel(server.grpc_target) as channel:
            with pytest.raises(grpc.RpcError) as error:
                list(stubs[1].InferenceStub(channel).Generate(
                    stubs[0].GenerateRequest(prompt="The")))
        assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    finally:
        for stream in streams:
            stream.hang_up()
    server.wait_idle()


def test_more_requests_than_sequences_all_finish(server):
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda i: server.complete(
            "A bird is", max_tokens=24, temperature=0, ignore_eos=True).json(), range(32)))
    assert {a["choices"][0]["finish_reason"] for a in answers} == {"length"}
    assert len({a["choices"][0]["text"] for a in answers}) == 1


def test_a_reader_that_stalls_does_not_stall_others(server):
    slow = Stream(server, max_tokens=3000, receive_buffer=4096)
    assert slow.start() == 200
    done = threading.Event()

    def fast():
        stream = Stream(server, max_tokens=300)
        assert stream.outcome() == "length"
        done.set()
    reader = threading.Thread(target=fast, daemon=True)
    reader.start()
    assert done.wait(30), "the fast reader waits for the slow one"
    assert slow.outcome_of_rest() == "length", "the slow reader gets everything in the end"
    server.wait_idle()


def test_work_ends_when_a_whole_answer_is_not_waited_for(server):
    """A client that closes while its non-streamed answer is computed."""
    stream = Stream(server, max_tokens=4000, stream=False)
    wait_until(lambda: server.metric("bullpen_requests_running") == 1, 10, "the request runs")
    stream.hang_up()
    server.wait_idle(5)
