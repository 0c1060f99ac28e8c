"""The subcommands and their exit codes: 0 done, 1 failed, 2 bad usage or input."""

import json
import pathlib

import numpy
import pytest
import safetensors.numpy


def test_help_and_version_answer(run_bullpen):
    help_text = run_bullpen("--help")
    assert help_text.returncode == 0
    for command in ("serve", "generate", "chat", "pack", "tokenize", "logits", "perplexity"):
        assert command in help_text.stdout
        own = run_bullpen(command, "--help")
        assert own.returncode == 0 and own.stdout
    version = run_bullpen("--version")
    assert version.returncode == 0 and version.stdout.strip()


@pytest.mark.parametrize("arguments", [
    [], ["nonsense"], ["serve", "--no-such-flag"], ["serve", "--port", "70000"],
    ["serve", "--port", "x"], ["serve", "--threads", "-1"], ["serve", "--isa", "sse9"],
    ["serve", "--numa", "numactl"],
    ["serve", "--memory", "lots"], ["serve", "--kv-type", "q1"], ["pack"],
    ["pack", "models/default"], ["perplexity", "models/default"],
    ["pack", "models/default", "-o", "no/such", "--calibrate", "README.md"],
    ["perplexity", "models/default", "--text", "no/such/text"],
    ["perplexity", "models/default", "--text", "README.md", "--window", "1"],
    ["logits", "models/default", "--ids", "1"],
    ["logits", "models/default", "--ids", "1,x", "--out", "/dev/null"],
    ["logits", "models/default", "--ids", "8192", "--out", "/dev/null"]])
def test_bad_usage_exits_with_2_and_says_why(run_bullpen, cache_dir, arguments):
    result = run_bullpen(*arguments, env={"XDG_CACHE_HOME": str(cache_dir)})
    assert result.returncode == 2, result.stdout + result.stderr
    assert result.stderr.strip()


def test_a_missing_model_exits_with_1_or_2_and_names_it(run_bullpen, tmp_path):
    for command in (["serve", "no/such/model"], ["generate", "no/such/model", "--prompt", "x"],
                    ["pack", "no/such/model", "-o", tmp_path / "out"]):
        result = run_bullpen(*command)
        assert result.returncode in (1, 2), result.stdout + result.stderr
        assert "no/such/model" in result.stderr


def test_generate_continues_a_prompt(run_bullpen, cache_dir, server):
    result = run_bullpen("generate", "models/default", "--cache-dir", cache_dir,
                         "--prompt", "In the beginning", "--max-tokens", 24, "--temperature", 0)
    assert result.returncode == 0, result.stderr
    served = server.complete("In the beginning", max_tokens=24, temperature=0).json()
    assert served["choices"][0]["text"].strip() in result.stdout


def test_chat_answers_each_line_and_ends_with_the_input(run_bullpen, cache_dir):
    result = run_bullpen("chat", "models/default", "--cache-dir", cache_dir,
                         "--max-tokens", 16, input="What is a bird?\n")
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()


@pytest.mark.parametrize("rows", [7, 256])
def test_logits_of_a_prompt_beyond_the_original_context_are_golden(run_bullpen, cache_dir, tmp_path,
                                                                  rows):
    model = pathlib.Path("tests/golden/longrope/phimoe")
    reference = safetensors.numpy.load_file(model / "golden.safetensors")
    out = tmp_path / "out.safetensors"
    for i, prompt in enumerate(json.loads((model / "golden.json").read_text())["prompts"]):
        result = run_bullpen("logits", model, "--cache-dir", cache_dir, "--activations", "f32",
                             "--max-batch-tokens", rows,
                             "--ids", ",".join(map(str, prompt)), "--out", out)
        assert result.returncode == 0, result.stderr
        got = safetensors.numpy.load_file(out)["logits"]
        assert numpy.abs(got - reference[f"logits.{i}"]).max() <= 1e-3


def test_perplexity_is_that_of_transformers(run_bullpen, cache_dir, golden):
    reference = golden["perplexity"]
    result = run_bullpen("perplexity", "models/default", "--cache-dir", cache_dir,
                         "--text", f"models/default/{reference['file']}",
                         "--window", reference["window"], "--json")
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["scored_tokens"] == reference["scored_tokens"]
    assert answer["mean_nll"] == pytest.approx(reference["mean_nll"], abs=1e-5)
    assert answer["perplexity"] == pytest.approx(reference["perplexity"], abs=1e-3)
    words = run_bullpen("perplexity", "models/default", "--cache-dir", cache_dir,
                        "--text", f"models/default/{reference['file']}")
    assert words.stdout.startswith(f"perplexity {reference['perplexity']:.2f}")


def test_tokenize_reads_json_strings_and_writes_ids(run_bullpen, golden):
    lines = "".join(json.dumps(text) + "\n" for text in golden["texts"])
    result = run_bullpen("tokenize", "models/default", input=lines)
    assert result.returncode == 0, result.stderr
    ids = [json.loads(line) for line in result.stdout.splitlines()]
    for got, expected in zip(ids, golden["prompts"], strict=True):
        assert got[:len(expected)] == expected  # The longest text was cut to 40 ids.
    back = run_bullpen("tokenize", "models/default", "--decode", input=result.stdout)
    assert [json.loads(line) for line in back.stdout.splitlines()] == golden["texts"]


@pytest.mark.parametrize("line", ["not json", "5", '["x"]', '"open', "\xff"])
def test_tokenize_names_the_bad_line(run_bullpen, line):
    result = run_bullpen("tokenize", "models/default", input=f'"fine"\n{line}\n')
    assert result.returncode == 2
    assert "line 2" in result.stderr


def test_logits_are_golden(run_bullpen, cache_dir, golden, tmp_path):
    reference = safetensors.numpy.load_file("models/default/golden.safetensors")
    out = tmp_path / "out.safetensors"
    for i, prompt in enumerate(golden["prompts"]):
        result = run_bullpen("logits", "models/default", "--cache-dir", cache_dir,
                             "--ids", ",".join(map(str, prompt)), "--out", out, "--all")
        assert result.returncode == 0, result.stderr
        got = safetensors.numpy.load_file(out)
        assert numpy.abs(got["logits"] - reference[f"logits.{i}"]).max() <= 1e-3
        if i != 2:  # The prompt whose layers were recorded.
            continue
        for layer in range(8):
            expected = reference[f"router.{layer}.experts"]
            assert (numpy.sort(got[f"experts.{layer}"]) == numpy.sort(expected)).all()
            weights = numpy.sort(got[f"expert_weights.{layer}"])
            assert numpy.abs(weights - numpy.sort(
                reference[f"router.{layer}.weights"])).max() <= 1e-4
            assert numpy.abs(got[f"hidden.{layer}"] - reference[f"hidden.{layer}"]).max() <= 2e-3


def test_a_packed_model_serves_like_its_source(run_bullpen, start_server, tmp_path, golden):
    packed = tmp_path / "packed"
    result = run_bullpen("pack", "models/default", "-o", packed)
    assert result.returncode == 0, result.stderr
    server = start_server(model=packed)
    other = start_server()
    for prompt in golden["prompts"]:
        texts = {s.complete(prompt, max_tokens=16, temperature=0).json()["choices"][0]["text"]
                 for s in (server, other)}
        assert len(texts) == 1


def test_serve_without_a_model_serves_the_default_one(start_server):
    server = start_server("--served-model-name", "my-model", model=None)
    assert server.model_id == "my-model"
    assert server.complete("The", max_tokens=2).status_code == 200


def test_pack_calibrates_reports_and_measures(run_bullpen, cache_dir, golden, tmp_path):
    text = tmp_path / "text"
    text.write_bytes((golden_text := pathlib.Path("models/default/eval.txt")).read_bytes()[:4000])
    result = run_bullpen("pack", "models/default", "-o", tmp_path / "packed", "--experts", "q4_0",
                         "--calibrate", text, "--perplexity", golden_text, "--json",
                         "--cache-dir", cache_dir)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    kinds = {kind["name"]: kind for kind in report["kinds"]}
    assert (kinds["qkv"]["from"], kinds["qkv"]["to"]) == ("BF16", "BF16")
    down = kinds["experts.down"]
    assert (down["from"], down["to"], down["tensors"]) == ("BF16", "Q4_0", 8)
    assert down["packed_bytes"] == down["weights"] * 4.5 / 8
    assert 0 < down["relative_weighted_error"] < down["relative_error"] < 0.12
    assert sum(tensor["name"].endswith("experts.down") for tensor in report["tensors"]) == 8
    assert report["calibration"]["tokens"] > 500
    before, after = report["perplexity"]["before"], report["perplexity"]["after"]
    assert before == pytest.approx(golden["perplexity"]["perplexity"], abs=1e-3)
    assert before * 0.97 < after < before * 1.1 and after != before
