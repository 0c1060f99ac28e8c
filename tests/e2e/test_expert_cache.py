"""What operators see of the expert cache, and what they set."""

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


def test_experts_adds_up(quarter):
    quarter.complete("Of all things", max_tokens=20, temperature=0, ignore_eos=True)
    quarter.wait_idle()
    cache = quarter.get("/v1/experts").json()
    assert cache["arena_bytes"] >= sum(layer["slots"] * layer["slot_bytes"]
                                       for layer in cache["layers"])
    recent = cache["recent"]
    assert recent["lookups"] > 0
    assert recent["live"] <= recent["belady"] <= recent["lookups"]
    for layer in cache["layers"]:
        assert layer["slots"] == 8 and layer["experts"] == 32
        assert layer["slot_bytes"] % 4096 == 0 and layer["slot_bytes"] > 0
        assert layer["resident"] == len(layer["resident_experts"]) == len(layer["scores"])
        assert layer["loading"] == len(layer["loading_experts"])
        assert layer["resident"] + layer["loading"] <= layer["slots"]
        assert 0 < layer["hits"] < layer["lookups"]


def test_a_static_cache_keeps_what_past_requests_used(start_server, server, tmp_path):
    profile = tmp_path / "routing.profile"
    room = 8 * 8 * server.expert_bytes()
    prompt = "The capital of the country"
    teacher = start_server("--expert-memory", room, "--profile", profile)
    expected = teacher.complete(prompt, max_tokens=64, temperature=0, ignore_eos=True).json()

    assert teacher.terminate() == 0 and profile.exists()
    pinned = start_server("--expert-memory", room, "--profile", profile, "--policy", "static",
                          "--prefetch", "off")
    got = pinned.complete(prompt, max_tokens=64, temperature=0, ignore_eos=True).json()
    assert got["choices"][0]["text"] == expected["choices"][0]["text"]
    pinned.wait_idle()
    for layer in pinned.get("/v1/experts").json()["layers"]:
        # Shares of tokens: four of 32 are used by each, and the best are kept.
        assert sum(layer["scores"]) > 4 * 8 / 32
        assert max(layer["scores"]) <= 1


def test_a_static_cache_needs_a_profile(start_server, tmp_path):
    server = start_server("--policy", "static", ready=False)
    assert server.wait() != 0
    assert "--profile" in server.log
    server = start_server("--policy", "static", "--profile", tmp_path / "none", ready=False)
    assert server.wait() != 0
    assert "none" in server.log


def test_a_file_that_is_no_profile_is_not_overwritten(start_server, tmp_path):
    notes = tmp_path / "notes"
    notes.write_text("not to be lost")
    server = start_server("--profile", notes, ready=False)
    assert server.wait() == 2
    assert f"{notes}: is not a routing profile" in server.log
    assert notes.read_text() == "not to be lost"


def test_shared_slots_move_between_layers_and_change_no_token(start_server, server, quarter):
    room = 8 * 8 * server.expert_bytes()
    shared = start_server("--expert-memory", room, "--prefetch", "off", "--policy", "lru",
                          "--expert-slots", "shared", "--layer-floor", 5)
    prompt = "The capital of the country"
    texts = [where.complete(prompt, max_tokens=64, temperature=0, ignore_eos=True)
             .json()["choices"][0]["text"] for where in (shared, quarter)]
    assert texts[0] == texts[1]
    shared.wait_idle()
    layers = shared.get("/v1/experts").json()["layers"]
    slots = [layer["slots"] for layer in layers]
    assert sum(slots) == 64 and min(slots) >= 5 and len(set(slots)) > 1
    for number, layer in enumerate(layers):
        assert layer["resident"] + layer["loading"] <= layer["slots"]
        assert shared.metric("bullpen_expert_cache_layer_slots", layer=str(number)) == slots[number]


@pytest.mark.parametrize(("flags", "said"), [
    (("--verify-experts", "never"), ("verify_experts", "never", "always, once")),
    (("--expert-slots", "pool"), ("expert_slots", "pool", "layer, shared")),
    (("--layer-floor", 3), ("layer_floor 3", "expert_slots shared")),
    (("--expert-slots", "shared", "--layer-floor", -1), ("layer_floor -1", "0..32")),
    (("--expert-slots", "shared", "--layer-floor", 33), ("layer_floor 33", "0..32")),
    (("--expert-slots", "shared", "--layer-floor", 9), ("layer_floor 9", "64 slots", "layer 0 8")),
])
def test_a_bad_choice_about_experts_is_refused_by_name_and_limit(run_bullpen, server, flags, said):
    result = run_bullpen("generate", "models/default", "--prompt", "x", "--expert-memory",
                         str(8 * 8 * server.expert_bytes()), *map(str, flags))
    assert result.returncode == 2
    for words in said:
        assert words in result.stderr
