"""/metrics as Prometheus, promtool and prometheus-client read it."""

import json
import os
import pathlib
import shutil
import socket
import subprocess

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bullpen_server import wait_until


def prometheus_tool(name):
    """A program of the prometheus package: installed, or unpacked by make test."""
    unpacked = pathlib.Path("build/promtool/usr/bin") / name
    path = shutil.which(name) or (str(unpacked) if unpacked.exists() else None)
    assert path, f"{name} is missing; tools/install_packages.sh test gets it"
    return path


def test_promtool_finds_nothing_to_complain_about(server):
    server.complete("The", max_tokens=4)
    text = server.get("/metrics").text
    result = subprocess.run([prometheus_tool("promtool"), "check", "metrics"], input=text,
                            capture_output=True, text=True, timeout=30)
    assert result.returncode == 0, result.stdout + result.stderr
    assert (result.stdout + result.stderr).strip() == ""


def test_every_family_has_help_type_and_our_prefix(server):
    families = list(text_string_to_metric_families(server.get("/metrics").text))
    names = {family.name for family in families}
    assert len(families) > 20 and len(names) == len(families)
    for family in families:
        assert family.documentation, f"{family.name} has no help"
        assert family.type != "unknown", f"{family.name} has no type"
        assert family.name.startswith(("bullpen_", "vllm:", "process_")), family.name


def test_the_kv_cache_has_its_type_and_memory(server):
    bytes_per_block = server.metric("bullpen_kv_bytes", type="f32") / server.metric("bullpen_kv_blocks")
    assert bytes_per_block > 0 and bytes_per_block % 64 == 0


def test_counters_count_one_request_and_never_fall(server):
    before = server.metrics()
    assert server.complete("In the beginning", max_tokens=10, temperature=0,
                           ignore_eos=True).status_code == 200
    assert server.complete("x", max_tokens=-1).status_code == 400
    server.wait_idle()
    after = server.metrics()

    def grown(name, **labels):
        key = (name, tuple(sorted(labels.items())))
        return after.get(key, 0) - before.get(key, 0)
    assert grown("bullpen_requests_accepted_total") == 1
    assert grown("bullpen_requests_finished_total", reason="length") == 1
    assert grown("bullpen_requests_rejected_total", reason="invalid") == 1
    assert grown("bullpen_generated_tokens_total") == 10
    assert grown("bullpen_time_to_first_token_seconds_count") == 1
    assert grown("bullpen_inter_token_seconds_count") == 9
    assert grown("bullpen_http_responses_total", code="400") == 1
    for (name, labels), value in before.items():
        if name.endswith(("_total", "_count", "_bucket", "_sum")):
            assert after[(name, labels)] >= value, f"{name}{labels} fell"


def test_every_lookup_has_one_result(server):
    server.complete("The", max_tokens=4)
    lookups = sum(server.metric("bullpen_expert_cache_lookups_total", phase=phase, result=result)
                  for phase in ("decode", "prefill")
                  for result in ("resident", "prefetched", "prefetched_late", "missed"))
    layers = sum(server.metric("bullpen_expert_cache_layer_lookups_total", layer=str(layer))
                 for layer in range(8))
    assert lookups == layers > 0
    assert server.metric("bullpen_expert_slots_resident") <= server.metric("bullpen_expert_slots")


@pytest.fixture
def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_real_prometheus_scrapes_it(server, tmp_path, free_port):
    config = tmp_path / "prometheus.yml"
    config.write_text(json.dumps({
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [{"job_name": "bullpen", "static_configs": [
            {"targets": [f"127.0.0.1:{server.port}"]}]}]}))
    process = subprocess.Popen(
        [prometheus_tool("prometheus"), f"--config.file={config}",
         f"--storage.tsdb.path={tmp_path / 'data'}",
         f"--web.listen-address=127.0.0.1:{free_port}"],
        stdout=subprocess.DEVNULL, stderr=(tmp_path / "log").open("w"),
        env={**os.environ, "GOMAXPROCS": "1"})

    def scraped():
        try:
            answer = httpx.get(f"http://127.0.0.1:{free_port}/api/v1/query",
                               params={"query": 'up{job="bullpen"}'}, timeout=5)
            return [r["value"][1] for r in answer.json()["data"]["result"]] == ["1"]
        except (httpx.HTTPError, KeyError, ValueError):
            return False
    try:
        wait_until(scraped, 30, "a scrape that Prometheus calls up")
    finally:
        process.kill()
        process.wait()


def test_a_stop_string_counts_as_a_stop_in_both_protocols(server, inference, stubs):
    start = server.complete("In the beginning", max_tokens=20, temperature=0).json()
    stop = start["choices"][0]["text"][4:8]
    server.wait_idle()
    before = server.metrics()
    answer = server.complete("In the beginning", max_tokens=400, temperature=0, stop=stop).json()
    assert answer["choices"][0]["finish_reason"] == "stop"
    answers = list(inference.Generate(stubs[0].GenerateRequest(
        prompt="In the beginning", max_tokens=400, stop=[stop],
        sampling=stubs[0].SamplingParams(temperature=0)), timeout=60))
    assert answers[-1].finish.reason == stubs[0].FINISH_REASON_STOP
    server.wait_idle()
    after = server.metrics()
    for reason, count in (("stop", 2), ("cancelled", 0)):
        key = ("bullpen_requests_finished_total", (("reason", reason),))
        assert after.get(key, 0) - before.get(key, 0) == count, reason
