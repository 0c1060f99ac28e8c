"""A budget, a thread count, an instruction set may change the time, never the
tokens: served ids are compared with those of the full-memory server."""

import pathlib

import grpc
import pytest

EXPERTS = 8 * 32  # of the default model: layers x experts


def cpu_has(flag):
    return flag in pathlib.Path("/proc/cpuinfo").read_text().split()


def served_ids(server, stubs, golden):
    """Greedy and sampled ids of several prompts, alone and beside each other."""
    messages = stubs[0]
    requests = []
    for i, prompt in enumerate(golden["prompts"]):
        for sampling in (messages.SamplingParams(temperature=0),
                         messages.SamplingParams(temperature=0.9, top_p=0.95, seed=100 + i)):
            requests.append(messages.GenerateRequest(
                prompt_ids=messages.TokenIds(ids=prompt), ignore_eos=True, max_tokens=40,
                sampling=sampling))
    with grpc.insecure_channel(server.grpc_target) as channel:
        inference = stubs[1].InferenceStub(channel)

        def ids(call):
            return [token.id for answer in call for token in answer.tokens]
        alone = [ids(inference.Generate(request, timeout=120)) for request in requests]
        calls = [inference.Generate(request, timeout=120) for request in requests]
        assert [ids(call) for call in calls] == alone, "a batch changed tokens"
    return alone


@pytest.fixture(scope="module")
def expected(server, stubs, golden):
    return served_ids(server, stubs, golden)


@pytest.fixture(scope="module")
def expert_bytes(server):
    return server.expert_bytes()


@pytest.mark.parametrize("percent", [10, 25, 50, 100])
def test_any_budget_gives_the_same_ids(start_server, stubs, golden, expected, expert_bytes, percent):
    slots = EXPERTS * percent // 100
    server = start_server("--expert-memory", slots * expert_bytes)
    layers = server.get("/v1/experts").json()["layers"]
    assert sum(layer["slots"] for layer in layers) <= slots
    assert served_ids(server, stubs, golden) == expected
    layers = server.get("/v1/experts").json()["layers"]
    assert all(layer["resident"] <= layer["slots"] for layer in layers)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_any_thread_count_gives_the_same_ids(start_server, stubs, golden, expected, threads):
    assert served_ids(start_server("--threads", threads), stubs, golden) == expected


@pytest.mark.parametrize("isa, flags", [
    ("oracle", []), ("avx2", ["avx2", "fma"]), ("avx512", ["avx512f", "avx512bw"])])
def test_any_instruction_set_gives_the_same_ids(start_server, stubs, golden, expected, isa, flags):
    if not all(map(cpu_has, flags)):
        pytest.skip(f"this CPU has no {isa}")
    assert served_ids(start_server("--isa", isa), stubs, golden) == expected


@pytest.mark.parametrize("arguments", [
    ["--max-batch-tokens", 7], ["--max-batch-tokens", 1, "--max-sequences", 1],
    ["--max-sequences", 16]])
def test_any_batching_gives_the_same_ids(start_server, stubs, golden, expected, arguments):
    assert served_ids(start_server(*arguments), stubs, golden) == expected


def test_scarce_kv_memory_gives_the_same_ids(start_server, stubs, golden, expected):
    """Blocks for less than two of the eight requests that run at a time: some
    wait, some are computed again."""
    server = start_server("--context", 96, "--kv-memory", "1MiB", "--max-sequences", 8)
    assert served_ids(server, stubs, golden) == expected
    server.wait_idle()
