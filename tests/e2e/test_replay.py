"""`bullpen replay`: counts, sweeps and files, as a user gets them."""

import csv
import json
import os
import resource
import shutil
import subprocess
import xml.etree.ElementTree

import pytest

TRACE = "tests/golden/traces/qwen3-30b-a3b.12-layers.csv"


def replay(binary, *arguments):
    done = subprocess.run(
        [binary, "replay", TRACE, *map(str, arguments)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_one_run_is_one_json_object_whose_parts_add_up(binary):
    result = json.loads(
        replay(binary, "--json", "--policy", "lru", "--slots-per-layer", 12, "--phase", "decode",
               "--predictor", "learned", "--link-rate", "4GiB/s", "--compute-us", 1000)
    )  # fmt: skip
    parts = ("resident", "prefetched", "prefetched_late", "missed")
    assert result["lookups"] == 3600 == sum(result[part] for part in parts)
    assert result["hits"] == result["resident"] + result["prefetched"]
    assert abs(result["hit_rate"] - result["hits"] / 3600) < 1e-9
    causes = ("bytes_demand", "bytes_prefetch_used", "bytes_prefetch_wasted")
    assert result["bytes"] == sum(result[cause] for cause in causes)
    assert result["stall_seconds"] > 0 and result["tokens_per_second"] > 0
    assert result["tokens_per_second"] <= result["bound_tokens_per_second"]


def test_counts_are_those_of_an_independent_simulation(binary):
    def hits(policy, slots):
        run = ("--json", "--policy", policy, "--slots-per-layer", slots, "--phase", "decode")
        return json.loads(replay(binary, *run))["hits"]

    assert (hits("lru", 12), hits("lru", 24)) == (1695, 2334)
    assert (hits("belady", 12), hits("belady", 24)) == (2237, 2738)


def test_what_cannot_be_written_is_an_error_after_the_result(binary, tmp_path):
    for command, flag in (("replay", "--csv"), ("replay", "--svg"), ("analyze", "--plots")):
        done = subprocess.run([binary, command, TRACE, flag, "/proc/none/file"],
                              capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and "/proc/none" in done.stderr
        assert done.stdout.startswith("12 layers of 128 experts")


def test_the_trace_is_no_place_for_a_result(binary, tmp_path):
    trace = tmp_path / "trace.csv"
    shutil.copy(TRACE, trace)
    before = trace.read_bytes()
    link = tmp_path / "link.csv"
    link.symlink_to(trace)
    for flag, name in (("--csv", trace), ("--svg", link)):
        done = subprocess.run([binary, "replay", trace, flag, name], capture_output=True,
                              text=True, timeout=60)  # fmt: skip
        assert done.returncode == 2 and f"{flag} {name}" in done.stderr and not done.stdout
        assert trace.read_bytes() == before


def test_lists_make_a_sweep_with_table_and_plot(binary, tmp_path):
    table, plot = tmp_path / "sweep.csv", tmp_path / "sweep.svg"
    out = replay(binary, "--json", "--policy", "lru,crf", "--slots-per-layer", "12,24,48",
                 "--predictor", "none,oracle", "--csv", table, "--svg", plot)  # fmt: skip
    runs = json.loads(out)["runs"]
    assert len(runs) == 12
    rows = list(csv.DictReader(table.open()))
    assert [int(row["hits"]) for row in rows] == [run["hits"] for run in runs]
    again = replay(binary, "--json", "--policy", "lru", "--csv", table, "--svg", plot)
    assert json.loads(again)["policy"] == "lru" and len(table.read_text().splitlines()) == 2
    replay(binary, "--json", "--policy", "lru,crf", "--slots-per-layer", "12,24,48",
           "--predictor", "none,oracle", "--svg", plot)  # fmt: skip
    lines = xml.etree.ElementTree.parse(plot).findall("{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 5  # each policy with and without guesses, and the bound


def test_options_may_stand_before_the_trace(binary):
    for options in (("--policy", "lru"), ("--predictor", "none"), ("--slots-per-layer", "12,24"),
                    ("--expert-slots", "layer")):
        done = subprocess.run([binary, "replay", *options, TRACE, "--json"], capture_output=True,
                              text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)


def test_a_bad_value_is_named(binary):
    for flag, value in (("--slots-per-layer", 129), ("--policy", "fifo"), ("--link-rate", "fast"),
                        ("--half-life", "nan"), ("--compute-us", -1), ("--min-probability", 1.5)):
        done = subprocess.run(
            [binary, "replay", TRACE, flag, str(value)], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 2 and str(value) in done.stderr


def test_slots_may_be_shared_by_all_layers(binary):
    def runs(*flags):
        out = replay(binary, "--json", "--policy", "lru", "--slots-per-layer", 24, "--phase",
                     "decode", "--expert-slots", "layer,shared", *flags)
        return json.loads(out)["runs"]

    own, shared = runs()
    assert (own["expert_slots"], own["hits"]) == ("layer", 2334)
    assert (shared["expert_slots"], shared["layer_floor"]) == ("shared", 6)
    assert shared["hits"] != own["hits"]
    assert shared["belady_hit_rate"] >= own["belady_hit_rate"]
    own, shared = runs("--layer-floor", 24)
    assert own["hits"] == shared["hits"]


def test_a_bad_floor_is_named(binary):
    shared = ("--expert-slots", "shared", "--slots-per-layer", "12")
    for flags, said in (((*shared, "--layer-floor", "13"), "--layer-floor is 13, not 1 to 12"),
                        ((*shared, "--layer-floor", "-2"), "--layer-floor is -2, not 1 to 12"),
                        (("--layer-floor", "2"), "--layer-floor is 2 without"),
                        (("--expert-slots", "pool"), "pool")):
        done = subprocess.run(
            [binary, "replay", TRACE, *flags], capture_output=True, text=True, timeout=60
        )
        assert done.returncode != 0 and said in done.stderr


def test_recorded_routing_goes_both_ways_and_replays(binary, cache_dir, tmp_path):
    def run(*arguments):
        subprocess.run([binary, *map(str, arguments)], check=True, capture_output=True, timeout=120)

    first, table, second = tmp_path / "a.trace", tmp_path / "a.csv", tmp_path / "b.trace"
    run("generate", "--ids", "1,2,3,4,5", "--max-tokens", 12, "--ignore-eos",
        "--cache-dir", cache_dir, "--record-routing", first)  # fmt: skip
    run("trace", first, table)
    run("trace", table, second)
    assert first.read_bytes() == second.read_bytes()
    rows = [row.split(",") for row in table.read_text().splitlines() if row[0].isdigit()]
    tokens = {(row[1], row[2]) for row in rows}  # phase, step
    # The last token is given out and not computed.
    assert tokens == {("0", str(i)) for i in range(5)} | {("1", str(i)) for i in range(11)}


def test_a_servers_requests_are_turns_with_weights_of_their_own(binary, start_server, tmp_path):
    traces, table = tmp_path / "traces", tmp_path / "a.csv"
    server = start_server("--record-routing", traces)
    for _ in range(2):
        server.complete([11, 22, 33], max_tokens=2, ignore_eos=True)
    assert server.terminate() == 0
    [trace] = traces.iterdir()
    subprocess.run([binary, "trace", trace, table], check=True, capture_output=True, timeout=120)
    lines = [line for line in table.read_text().splitlines() if not line.startswith("#")]
    rows = list(csv.DictReader(lines))
    assert {row["turn"] for row in rows} == {"0", "1"}
    prompt = {row["weight"] for row in rows if row["turn"] == row["layer"] == row["slot"] == "0"
              and row["phase"] == "0"}
    assert len(prompt) == 3


def test_token_ids_are_recorded_only_where_they_are_asked_for(binary, cache_dir, tmp_path):
    def run(*arguments):
        command = [binary, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    for name, flags in (("plain", []), ("ids", ["--record-token-ids"])):
        trace, table = tmp_path / f"{name}.trace", tmp_path / f"{name}.csv"
        run("generate", "--ids", "11,22,33", "--max-tokens", 5, "--ignore-eos", "--cache-dir",
            cache_dir, "--record-routing", trace, *flags).check_returncode()  # fmt: skip
        run("trace", trace, table).check_returncode()
        done = run("replay", trace, "--json", "--predictor", "token")
        lines = [line for line in table.read_text().splitlines() if not line.startswith("#")]
        if name == "plain":
            assert "token_id" not in lines[0]
            assert done.returncode != 0 and "has no token ids" in done.stderr
            continue
        assert json.loads(done.stdout)["lookups"] > 0
        rows = list(csv.DictReader(lines))
        prompt = {(row["step"], row["token_id"]) for row in rows if row["phase"] == "0"}
        assert prompt == {("0", "11"), ("1", "22"), ("2", "33")}


def test_analysis_gives_the_figures_of_the_paper_and_plots(binary, tmp_path):
    def run(*arguments):
        command = [binary, "analyze", TRACE, "--phase", "decode", *map(str, arguments)]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout

    result = json.loads(run("--json", "--plots", tmp_path))
    assert len(result["layers"]) == 12
    whole = result["whole"]
    assert 0 < whole["srp_by_segment"]["16"]["srp"] < 1
    # An oracle of any reach hits no less with more slots.
    for by_slots in whole["sch_by_segment_and_slots"].values():
        assert list(by_slots.values()) == sorted(by_slots.values())
    for name in ("sch", "srp", "working_set", "skew", "overlap", "affinity"):
        xml.etree.ElementTree.parse(tmp_path / f"{name}.svg")
    run("--plots", tmp_path)  # over those that are there
    assert run().splitlines()[-1].split()[0] == "all"


def test_plan_says_what_memory_gives(binary, cache_dir):
    command = [binary, "plan", "--json", "--cache-dir", str(cache_dir), "--threads", "1"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    result = json.loads(done.stdout)
    rows = result["rows"]
    for key in ("memory_bytes", "hit_rate", "decode_tokens_per_second_least"):
        assert [row[key] for row in rows] == sorted(row[key] for row in rows)
    assert rows[-1]["hit_rate"] == 1
    assert result["recommended_memory"] in [row["memory_bytes"] for row in rows]
    done = subprocess.run([*command, "--kv-type", "f16"], check=True, capture_output=True,
                          text=True, timeout=120)
    f16 = json.loads(done.stdout)
    assert (result["kv_type"], f16["kv_type"]) == ("f32", "f16")
    assert f16["kv_bytes"] == result["kv_bytes"] / 2
    assert f16["rows"][0]["memory_bytes"] == rows[0]["memory_bytes"] - f16["kv_bytes"]


def test_a_server_has_the_slots_that_plan_says(binary, cache_dir, start_server):
    done = subprocess.run([binary, "plan", "--json", "--cache-dir", str(cache_dir)], check=True,
                          capture_output=True, text=True, timeout=120)
    rows = {row["slots_per_layer"]: row["memory_bytes"] for row in json.loads(done.stdout)["rows"]}

    def slots(memory):
        server = start_server("--memory", memory, "--context", 4096)
        return min(layer["slots"] for layer in server.get("/v1/experts").json()["layers"])
    assert slots(rows[8]) == 8 and slots(rows[32]) == 32
    assert slots(rows[32] - (1 << 20)) < 32


def test_plan_says_whose_hit_rates_it_takes(binary, cache_dir, tmp_path):
    def run(*arguments):
        command = [binary, *map(str, arguments), "--cache-dir", str(cache_dir)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    def plan(*flags):
        done = run("plan", "--json", "--threads", 1, *flags)
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        rates = {row["slots_per_layer"]: row["hit_rate"] for row in result["rows"]}
        return result["hit_rates_of"], rates[8]

    profile, trace = tmp_path / "routing.profile", tmp_path / "routing.trace"
    run("generate", "--prompt", "In the beginning", "--max-tokens", 64, "--ignore-eos",
        "--temperature", 0, "--expert-memory", "6MiB", "--profile", profile,
        "--record-routing", trace).check_returncode()
    assert plan() == ("even routing", 8 / 32)
    of_trace, by_trace = plan("--trace", trace)
    assert of_trace == f"the trace {trace}" and 0.25 < by_trace < 1
    of_profile, by_profile = plan("--profile", profile)
    assert of_profile == f"the profile {profile}" and 0.25 < by_profile < 1
    assert "another model (6 of 128" in plan("--trace", TRACE)[0]
    assert run("plan", "--trace", trace, "--profile", profile).returncode == 2
    done = run("plan", "--profile", TRACE)
    assert done.returncode == 2 and "routing profile" in done.stderr


def test_recorded_routing_drives_a_shaped_model(binary, tmp_path):
    model = tmp_path / "shaped"
    subprocess.run(
        [binary, "bench", "shape", "qwen3-30b-a3b", "-o", model, "--layers", "2", "--top-k", "6",
         "--vocab", "64"], check=True, capture_output=True, timeout=300)  # fmt: skip
    done = subprocess.run(
        [binary, "bench", "offload", model, "--route-from", TRACE, "--slots-per-layer", "12",
         "--threads", "1", "--context", "64", "--prefetch", "off"],
        check=True, capture_output=True, text=True, timeout=300)  # fmt: skip
    result = json.loads(done.stdout)
    assert result["machine"]["cpu"] and result["machine"]["commit"]
    assert result["routing"].startswith("recorded")
    assert result["lookups"] == 50 * 2 * 6
    assert result["slots_per_layer"] == 12
    assert (result["prefetched"], result["prefetched_late"]) == (0, 0)
    assert result["missed"] == result["lookups"] - result["hits"]

    def near(result):
        # The same rule, but for the order in which one token's experts count as used.
        return abs(result["hits"] - result["replay_hits"]) < 0.02 * result["lookups"]
    file = tmp_path / "lru.json"
    subprocess.run(
        [binary, "bench", "offload", model, "--route-from", TRACE, "--slots-per-layer", "12",
         "--threads", "1", "--context", "64", "--prefetch", "off", "--policy", "lru", "--mmap",
         "--json", file], check=True, capture_output=True, timeout=300)  # fmt: skip
    lru = json.loads(file.read_text())
    assert lru["policy"] == "lru" and lru["reads"] == "mmap"
    assert near(result) and near(lru)
    assert lru["replay_hits"] < result["replay_hits"]


def test_imitated_routers_show_the_trace_ahead(binary, tmp_path):
    model = tmp_path / "shaped"
    subprocess.run(
        [binary, "bench", "shape", "qwen3-30b-a3b", "-o", model, "--layers", "3", "--top-k", "6",
         "--vocab", "64"], check=True, capture_output=True, timeout=300)  # fmt: skip

    def guessed(*look_ahead):
        done = subprocess.run(
            [binary, "bench", "offload", model, "--route-from", TRACE, "--slots-per-layer", "12",
             "--threads", "1", "--context", "64", "--prefetch", "on", *look_ahead],
            check=True, capture_output=True, text=True, timeout=300)  # fmt: skip
        result = json.loads(done.stdout)
        return result, result["prefetched"] + result["prefetched_late"]

    seen, right = guessed("--look-ahead-recall", "1")
    assert seen["look_ahead"].startswith("imitated: 1 of")
    blind, lucky = guessed()
    assert blind["look_ahead"] == "the model's routers"
    assert right > 2 * lucky


def test_too_little_memory_is_an_error_and_no_crash(binary, tmp_path):
    def limited(*arguments):
        limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
        return subprocess.run([binary, *arguments], capture_output=True, text=True, timeout=60,
                              preexec_fn=limit)
    if limited("--version").returncode != 0:
        pytest.skip("a sanitizer wants more address space")
    trace = tmp_path / "large.csv"
    trace.touch()
    os.truncate(trace, 2 << 30)  # all hole
    done = limited("replay", str(trace))
    assert (done.returncode, done.stderr) == (1, "bullpen: out of memory\n")
