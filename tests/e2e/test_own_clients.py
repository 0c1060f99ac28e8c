"""The clients of clients/, against the server."""

import pathlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

CLIENTS = pathlib.Path("clients")


@pytest.fixture(scope="module")
def package(stubs):
    """bullpen_client from the source tree, with the stubs made for this run."""
    sys.path.insert(0, str(CLIENTS.resolve() / "python"))
    import bullpen_client
    return bullpen_client


@pytest.fixture(scope="module")
def client(package, server):
    with package.Client(server.grpc_target, timeout=60) as client:
        yield client


def greedy(package, **options):
    return package.Options(sampling=package.Sampling(temperature=0), **options)


def test_python_streams_and_completes_alike(package, client, server):
    options = greedy(package, max_tokens=24, logprobs=2)
    parts = list(client.stream("In the beginning", options))
    whole = client.complete("In the beginning", options)
    assert [part.finish is None for part in parts] == [True] * (len(parts) - 1) + [False]
    assert "".join(part.text for part in parts) == whole.text
    assert whole.finish.completion_tokens == len(whole.tokens) == 24
    assert whole.finish.reason == "length"
    assert all(token.logprob == max(token.top_logprobs.values()) for token in whole.tokens)
    http = server.complete("In the beginning", max_tokens=24, temperature=0).json()
    assert whole.text == http["choices"][0]["text"]


def test_python_takes_ids_and_chats(package, client):
    ids = client.tokenize("In the beginning")
    assert client.detokenize(ids) == "In the beginning"
    options = greedy(package, max_tokens=8)
    by_text = client.complete("In the beginning", options)
    assert client.complete(ids, options).tokens == by_text.tokens
    chat = [{"role": "user", "content": "What is a bird?"}]
    assert client.complete(chat, options).text


def test_python_threads_share_a_client(package, client):
    options = greedy(package, max_tokens=16)
    with ThreadPoolExecutor(8) as pool:
        texts = set(pool.map(lambda _: client.complete("The", options).text, range(16)))
    assert len(texts) == 1


def test_python_cancels_by_leaving_the_loop(package, client, server):
    for _ in client.stream("The", greedy(package, max_tokens=4000, ignore_eos=True)):
        break
    server.wait_idle()


def test_python_reports_facts_and_errors(package, client):
    assert client.model().experts == 32
    cache = client.expert_cache()
    assert len(cache.layers) == 8 and cache.layers[0].slots > 0
    with pytest.raises(package.BullpenError, match="max_tokens") as error:
        client.complete("x", package.Options(max_tokens=-1))
    assert error.value.code == grpc.StatusCode.INVALID_ARGUMENT
    with package.Client("127.0.0.1:1", timeout=5) as nowhere:
        with pytest.raises(package.BullpenError) as error:
            nowhere.model()
    assert error.value.code == grpc.StatusCode.UNAVAILABLE


def test_cpp_example_prints_what_http_gives(pytestconfig, server):
    example = pytestconfig.getoption("--cpp-client")
    result = subprocess.run([example, server.grpc_target, "In the beginning", "24"],
                            capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    http = server.complete("In the beginning", max_tokens=24, temperature=0).json()
    assert result.stdout == http["choices"][0]["text"] + "\n"
    refused = subprocess.run([example, server.grpc_target, "x", "-1"],
                             capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1
    assert "INVALID_ARGUMENT" in refused.stderr and "max_tokens" in refused.stderr
