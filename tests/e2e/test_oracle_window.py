"""/metrics says how far the expert cache is from the best there could be."""

import pytest


@pytest.fixture(scope="module")
def quarter(launch, server):
    return launch("--expert-memory", 8 * 8 * server.expert_bytes(), "--prefetch", "off",
                  "--policy", "lru", "--oracle-window", 64)


def hit_ratio(server, rule):
    return server.metric("bullpen_expert_cache_oracle_hit_ratio", rule=rule)


def test_live_lru_is_lru_and_belady_is_above_it(quarter):
    assert hit_ratio(quarter, "belady") == 0
    answer = quarter.complete("In the beginning", max_tokens=200, temperature=0, ignore_eos=True)
    assert answer.status_code == 200
    live, lru, segment, belady = (hit_ratio(quarter, rule)
                                  for rule in ("live", "lru", "segment", "belady"))
    assert live == lru
    assert 0.2 < lru < segment <= belady < 1
    for layer in range(8):
        assert 0 < quarter.metric("bullpen_expert_segment_routing_ratio", layer=str(layer)) < 1
        assert 0 < quarter.metric("bullpen_expert_segment_cache_hit_ratio", layer=str(layer)) < 1


def test_the_window_may_be_off_but_not_endless(start_server, run_bullpen):
    server = start_server("--oracle-window", 0)
    assert "oracle_hit_ratio{" not in server.get("/metrics").text
    result = run_bullpen("generate", "models/default", "--prompt", "x",
                         "--oracle-window", "4097")
    assert result.returncode == 2
    assert "oracle-window" in result.stderr and "4096" in result.stderr
