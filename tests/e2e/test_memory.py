"""With memory for a quarter of the experts the process stays in its bounds."""

from concurrent.futures import ThreadPoolExecutor

import pytest

MIB = 1 << 20
# The program itself, its libraries, threads and server buffers; README.md.
BASE_BYTES = 40 * MIB


@pytest.fixture(scope="module")
def quarter(launch, server):
    return launch("--expert-memory", 8 * 8 * server.expert_bytes(), "--kv-memory", "32MiB")


def requests():
    """300 requests, by number: prompts and lengths that touch all experts."""
    for i in range(300):
        yield {"prompt": [(i * 37 + j * 101) % 8000 for j in range(1 + i * 7 % 90)],
               "max_tokens": 8 + i % 9, "temperature": 0, "ignore_eos": True}


def texts(server, bodies):
    def one(body):
        answer = server.post("/v1/completions", body)
        assert answer.status_code == 200, answer.text
        return answer.json()["choices"][0]["text"]
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(one, bodies))


def test_memory_stays_bounded_and_tokens_the_same_through_300_requests(server, quarter):
    bodies = list(requests())
    expected = texts(server, bodies)
    first = texts(quarter, bodies[:50])
    after_50 = quarter.memory_bytes()
    got = first + texts(quarter, bodies[50:])
    grown = quarter.memory_bytes() - after_50
    assert got == expected
    assert grown < 8 * MIB, f"grew by {grown} bytes from request 50 to 300"
    cache = quarter.get("/v1/experts").json()
    assert sum(layer["slots"] for layer in cache["layers"]) <= 64
    assert cache["loads"] > 300, "experts came and went"
    assert server.memory_bytes() - quarter.memory_bytes() > 12 * MIB


def test_a_total_budget_is_kept(start_server):
    budget = 64 * MIB
    server = start_server("--memory", budget)
    texts(server, list(requests())[:60])
    assert server.memory_bytes("VmHWM") <= budget * 1.05 + BASE_BYTES
