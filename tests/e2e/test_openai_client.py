"""openai-python, as its users write it, against the server."""

import asyncio

import openai
import pytest

MESSAGES = [{"role": "user", "content": "What is a bird?"}]


@pytest.fixture(scope="module")
def model(server):
    return server.model_id


@pytest.fixture(scope="module")
def client(server):
    return server.openai()


def test_models_are_listed_and_found_by_id(client, model):
    models = client.models.list().data
    assert [m.id for m in models] == [model]
    assert models[0].object == "model"
    assert client.models.retrieve(model).id == model


def test_whole_completion_has_text_usage_and_finish_reason(client, model):
    answer = client.completions.create(model=model, prompt="In the beginning",
                                       max_tokens=12, temperature=0)
    assert answer.object == "text_completion"
    assert answer.choices[0].text
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 12


def test_streamed_completion_gives_the_text_of_the_whole_one(client, model):
    request = dict(model=model, prompt="In the beginning", max_tokens=40, temperature=0)
    whole = client.completions.create(**request)
    chunks = list(client.completions.create(**request, stream=True))
    assert "".join(c.choices[0].text for c in chunks) == whole.choices[0].text
    assert len({c.id for c in chunks}) == 1
    assert len({c.created for c in chunks}) == 1
    assert len(chunks) > 5, "tokens are to arrive one by one"
    reasons = [c.choices[0].finish_reason for c in chunks]
    assert reasons == [None] * (len(chunks) - 1) + ["length"]


def test_usage_comes_in_one_extra_chunk_only_when_asked_for(client, model):
    request = dict(model=model, prompt="Hello", max_tokens=4, temperature=0, stream=True)
    plain = list(client.completions.create(**request))
    assert all(c.choices and c.usage is None for c in plain)
    asked = list(client.completions.create(**request, stream_options={"include_usage": True}))
    assert all(c.choices and c.usage is None for c in asked[:-1])
    assert asked[-1].choices == []
    assert asked[-1].usage.completion_tokens == 4


def test_whole_chat_answers_as_the_assistant(client, model):
    answer = client.chat.completions.create(model=model, messages=MESSAGES,
                                            max_completion_tokens=24, temperature=0)
    assert answer.object == "chat.completion"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.prompt_tokens > 5


def test_streamed_chat_starts_with_the_role_and_ends_with_the_reason(client, model):
    request = dict(model=model, messages=MESSAGES, max_tokens=24, temperature=0)
    whole = client.chat.completions.create(**request)
    chunks = list(client.chat.completions.create(**request, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all(c.object == "chat.completion.chunk" for c in chunks)
    text = "".join(c.choices[0].delta.content or "" for c in chunks)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason


def test_content_parts_are_lines_of_one_text(client, model):
    parts = [{"type": "text", "text": "What is"}, {"type": "text", "text": "a bird?"}]
    answers = [client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": content}], max_tokens=24,
        temperature=0) for content in (parts, "What is\na bird?")]
    assert answers[0].usage == answers[1].usage
    assert answers[0].choices[0].message == answers[1].choices[0].message


def test_async_streams_run_beside_each_other(server, model):
    async def stream(client, prompt):
        chunks = await client.completions.create(
            model=model, prompt=prompt, max_tokens=16, temperature=0, stream=True)
        return "".join([c.choices[0].text async for c in chunks])

    async def all_of(prompts):
        async with openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="none",
                                      max_retries=0) as client:
            return await asyncio.gather(*(stream(client, p) for p in prompts))

    prompts = ["The", "In the beginning", "def main", "A bird", "Git is"]
    alone = [asyncio.run(all_of([p]))[0] for p in prompts]
    assert asyncio.run(all_of(prompts)) == alone


def test_the_same_seed_gives_the_same_text_and_another_seed_another(client, model):
    def sample(seed):
        return client.completions.create(model=model, prompt="A bird is", max_tokens=32,
                                         temperature=1, seed=seed).choices[0].text
    assert sample(7) == sample(7)
    assert len({sample(seed) for seed in range(5)}) > 1


def test_n_choices_of_every_prompt_are_numbered(client, model):
    answer = client.completions.create(model=model, prompt=["The", "A bird"], n=3,
                                       max_tokens=8, temperature=1, seed=1)
    choices = sorted(answer.choices, key=lambda c: c.index)
    assert [c.index for c in choices] == list(range(6))
    assert len({c.text for c in choices[:3]}) > 1
    streamed = {i: "" for i in range(6)}
    for chunk in client.completions.create(model=model, prompt=["The", "A bird"], n=3,
                                           max_tokens=8, temperature=1, seed=1, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.text
    assert streamed == {c.index: c.text for c in choices}


def test_a_stop_string_ends_the_text_before_it(client, model):
    request = dict(model=model, prompt="In the beginning", max_tokens=48, temperature=0)
    text = client.completions.create(**request).choices[0].text
    stop = text[len(text) // 2:][:4]
    for stream in (False, True):
        answer = client.completions.create(**request, stop=[stop, "never to be seen"],
                                           stream=stream)
        chunks = list(answer) if stream else [answer]
        assert "".join(c.choices[0].text for c in chunks) == text[:text.index(stop)]
        assert chunks[-1].choices[0].finish_reason == "stop"


def test_logprobs_of_completions_fit_together(client, model):
    choice = client.completions.create(model=model, prompt="The", max_tokens=6, temperature=0,
                                       logprobs=3).choices[0]
    logprobs = choice.logprobs
    assert "".join(logprobs.tokens) == choice.text
    assert len(logprobs.token_logprobs) == len(logprobs.top_logprobs) == len(
        logprobs.text_offset) == 6
    for token, logprob, top in zip(logprobs.tokens, logprobs.token_logprobs,
                                   logprobs.top_logprobs):
        assert logprob <= 0
        assert top[token] == pytest.approx(logprob)
        assert max(top.values()) == pytest.approx(logprob), "greedy takes the likeliest"


def test_logprobs_of_chat_have_bytes_and_alternatives(client, model):
    choice = client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=5,
                                            temperature=0, logprobs=True, top_logprobs=4).choices[0]
    for entry in choice.logprobs.content:
        assert len(entry.top_logprobs) == 4
        assert entry.logprob == pytest.approx(entry.top_logprobs[0].logprob)
        assert bytes(entry.bytes).decode(errors="replace") == entry.token


def test_logit_bias_forbids_a_token(client, model, server):
    request = dict(model=model, prompt="In the beginning", max_tokens=1, temperature=0)
    first = client.completions.create(**request, logprobs=1).choices[0].text
    ids = server.post("/tokenize", {"prompt": first}).json()["tokens"]
    assert len(ids) == 1
    other = client.completions.create(**request, logit_bias={str(ids[0]): -100}).choices[0].text
    assert other != first


def test_each_kind_of_error_is_its_own_exception(client, model):
    with pytest.raises(openai.BadRequestError) as error:
        client.completions.create(model=model, prompt="x", max_tokens=-1)
    assert error.value.param == "max_tokens"
    assert "-1" in error.value.message
    with pytest.raises(openai.BadRequestError) as error:
        client.completions.create(model=model, prompt="x", extra_body={"temprature": 1})
    assert error.value.param == "temprature"
    with pytest.raises(openai.NotFoundError) as error:
        client.completions.create(model="no-such-model", prompt="x")
    assert (error.value.code, error.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no-such-model")
    with pytest.raises(openai.BadRequestError) as error:
        client.completions.create(model=model, prompt=[556] * 5000, max_tokens=1)
    assert error.value.code == "context_length_exceeded"
    assert "maximum context length is 4096 tokens" in error.value.message


def test_a_wrong_key_is_an_authentication_error(start_server, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("right-key\nother-key\n")
    server = start_server("--api-key-file", keys)
    for key in ("right-key", "other-key"):
        assert server.openai(api_key=key).models.list().data
    for key in ("wrong-key", "right-ke", "RIGHT-KEY"):
        with pytest.raises(openai.AuthenticationError):
            server.openai(api_key=key).models.list()
    assert server.get("/health").status_code == 200
    assert server.get("/ready").status_code == 200
    assert server.get("/metrics").status_code == 401


def test_metrics_can_be_open_where_the_rest_is_not(start_server, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("a-key\n")
    server = start_server("--api-key-file", keys, "--open-metrics")
    assert server.get("/metrics").status_code == 200
    assert server.get("/v1/experts").status_code == 401


def test_lm_eval_gets_the_log_likelihoods_of_the_prompt(client, model, golden, run_bullpen,
                                                        tmp_path):
    """The request that lm-eval's local-completions sends, against `bullpen logits`."""
    import numpy
    import safetensors.numpy
    prompts = golden["prompts"][1:3]
    answer = client.completions.create(model=model, prompt=prompts, temperature=0, max_tokens=1,
                                       logprobs=1, seed=1234, echo=True)
    choices = sorted(answer.choices, key=lambda c: c.index)
    for prompt, choice in zip(prompts, choices):
        out = tmp_path / "logits.safetensors"
        ids = ",".join(map(str, prompt))
        result = run_bullpen("logits", "models/default", "--ids", ids, "--out", out)
        assert result.returncode == 0, result.stderr
        logits = safetensors.numpy.load_file(out)["logits"].astype(numpy.float64)
        logprobs = logits - numpy.log(numpy.exp(
            logits - logits.max(1, keepdims=True)).sum(1, keepdims=True)) - logits.max(
                1, keepdims=True)
        got = choice.logprobs.token_logprobs
        assert got[0] is None
        assert len(got) == len(prompt) + 1
        expected = [logprobs[i, token] for i, token in enumerate(prompt[1:])]
        assert got[1:len(prompt)] == pytest.approx(expected, abs=2e-3)
        greedy = [max(top.values()) for top in choice.logprobs.top_logprobs[1:-1]]
        assert greedy == pytest.approx(list(logprobs[:-1].max(1)), abs=2e-3)
