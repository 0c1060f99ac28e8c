"""What keeps the server from starting is said clearly, with a non-zero exit."""

import json
import resource
import socket
import subprocess

import pytest

from model_files import DEFAULT, changed_model, config_with, weights_with_header


def refusal(server, *words):
    """Waits for the end of a server that must not start; its words."""
    assert server.wait(60) in (1, 2), server.log
    for word in words:
        assert word in server.log, f"{word!r} is not in:\n{server.log}"
    assert "terminate called" not in server.log and "CHECK failed" not in server.log


def test_a_budget_that_is_too_small_prints_the_table(start_server):
    server = start_server("--memory", "1MiB", ready=False)
    refusal(server, "resident", "KV")
    table = [line for line in server.lines if "iB" in line]
    assert len(table) >= 3, server.log
    refusal(start_server("--expert-memory", "64KiB", ready=False), "expert")
    refusal(start_server("--kv-memory", "1KiB", ready=False), "KV")


@pytest.mark.parametrize("flag", ["--port", "--grpc-port"])
def test_a_port_in_use_is_named(binary, cache_dir, flag):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ports = {"--port": 0, "--grpc-port": 0, flag: port}
        arguments = [str(part) for pair in ports.items() for part in pair]
        result = subprocess.run([binary, "serve", "models/default", "--cache-dir", str(cache_dir),
                                 *arguments], capture_output=True, text=True, timeout=60)
    assert result.returncode == 1, result.stderr
    assert str(port) in result.stderr


def test_a_cache_directory_that_cannot_be_written_is_named(start_server, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    for cache in (file / "cache", "/proc/bullpen"):
        refusal(start_server(cache_dir=cache, ready=False), str(cache))


def test_a_full_disk_fails_the_pack_and_leaves_no_model(binary, tmp_path):
    def limit_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, 4 << 20))
    result = subprocess.run([binary, "pack", "models/default", "-o", str(tmp_path / "packed")],
                            capture_output=True, text=True, timeout=60,
                            preexec_fn=limit_files, restore_signals=False)
    assert result.returncode == 1, result.stderr
    assert str(tmp_path) in result.stderr
    assert not (tmp_path / "packed").exists()


def truncated():
    return (DEFAULT / "model.safetensors").read_bytes()[:20_000_000]


def overlapping():
    def edit(header):
        names = sorted(name for name in header if name != "__metadata__")
        same = [n for n in names if header[n]["shape"] == header[names[1]]["shape"]]
        header[same[0]]["data_offsets"] = header[same[1]]["data_offsets"]
    return weights_with_header(edit)


def beyond_the_end():
    def edit(header):
        name = max((n for n in header if n != "__metadata__"),
                   key=lambda n: header[n]["data_offsets"][1])
        header[name]["data_offsets"] = [o + 4096 for o in header[name]["data_offsets"]]
    return weights_with_header(edit)


def wrong_shape():
    def edit(header):
        header["model.norm.weight"]["shape"] = [128]
    return weights_with_header(edit)


def overflowing_shape():
    def edit(header):
        header["model.norm.weight"]["shape"] = [2**32, 2**32]
    return weights_with_header(edit)


def wrong_type():
    def edit(header):
        header["model.norm.weight"]["dtype"] = "I64"
    return weights_with_header(edit)


def missing_tensor():
    def edit(header):
        return {name: value for name, value in header.items() if name != "model.norm.weight"}
    return weights_with_header(edit)


def huge_header():
    return b"\xff" * 7 + b"\x7f" + b"{}"


@pytest.mark.parametrize("weights", [
    truncated, overlapping, beyond_the_end, wrong_shape, overflowing_shape, wrong_type,
    missing_tensor, huge_header, lambda: b"", lambda: b"\0" * 8, lambda: b"\2" + b"\0" * 7 + b"{]",
], ids=["truncated", "overlapping", "beyond_the_end", "wrong_shape", "overflowing_shape",
        "wrong_type", "missing_tensor", "huge_header", "empty", "no_header", "no_json"])
def test_broken_weights_are_refused_by_name(run_bullpen, tmp_path, weights):
    model = changed_model(tmp_path / "model", **{"model.safetensors": weights()})
    result = run_bullpen("pack", model, "-o", tmp_path / "packed")
    assert result.returncode in (1, 2), result.stderr
    assert "model.safetensors" in result.stderr or "model.norm.weight" in result.stderr
    assert not (tmp_path / "packed").exists()


@pytest.mark.parametrize("changes, word", [
    ({"model_type": "perceiver"}, "perceiver"), ({"model_type": None}, "model_type"),
    ({"num_experts": -1}, "num_experts"), ({"num_experts_per_tok": 33}, "num_experts_per_tok"),
    ({"hidden_size": 2**40}, "hidden_size"), ({"hidden_size": "big"}, "hidden_size"),
    ({"num_hidden_layers": 0}, "num_hidden_layers"), ({"num_hidden_layers": 9}, "layers.8"),
    ({"vocab_size": 9000}, "embed"), ({"hidden_act": "snake"}, "hidden_act")])
def test_a_config_that_cannot_be_served_names_the_field(run_bullpen, tmp_path, changes, word):
    model = changed_model(tmp_path / "model", **{"config.json": config_with(**changes)})
    result = run_bullpen("pack", model, "-o", tmp_path / "packed")
    assert result.returncode in (1, 2), result.stderr
    assert word in result.stderr


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "model.safetensors"])
def test_a_missing_file_is_named(start_server, tmp_path, name):
    model = changed_model(tmp_path / "model", without=[name])
    refusal(start_server(model=model, cache_dir=tmp_path / "cache", ready=False), name)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
                                  "generation_config.json", "model.safetensors"])
def test_a_link_to_nothing_is_named_where_it_is(start_server, tmp_path, name):
    model = changed_model(tmp_path / "model", without=[name])
    (model / name).symlink_to("gone")
    refusal(start_server(model=model, cache_dir=tmp_path / "cache", ready=False), str(model / name))


@pytest.mark.parametrize("name, content", [
    ("tokenizer.json", b"{"), ("tokenizer.json", b'{"model": {"type": "Cuneiform"}}'),
    ("config.json", b"[]"), ("config.json", b"{" * 100_000),
    ("generation_config.json", b'{"temperature": "warm"}')])
def test_a_broken_json_file_is_named(start_server, tmp_path, name, content):
    model = changed_model(tmp_path / "model", **{name: content})
    refusal(start_server(model=model, cache_dir=tmp_path / "cache", ready=False), name)


def test_a_template_that_does_not_parse_costs_only_the_chat_endpoint(start_server, tmp_path):
    config = json.loads((DEFAULT / "tokenizer_config.json").read_text())
    config["chat_template"] = "{% for %}"
    model = changed_model(tmp_path / "model",
                          **{"tokenizer_config.json": json.dumps(config).encode()})
    server = start_server(model=model, cache_dir=tmp_path / "cache")
    chat = server.post("/v1/chat/completions", {
        "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2})
    assert 400 <= chat.status_code < 500, chat.text
    assert "template" in chat.json()["error"]["message"]
    assert server.complete("The", max_tokens=2).status_code == 200


def test_a_template_gets_tools_and_switches_and_fails_in_its_own_words(start_server, tmp_path):
    config = json.loads((DEFAULT / "tokenizer_config.json").read_text())
    config["chat_template"] = (
        "{{ raise_exception((tools | tojson) ~ (messages[0].tool_calls | tojson)"
        " ~ messages[0].content ~ enable_thinking ~ reasoning_effort) }}")
    model = changed_model(tmp_path / "model",
                          **{"tokenizer_config.json": json.dumps(config).encode()})
    server = start_server(model=model, cache_dir=tmp_path / "cache")
    tools = [{"type": "function", "function": {"name": "f", "b": 1.0, "a": {"z": [], "y": None}}}]
    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    chat = server.post("/v1/chat/completions", {
        "messages": [{"role": "assistant", "content": None, "tool_calls": calls}],
        "tools": tools, "chat_template_kwargs": {"enable_thinking": False},
        "reasoning_effort": "low"})
    assert chat.status_code == 400, chat.text
    assert chat.json()["error"]["message"].endswith(
        json.dumps(tools) + json.dumps(calls) + "NoneFalselow"), chat.text


def test_hostile_templates_end_with_a_refusal(start_server, tmp_path):
    """Endless loops, huge outputs, ways out of the sandbox."""
    config = json.loads((DEFAULT / "tokenizer_config.json").read_text())
    hostile = ["{% for i in range(10**9) %}{% for j in range(10**9) %}{% endfor %}{% endfor %}",
               "{{ 'a' * 10**10 }}", "{{ ().__class__.__mro__[1].__subclasses__() }}"]
    for i, template in enumerate(hostile):
        config["chat_template"] = template
        model = changed_model(tmp_path / f"model{i}",
                              **{"tokenizer_config.json": json.dumps(config).encode()})
        server = start_server(model=model, cache_dir=tmp_path / "cache")
        chat = server.post("/v1/chat/completions", {
            "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2})
        assert chat.status_code in (400, 429, 500, 504), f"{template}: {chat.text}"
        assert server.complete("The", max_tokens=2).status_code == 200
        server.close()
