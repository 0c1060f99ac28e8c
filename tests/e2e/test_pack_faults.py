"""Packing that is killed or doubled, and packed experts that are damaged."""

import os
import signal
import subprocess
import time

import grpc
import numpy
import pytest
import safetensors.numpy

from model_files import expert_span, flip_byte

LAYER = 3


def works(run_bullpen, packed, out):
    result = run_bullpen("logits", packed, "--ids", "556", "--out", out)
    return result.returncode == 0


def test_a_killed_pack_leaves_nothing_that_looks_finished(binary, run_bullpen, tmp_path):
    """Kills it after ever longer times, until one pack outruns the kill."""
    target = tmp_path / "packed"
    out = tmp_path / "out.safetensors"
    killed = 0
    for delay_ms in range(2, 4000, 6):
        process = subprocess.Popen([binary, "pack", "models/default", "-o", str(target)],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(delay_ms / 1000)
        process.send_signal(signal.SIGKILL)
        finished = process.wait(30) == 0
        killed += not finished
        if target.exists():
            assert works(run_bullpen, target, out), "a half-written pack looks finished"
            break
        assert not finished
    assert killed > 3, "packing ended before it could be killed"
    assert target.exists(), "no pack ever finished"
    again = run_bullpen("pack", "models/default", "-o", target)
    assert again.returncode == 0, again.stderr
    assert [entry.name for entry in tmp_path.iterdir()
            if entry.is_dir()] == ["packed"], "remains of killed packs were left"


def test_a_killed_first_serve_is_packed_again(binary, start_server, tmp_path):
    cache = tmp_path / "cache"
    for delay_ms in (20, 60, 120, 200):
        server = start_server(cache_dir=cache, ready=False)
        time.sleep(delay_ms / 1000)
        server.process.kill()
        server.wait()
    server = start_server(cache_dir=cache)
    assert server.complete("The", max_tokens=4).status_code == 200


def test_two_servers_pack_the_same_model_once(start_server, tmp_path):
    cache = tmp_path / "cache"
    servers = [start_server(cache_dir=cache, ready=False) for _ in range(2)]
    answers = [server.wait_ready().complete("The", max_tokens=8, temperature=0).json()
               for server in servers]
    assert answers[0]["choices"] == answers[1]["choices"]
    packed = [path.parent for path in cache.rglob("experts*.safetensors")]
    assert len(set(packed)) == 1


def experts_of(run_bullpen, packed, ids, out):
    """The experts of LAYER that a prompt calls."""
    result = run_bullpen("logits", packed, "--ids", ",".join(map(str, ids)), "--out", out, "--all")
    assert result.returncode == 0, result.stderr
    return set(numpy.unique(safetensors.numpy.load_file(out)[f"experts.{LAYER}"]).tolist())


@pytest.fixture(scope="module")
def damaged(run_bullpen, golden, tmp_path_factory):
    """A packed model with a flipped byte in an expert that prompt 3 needs and
    prompt 0 does not."""
    folder = tmp_path_factory.mktemp("damaged")
    packed = folder / "packed"
    result = run_bullpen("pack", "models/default", "-o", packed)
    assert result.returncode == 0, result.stderr
    needs, spares = (experts_of(run_bullpen, packed, golden["prompts"][i], folder / "out")
                     for i in (3, 0))
    file, offset, size = expert_span(packed, LAYER, min(needs - spares))
    flip_byte(file, offset + size // 3)
    return packed


def test_a_flipped_byte_fails_only_the_requests_that_need_it(damaged, start_server, golden, stubs):
    server = start_server(model=damaged)
    needs, spares = golden["prompts"][3], golden["prompts"][0]
    for _ in range(2):
        assert server.complete(spares, max_tokens=1, temperature=0).status_code == 200
        answer = server.complete(needs, max_tokens=1, temperature=0)
        assert answer.status_code == 500
        assert answer.json()["error"]["code"] == "data_loss"
    assert server.metric("bullpen_expert_load_failures_total") >= 1
    with grpc.insecure_channel(server.grpc_target) as channel:
        inference = stubs[1].InferenceStub(channel)
        with pytest.raises(grpc.RpcError) as error:
            list(inference.Generate(stubs[0].GenerateRequest(
                prompt_ids=stubs[0].TokenIds(ids=needs), max_tokens=1)))
        assert error.value.code() == grpc.StatusCode.DATA_LOSS
    stream = server.post("/v1/completions", {"prompt": needs, "max_tokens": 4, "stream": True})
    assert stream.status_code == 500 or '"error"' in stream.text
    assert server.get("/health").status_code == 200
    server.wait_idle()


def test_a_damaged_resident_part_does_not_start(run_bullpen, start_server, tmp_path):
    packed = tmp_path / "packed"
    assert run_bullpen("pack", "models/default", "-o", packed).returncode == 0
    file = packed / "resident.safetensors"
    flip_byte(file, os.path.getsize(file) // 2)
    server = start_server(model=packed, ready=False)
    assert server.wait() == 1
    assert "resident.safetensors" in server.log


@pytest.mark.parametrize("name", ["resident.safetensors", "experts.safetensors", "manifest.json",
                                  "config.json"])
@pytest.mark.parametrize("fault", ["truncated", "empty", "missing"])
def test_a_broken_packed_file_is_named(run_bullpen, start_server, tmp_path, name, fault):
    packed = tmp_path / "packed"
    assert run_bullpen("pack", "models/default", "-o", packed).returncode == 0
    file = packed / name
    if fault == "missing":
        file.unlink()
    else:
        os.truncate(file, os.path.getsize(file) // 2 if fault == "truncated" else 0)
    server = start_server(model=packed, ready=False)
    assert server.wait() in (1, 2)
    error = server.lines[-1]
    if (name, fault) == ("manifest.json", "missing"):
        assert "model.safetensors" in error  # It is read as a source then.
    else:
        assert name in error or "manifest.json" in error, error
