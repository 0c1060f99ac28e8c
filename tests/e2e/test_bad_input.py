"""Bad input gets a 4xx that names field and limit; the server lives on."""

import json
import random

import httpx
import pytest

COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module", autouse=True)
def lives_on(server):
    yield
    assert server.complete("The", max_tokens=2).status_code == 200
    server.wait_idle()


def refused(server, body, path=COMPLETIONS):
    """The error object of a request that must get a 4xx."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = server.post_bytes(path, content)
    assert 400 <= answer.status_code < 500, f"{answer.status_code}: {answer.text}"
    error = answer.json()["error"]
    assert error["message"] and error["type"]
    return error


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT, "/tokenize", "/detokenize"])
@pytest.mark.parametrize("body", [
    b"", b"{", b"nonsense", b"[]", b"3", b'"text"', b"null", b'{"prompt": "a"} x',
    b'{"prompt": "\xff\xfe"}', b'{"prompt": "a", "prompt": "b"}', b"[" * 100_000,
    b'{"prompt": ' + b"[" * 200 + b"]" * 200 + b"}", b'{"max_tokens": 1e999, "prompt": "a"}',
    b'{"prompt": "\\ud800"}'])
def test_bodies_that_are_no_proper_json_object(server, path, body):
    refused(server, body, path)


@pytest.mark.parametrize("field, value", [
    ("max_tokens", -1), ("max_tokens", 2**31), ("max_tokens", 2**64), ("max_tokens", "5"),
    ("max_tokens", 1.5), ("max_tokens", 10**9),
    ("temperature", -0.1), ("temperature", 1e30), ("temperature", "hot"), ("temperature", []),
    ("top_p", 0), ("top_p", 1.01), ("top_p", -1), ("min_p", 1.5), ("top_k", -2),
    ("top_k", 10**12), ("seed", "x"), ("seed", 2**70), ("n", 0), ("n", 10**6), ("n", -1),
    ("presence_penalty", 3), ("frequency_penalty", -3), ("repetition_penalty", 0),
    ("logprobs", -1), ("logprobs", 1000), ("logprobs", True), ("logit_bias", {"x": 1}),
    ("logit_bias", {"99999": 1}), ("logit_bias", {"5": 1000}), ("logit_bias", [1]),
    ("stop", ""), ("stop", [""]), ("stop", 5), ("stop", ["a"] * 1000), ("stop", "a" * 100_000),
    ("stop_token_ids", [99999]), ("stop_token_ids", "x"), ("stream", "yes"), ("echo", 1),
    ("stream_options", {"include_usage": True}), ("user_defined", 1), ("best_of", 4),
    ("suffix", "x"), ("guided_json", {}), ("response_format", {"type": "json_object"}),
    ("prompt_logprobs", -1)])
def test_a_bad_value_names_its_field(server, field, value):
    error = refused(server, {"prompt": "The", "max_tokens": 2, field: value})
    assert error["param"] == field or field in error["message"], error


@pytest.mark.parametrize("prompt", [
    None, 5, {}, [], [[]], [1.5], [-1], [8192], [2**40], ["a", 5], [[1], "a"], [["a"]], True,
    [[1, 2], [8192]], ["a"] * 10_000, [None]])
def test_a_bad_prompt_is_refused(server, prompt):
    error = refused(server, {"prompt": prompt, "max_tokens": 2})
    assert "prompt" in error["message"], error


@pytest.mark.parametrize("messages", [
    None, [], "hi", [5], [{}], [{"role": "user"}], [{"content": "x"}],
    [{"role": 3, "content": "x"}], [{"role": "user", "content": 5}],
    [{"role": "nobody", "content": "x"}],
    [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}]])
def test_bad_messages_are_refused(server, messages):
    refused(server, {"messages": messages, "max_tokens": 2}, CHAT)


def test_tools_that_the_template_would_drop_are_refused(server):
    said = {"role": "user", "content": "Hi"}
    tool = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
    error = refused(server, {"messages": [said], "tools": [tool]}, CHAT)
    assert error["param"] == "tools" and "does not take tools" in error["message"], error
    called = {"role": "assistant", "content": None, "tool_calls": [tool]}
    error = refused(server, {"messages": [said, called]}, CHAT)
    assert error["param"] == "messages[1].tool_calls", error
    assert "does not take tool calls" in error["message"], error
    unused = {"tools": [tool], "tool_choice": "none", "max_tokens": 2}
    assert server.post(CHAT, {"messages": [said], **unused}).status_code == 200


def test_a_prompt_beyond_the_context_is_refused_and_not_cut(server):
    error = refused(server, {"prompt": [556] * 4097, "max_tokens": 1})
    assert error["code"] == "context_length_exceeded"
    assert "maximum context length is 4096 tokens" in error["message"]
    error = refused(server, {"prompt": [556] * 4000, "max_tokens": 500})
    assert error["code"] == "context_length_exceeded"
    error = refused(server, {"messages": [{"role": "user", "content": "word " * 9000}]}, CHAT)
    assert error["code"] == "context_length_exceeded"


def test_the_whole_context_can_be_used(server):
    answer = server.complete([556] * 4090, max_tokens=6, temperature=0, ignore_eos=True)
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["total_tokens"] == 4096


def test_a_body_over_the_limit_is_a_413(start_server):
    server = start_server("--max-body", "64KiB")
    large = json.dumps({"prompt": "a" * 70_000}).encode()
    for content in (large, iter([large])):  # With Content-Length, and chunked.
        try:
            answer = server.post_bytes(COMPLETIONS, content)
            assert answer.status_code == 413
            assert "65536" in answer.json()["error"]["message"]
        except httpx.TransportError:
            pass  # Closed before all was sent: refused as well.
    assert server.complete("The", max_tokens=1).status_code == 200


def test_a_huge_string_is_tokenised_in_time(server):
    answer = server.post("/tokenize", {"prompt": "a" * 1_000_000})
    assert answer.status_code in (200, 400)
    answer = server.post("/tokenize", {"prompt": " " * 300_000 + "ü" * 100_000})
    assert answer.status_code in (200, 400)


def test_ids_out_of_the_vocabulary_are_refused(server):
    for tokens in ([8192], [-1], [2**31], ["x"], [1.5], None):
        refused(server, {"tokens": tokens}, "/detokenize")


def test_errors_use_the_names_that_the_client_used(server):
    said = {"messages": [{"role": "user", "content": "Hi"}]}
    error = refused(server, {**said, "max_completion_tokens": -1}, CHAT)
    assert error["param"] == "max_completion_tokens"
    assert error["message"].startswith("max_completion_tokens must be")
    error = refused(server, {**said, "logprobs": True, "top_logprobs": 21}, CHAT)
    assert error["param"] == "top_logprobs"
    assert error["message"].startswith("top_logprobs must be")
    error = refused(server, {"prompt": ["hello", ""], "max_tokens": 1, "add_special_tokens": False})
    assert error["param"] == "prompt[1]" and error["message"].startswith("prompt[1] is empty")


def test_what_would_take_much_memory_is_refused(server):
    error = refused(server, {"messages": [{"role": "user", "content": ""}] * 16385}, CHAT)
    assert error["param"] == "messages" and "16384" in error["message"]
    error = refused(server, {"prompt": "The", "stop": [[]] * 300_000})
    assert "262144 objects, lists and fields" in error["message"]
    error = refused(server, {"prompt": [[556] * 4000] * 32, "n": 8, "echo": True,
                             "logprobs": 20, "max_tokens": 0})
    assert error["param"] == "logprobs" and "4194304" in error["message"]


def test_what_never_fits_the_queue_is_not_worth_a_retry(start_server):
    server = start_server("--max-queue", 2, "--max-sequences", 2)
    answer = server.complete("The", n=5, max_tokens=1)
    assert answer.status_code == 400 and "retry-after" not in answer.headers
    error = answer.json()["error"]
    assert error["param"] == "n" and error["message"].endswith("at most 4 at once")
    assert server.complete("The", n=4, max_tokens=1).status_code == 200


def test_a_python_that_is_missing_is_the_servers_fault(start_server):
    server = start_server("--python", "/no/such/python")
    server.wait_for_line("warn.*no chats.*/no/such/python")
    answer = server.post(CHAT, {"messages": [{"role": "user", "content": "Hi"}]})
    assert answer.status_code == 501
    assert "/no/such/python" in answer.json()["error"]["message"]
    assert server.complete("The", max_tokens=1).status_code == 200


def test_memory_of_large_requests_that_are_refused_is_given_back(start_server):
    server = start_server()  # whose heap has not grown yet
    before = server.memory_bytes()
    for _ in range(8):
        refused(server, {"messages": [{"role": "user", "content": "a" * 20}] * 130_000}, CHAT)
    assert server.memory_bytes() - before < 32 << 20


def test_mutated_bodies_never_get_a_5xx(server):
    """Seeded edits of valid bodies: 200 or 4xx, and nothing else."""
    seed = 20260301
    random_edit = random.Random(seed)
    valid = [
        (COMPLETIONS, b'{"prompt": [556, 12], "max_tokens": 2, "temperature": 0.5, "n": 1}'),
        (COMPLETIONS, b'{"prompt": "The", "max_tokens": 2, "logprobs": 1, "echo": true}'),
        (CHAT, b'{"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}')]
    for i in range(1000):
        path, body = random_edit.choice(valid)
        body = bytearray(body)
        for _ in range(random_edit.randint(1, 3)):
            at = random_edit.randrange(len(body))
            if random_edit.random() < 0.5:
                body[at] = random_edit.choice(b'0123456789"{}[]:,-eE.ntfu \\\xc3\x00')
            else:
                del body[at]
        answer = server.post_bytes(path, bytes(body))
        assert answer.status_code < 500, f"seed {seed}, case {i}: {bytes(body)}: {answer.text}"
