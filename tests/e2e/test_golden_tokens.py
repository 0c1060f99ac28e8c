"""The served model gives transformers' tokens, over both protocols."""

import pytest

from conftest import greedy_until_doubt


@pytest.mark.parametrize("prompt", range(4))
def test_greedy_over_grpc_is_golden(inference, stubs, golden, prompt):
    messages = stubs[0]
    expected = greedy_until_doubt(golden, prompt)
    assert len(expected) >= 8
    request = messages.GenerateRequest(
        prompt_ids=messages.TokenIds(ids=golden["prompts"][prompt]), ignore_eos=True,
        max_tokens=len(expected), sampling=messages.SamplingParams(temperature=0))
    ids = [token.id for answer in inference.Generate(request) for token in answer.tokens]
    assert ids == expected


@pytest.mark.parametrize("prompt", range(4))
def test_greedy_over_http_is_golden(server, golden, prompt):
    expected = greedy_until_doubt(golden, prompt)
    answer = server.complete(golden["prompts"][prompt], max_tokens=len(expected),
                             temperature=0, ignore_eos=True)
    assert answer.status_code == 200, answer.text
    text = server.post("/detokenize", {"tokens": expected}).json()["prompt"]
    assert answer.json()["choices"][0]["text"] == text


def test_a_text_prompt_is_tokenised_as_the_reference_did(server, golden):
    for text, ids in zip(golden["texts"], golden["prompts"]):
        tokens = server.post("/tokenize", {"prompt": text}).json()["tokens"]
        assert tokens[:len(ids)] == ids  # The longest text was cut to 40 ids.
