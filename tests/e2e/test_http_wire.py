"""Details of HTTP and of event streams that clients depend on."""

import httpx
import pytest

from http_wire import Stream, exchange, status_of


def test_a_stream_is_events_and_ends_with_done(server):
    stream = Stream(server, max_tokens=5)
    assert stream.start() == 200
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert stream.headers["cache-control"] == "no-cache"
    assert stream.headers["x-accel-buffering"] == "no"
    events = list(stream.events())
    assert events[-1] == "[DONE]"
    assert all(event["object"] == "text_completion" for event in events[:-1])
    stream.hang_up()


def test_characters_are_never_split_between_events(server):
    """Raw bytes of the stream are valid UTF-8 event by event, also when the
    sampled text is close to noise."""
    for seed in range(3):
        stream = Stream(server, max_tokens=64, temperature=5, seed=seed)
        assert stream.start() == 200
        text = "".join(event["choices"][0]["text"] for event in stream.events()
                       if event != "[DONE]")
        stream.hang_up()
        whole = server.complete("The", max_tokens=64, temperature=5, seed=seed,
                                ignore_eos=True).json()["choices"][0]["text"]
        assert text == whole


def test_every_answer_has_a_request_id(server):
    assert server.complete("The", max_tokens=1).headers["x-request-id"]
    refused = server.complete("The", max_tokens=-1)
    assert refused.status_code == 400 and refused.headers["x-request-id"]


@pytest.mark.parametrize("path", ["/health", "/ready", "/v1/models", "/metrics", "/v1/experts"])
def test_plain_gets_answer(server, path):
    assert server.get(path).status_code == 200


def test_wrong_paths_and_methods_are_refused(server):
    assert server.get("/v1/nothing").status_code == 404
    assert server.get("/v1/completions").status_code == 405
    assert server.post("/health", {}).status_code == 405
    for answer in (server.get("/v1/nothing"), server.get("/v1/completions")):
        assert answer.json()["error"]["message"]


def test_one_connection_serves_many_requests(server):
    with httpx.Client(base_url=server.url, timeout=30) as client:
        body = {"prompt": "The", "max_tokens": 2}
        answers = [client.post("/v1/completions", json=body) for _ in range(20)]
        assert [a.status_code for a in answers] == [200] * 20
        assert client.post("/v1/completions", json={"prompt": 3}).status_code == 400
        assert client.get("/health").status_code == 200


def test_a_next_request_right_behind_an_answer_is_never_lost(server):
    """A client that is as quick as the server notices that its answer is done."""
    with httpx.Client(base_url=server.url, timeout=10) as client:
        for _ in range(1000):
            for max_tokens, status in ((1, 200), (-1, 400)):
                body = {"prompt": "The", "max_tokens": max_tokens}
                assert client.post("/v1/completions", json=body).status_code == status


def test_a_chunked_request_body_is_read(server):
    def parts():
        yield b'{"prompt": "The", '
        yield b'"max_tokens": 2}'
    assert server.post_bytes("/v1/completions", parts()).status_code == 200


@pytest.mark.parametrize("request_bytes", [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET /health SMTP\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n",
    b"POST /v1/completions HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"GET /health HTTP/1.1\r\n" + b"X-Long: " + b"a" * 100_000 + b"\r\n\r\n",
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
], ids=["tls", "protocol", "negative_length", "negative_chunk", "huge_length", "huge_header",
        "huge_path"])
def test_broken_http_is_refused_and_the_server_lives(server, request_bytes):
    status = status_of(exchange(server, request_bytes))
    assert status is None or 400 <= status < 500
    assert server.get("/health").status_code == 200


def test_a_detokenized_text_is_the_tokenized_one(server):
    text = "Hello, world: naïve ☕"
    tokens = server.post("/tokenize", {"prompt": text}).json()["tokens"]
    assert server.post("/detokenize", {"tokens": tokens}).json()["prompt"] == text
