"""`bullpen serve model.gguf` with openai-python, as its users write it."""

import pathlib
import struct

import openai
import pytest

GGUF = pathlib.Path("tests/golden/gguf_llama3/model.bf16.gguf")
PROMPT = "the end of the rest"
MESSAGES = [{"role": "user", "content": PROMPT}]
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"


def with_template(path):
    """The file with a chat template as its first key."""
    raw = GGUF.read_bytes()
    magic, version, tensors, keys = struct.unpack("<IIQQ", raw[:24])
    key = b"tokenizer.chat_template"
    # So long that what follows keeps its alignment.
    room = -(len(key) + 8 + 4 + 8 + len(TEMPLATE)) % 32
    value = (TEMPLATE + "{#" + "-" * (room + 28) + "#}").encode()
    entry = struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, len(value)) + value
    assert len(entry) % 32 == 0
    path.write_bytes(struct.pack("<IIQQ", magic, version, tensors, keys + 1) + entry + raw[24:])
    return path


@pytest.fixture(scope="module")
def server(launch):
    return launch(model=str(GGUF))


@pytest.fixture(scope="module")
def chat_server(launch, tmp_path_factory):
    return launch(model=str(with_template(tmp_path_factory.mktemp("gguf") / "chat.gguf")))


def text_of_generate(run_bullpen, server, cache_dir, prompt, tokens):
    """What the command line gives, as the server spells those tokens."""
    result = run_bullpen("generate", GGUF, "--cache-dir", cache_dir, "--prompt", prompt,
                         "--max-tokens", tokens, "--temperature", 0, "--print-ids")
    assert result.returncode == 0, result.stderr
    ids = [int(part) for part in result.stdout.strip().split(",")]
    assert len(ids) == tokens
    return server.post("/detokenize", {"tokens": ids}).json()["prompt"]


def test_completions_are_those_of_generate(server, run_bullpen, cache_dir):
    wanted = text_of_generate(run_bullpen, server, cache_dir, PROMPT, 24)
    client = server.openai()
    request = dict(model=server.model_id, prompt=PROMPT, max_tokens=24, temperature=0)
    whole = client.completions.create(**request)
    assert whole.choices[0].text == wanted
    assert whole.usage.completion_tokens == 24
    streamed = client.completions.create(**request, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == wanted


def test_chat_is_the_completion_of_the_rendered_template(chat_server, run_bullpen, cache_dir):
    rendered = f"user: {PROMPT}\nassistant:"
    wanted = text_of_generate(run_bullpen, chat_server, cache_dir, rendered, 16)
    client = chat_server.openai()
    request = dict(model=chat_server.model_id, messages=MESSAGES, max_tokens=16, temperature=0)
    assert client.chat.completions.create(**request).choices[0].message.content == wanted
    streamed = client.chat.completions.create(**request, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == wanted


def test_chat_without_a_template_is_a_400_that_says_so(server):
    with pytest.raises(openai.BadRequestError) as error:
        server.openai().chat.completions.create(model=server.model_id, messages=MESSAGES)
    assert "chat template" in error.value.body["message"]
