"""`bullpen bench`: what its results say; how fast anything is, no test asserts."""

import json
import math
import os

import pytest

from conftest import ROOT

CONFIG = json.loads((ROOT / "models/default/config.json").read_text())
LAYERS, DIM, VOCAB = (CONFIG[key] for key in ("num_hidden_layers", "hidden_size", "vocab_size"))
HEADS, KV_HEADS = CONFIG["num_attention_heads"], CONFIG["num_key_value_heads"]
HEAD_DIM, INNER = CONFIG["head_dim"], CONFIG["moe_intermediate_size"]
EXPERTS, TOP_K = CONFIG["num_experts"], CONFIG["num_experts_per_tok"]

# Weights by the shapes in the model's config: of a layer outside its experts,
# of an expert, and of the head, which is the embedding.
ATTENTION = DIM * (HEADS + 2 * KV_HEADS) * HEAD_DIM + HEADS * HEAD_DIM * DIM + EXPERTS * DIM
NORMS = 2 * DIM + 2 * HEAD_DIM
EXPERT = 3 * INNER * DIM
HEAD = VOCAB * DIM


@pytest.fixture(scope="module")
def bench(run_bullpen, cache_dir, tmp_path_factory):
    def run(command, *arguments):
        file = tmp_path_factory.mktemp("bench") / "result.json"
        result = run_bullpen("bench", command, *arguments, "--json", file,
                             env={"XDG_CACHE_HOME": str(cache_dir)}, timeout=120)
        assert result.returncode == 0, result.stderr
        return json.loads(file.read_text()), result.stdout
    return run


def check_machine(result, printed):
    machine = result["machine"]
    assert machine["cpu"] and machine["cpu"] in printed
    assert machine["cpus"] >= 1 and len(machine["load_average"]) == 3
    assert machine["commit"] and machine["time"].endswith("Z")


def test_decode_counts_the_bytes_of_a_token(bench):
    result, printed = bench("decode", "--context", 64, "--sequences", "1,3", "--seconds", 0.05,
                            "--threads", 2)
    check_machine(result, printed)
    assert result["threads"] == 2 and result["all_experts_in_memory"]
    one, three = result["lines"]
    assert (one["sequences"], three["sequences"]) == (1, 3)
    assert one["experts_per_layer"] == TOP_K <= three["experts_per_layer"] <= 3 * TOP_K
    weights = LAYERS * (2 * ATTENTION + 4 * NORMS) + 4 * DIM + 2 * HEAD
    experts = LAYERS * TOP_K * 2 * EXPERT
    key_and_value = LAYERS * KV_HEADS * 2 * HEAD_DIM * 4
    # The steps stand at some of the last 32 of 64 positions.
    assert 33 <= (one["bytes_per_token"] - weights - experts) / key_and_value <= 64
    assert weights / 3 < three["bytes_per_token"] < one["bytes_per_token"]


def test_decode_sets_speeds_against_the_memory_measured_in_the_same_run(bench):
    result, _ = bench("decode", "--context", 48, "--sequences", "2", "--seconds", 0.05)
    (line,), (engine,) = result["lines"], result["engine"]
    assert result["dram_bytes_per_second_1_thread"] > 0
    ratio = line["tokens_per_second"] * line["bytes_per_token"] / line["dram_bytes_per_second"]
    assert math.isclose(line["share_of_roofline"], ratio, rel_tol=1e-6)
    # This model fits in some caches, which read faster than memory.
    assert 0 < line["share_of_roofline"] < 20 and 0 < line["median_share_of_pairs"] < 20
    assert 0 <= engine["outside_kernels_share"] < 1
    assert engine["tokens_per_second"] > 0
    assert engine["outside_kernels_us_per_step"] < 1000 * engine["step_ms"]


def test_prefill_counts_the_operations_of_a_prompt(bench):
    tokens = 96
    result, printed = bench("prefill", "--prompt", tokens, "--seconds", 0.05,
                            "--max-batch-tokens", 64)
    check_machine(result, printed)
    keys = LAYERS * tokens * (tokens + 1) // 2
    multiply_adds = (tokens * LAYERS * (ATTENTION + TOP_K * EXPERT) + HEAD
                     + keys * HEADS * 2 * HEAD_DIM)  # fmt: skip
    assert math.isclose(result["operations_per_token"], 2 * multiply_adds / tokens, rel_tol=1e-9)
    assert result["chunk_tokens"] == 64 and result["prompts"] >= 3
    assert "f32_fma" in result["peaks"] and len(result["peaks"]) == 2
    for peak in result["peaks"].values():
        assert 0 < peak["share"] < 1
        assert math.isclose(peak["share"] * peak["operations_per_second"],
                            result["operations_per_second"], rel_tol=1e-6)


def test_kernels_are_set_against_the_limits_of_the_same_run(bench):
    result, printed = bench("kernels", "--filter", "matmul/Q4_K,grouped_ffn/BF16,heads:32/4",
                            "--rows", "1,3,600", "--threads", "1,2", "--seconds", 0.001)
    check_machine(result, printed)
    assert [limit["threads"] for limit in result["limits"]] == [1, 2]
    isas = {line["isa"] for line in result["lines"]}
    for limit in result["limits"]:
        assert limit["dram_bytes_per_second"] > 0
        # Between two threads that have a CPU each.
        two = limit["threads"] == 2 and len(os.sched_getaffinity(0)) >= 2
        assert ("hand_over_seconds" in limit) == two
        assert not two or 1e-9 < limit["hand_over_seconds"] < 1e-4
        assert all(rate > 0 for isa in isas for rate in limit[isa].values())
    measured = {(line["op"], line["type"], line["shape"], line["rows"], line["isa"],
                 line["threads"]) for line in result["lines"]}  # fmt: skip
    assert {line["activations"] for line in result["lines"] if line["type"] == "Q4_K"} == {"int8"}
    assert {line["activations"] for line in result["lines"] if line["type"] != "Q4_K"} == {"f32"}
    kv_types = {line["type"] for line in result["lines"] if line["op"] == "attention"}
    assert {kv_type.upper() for kv_type in kv_types} >= {"F32", "F16"}
    attention = [("attention", kv_type, f"context:{context},heads:32/4,dim:128")
                 for kv_type in kv_types for context in (512, 4096)]
    asked = [("matmul", "Q4_K", "1024x2048"), ("grouped_ffn", "BF16", "2048x768"), *attention]
    assert measured == {(*what, rows, isa, threads) for what in asked for rows in (1, 3, 600)
                        for isa in isas for threads in (1, 2)
                        if rows <= 512 or "context:512," not in what[2]}  # fmt: skip
    for line in result["lines"]:
        assert line["share_of_limit"] >= max(line["share_of_dram"], line["share_of_peak"]) * 0.999
        assert 0 < line["share_of_limit"] < 20 and 0 < line["median_share_of_pairs"] < 20
    one = next(line for line in result["lines"] if line["op"] == "matmul" and line["rows"] == 3)
    seconds = one["microseconds"] * 1e-6
    assert math.isclose(one["operations_per_second"] * seconds, 2 * 3 * 1024 * 2048, rel_tol=1e-6)


@pytest.mark.parametrize("arguments, names", [
    (["kernels", "--filter", "matmul/Q9"], "matmul/Q9"),
    (["kernels", "--rows", "0"], "--rows"),
    (["kernels", "--threads", "0"], "--threads"),
    (["kernels", "--isa", "sse9"], "sse9"),
    (["kernels", "--activations", "int4"], "int4"),
    (["decode", "--sequences", "0"], "--sequences"),
    (["decode", "--sequences", "1,x"], "--sequences"),
    (["decode", "--seconds", "0"], "--seconds"),
    (["decode", "--context", "5000"], "5000"),
    (["decode", "--context", "-1"], "--context"),
    (["decode", "--isa", "sse9"], "sse9"),
    (["decode", "--kv-type", "q1"], "q1"),
    (["decode", "no/such/model"], "no/such/model"),
    (["prefill", "--prompt", "0"], "--prompt"),
    (["prefill", "--prompt", "5000"], "5000"),
    (["shape", "olmoe", "-o", "/dev/null/x", "--resident-type", "Q1_K"], "Q1_K"),
    (["decode", "--no-such-flag"], "--no-such-flag")])
def test_bad_usage_is_named(run_bullpen, cache_dir, arguments, names):
    result = run_bullpen("bench", *arguments, env={"XDG_CACHE_HOME": str(cache_dir)})
    assert result.returncode == 2, result.stdout + result.stderr
    assert names in result.stderr


def test_a_report_that_cannot_be_written_is_an_error(run_bullpen, cache_dir):
    result = run_bullpen("bench", "prefill", "--prompt", 8, "--seconds", 0.05,
                         "--json", "no/such/place.json",
                         env={"XDG_CACHE_HOME": str(cache_dir)})
    assert result.returncode == 1 and "no/such/place.json" in result.stderr


def test_transfer_sets_the_queue_against_plain_reads(bench, run_bullpen, tmp_path):
    packed = tmp_path / "packed"
    assert run_bullpen("pack", ROOT / "models/default", "-o", packed).returncode == 0
    result, printed = bench("transfer", packed, "--seconds", 0.05, "--transfer-threads", 3)
    check_machine(result, printed)
    assert result["threads"] == 3
    assert 2 * EXPERT <= result["expert_bytes"] < 2 * EXPERT + 4096
    for way in result["plain"], result["queue"]:
        assert 0 < way["mean_bytes_per_second"] <= way["best_bytes_per_second"]
        assert way["cpu_seconds_per_gb"] > 0
