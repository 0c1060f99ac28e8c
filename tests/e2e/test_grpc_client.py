"""A grpcio client with stubs made from the .proto file."""

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase)

from bullpen_server import wait_until

SERVICE = "bullpen.v1.Inference"


def generate(inference, stubs, **fields):
    return list(inference.Generate(stubs[0].GenerateRequest(**fields), timeout=60))


def code_of(call, *arguments):
    with pytest.raises(grpc.RpcError) as error:
        call(*arguments)
    return error.value.code(), error.value.details()


def test_generate_streams_tokens_and_ends_with_one_finish(inference, stubs):
    answers = generate(inference, stubs, prompt="In the beginning", max_tokens=12,
                       request_id="mine",
                       sampling=stubs[0].SamplingParams(temperature=0))
    assert all(a.request_id == "mine" for a in answers)
    assert [a.HasField("finish") for a in answers] == [False] * (len(answers) - 1) + [True]
    finish = answers[-1].finish
    assert finish.reason == stubs[0].FINISH_REASON_LENGTH
    assert finish.usage.completion_tokens == 12
    assert sum(len(a.tokens) for a in answers) == 12
    assert "".join(a.text for a in answers)


def test_both_protocols_give_the_same_text(inference, stubs, server):
    sampling = dict(temperature=0.8, seed=11, top_p=0.95, top_k=50)
    answers = generate(inference, stubs, prompt="A bird is", max_tokens=32,
                       sampling=stubs[0].SamplingParams(**sampling))
    http = server.complete("A bird is", max_tokens=32, **sampling).json()
    assert "".join(a.text for a in answers) == http["choices"][0]["text"]


def test_the_seed_in_the_usage_repeats_the_answer(inference, stubs):
    first = generate(inference, stubs, prompt="The", max_tokens=24,
                     sampling=stubs[0].SamplingParams(temperature=1))
    again = generate(inference, stubs, prompt="The", max_tokens=24,
                     sampling=stubs[0].SamplingParams(
                         temperature=1, seed=first[-1].finish.usage.seed))
    assert "".join(a.text for a in first) == "".join(a.text for a in again)


def test_chat_is_rendered_with_the_template(inference, stubs, server):
    messages = stubs[0]
    chat = messages.ChatMessages(messages=[messages.ChatMessage(role="user", content="Hi")])
    answers = generate(inference, stubs, chat=chat, max_tokens=8,
                       sampling=messages.SamplingParams(temperature=0))
    http = server.post("/v1/chat/completions", {
        "model": server.model_id, "temperature": 0, "max_tokens": 8,
        "messages": [{"role": "user", "content": "Hi"}]}).json()
    assert "".join(a.text for a in answers) == http["choices"][0]["message"]["content"]


def test_logprobs_come_with_their_tokens(inference, stubs):
    answers = generate(inference, stubs, prompt="The", max_tokens=4, logprobs=2,
                       sampling=stubs[0].SamplingParams(temperature=0))
    tokens = [token for a in answers for token in a.tokens]
    assert len(tokens) == 4
    for token in tokens:
        assert len(token.top_logprobs) == 2
        assert token.top_logprobs[0].id == token.id
        assert token.logprob == pytest.approx(token.top_logprobs[0].logprob)


def test_a_stop_string_and_a_stop_id_end_the_stream(inference, stubs):
    greedy = stubs[0].SamplingParams(temperature=0)
    answers = generate(inference, stubs, prompt="In the beginning", max_tokens=24, sampling=greedy)
    text = "".join(a.text for a in answers)
    ids = [token.id for a in answers for token in a.tokens]
    stopped = generate(inference, stubs, prompt="In the beginning", max_tokens=24,
                       sampling=greedy, stop=[text[8:12]])
    assert "".join(a.text for a in stopped) == text[:text.index(text[8:12])]
    assert stopped[-1].finish.reason == stubs[0].FINISH_REASON_STOP
    stopped = generate(inference, stubs, prompt="In the beginning", max_tokens=24,
                       sampling=greedy, stop_token_ids=[ids[5]])
    assert stopped[-1].finish.reason == stubs[0].FINISH_REASON_STOP
    assert stopped[-1].finish.usage.completion_tokens == ids.index(ids[5]) + 1


@pytest.mark.parametrize("text", ["Hello, world", "naïve café ☕ 你好", "  spaces\n\n\ttabs", ""])
def test_tokenize_and_detokenize_are_inverse(inference, stubs, text):
    ids = inference.Tokenize(stubs[0].TokenizeRequest(text=text)).ids
    assert inference.Detokenize(stubs[0].DetokenizeRequest(ids=ids)).text == text


def test_get_model_states_the_facts(inference, stubs, server):
    model = inference.GetModel(stubs[0].GetModelRequest())
    assert model.id == server.model_id
    assert model.architecture == "qwen3_moe"
    assert (model.context_length, model.vocab_size, model.layers) == (4096, 8192, 8)
    assert (model.experts, model.experts_per_token) == (32, 4)


def test_get_expert_cache_counts_lookups(inference, stubs, server):
    generate(inference, stubs, prompt="The", max_tokens=4)
    cache = inference.GetExpertCache(stubs[0].GetExpertCacheRequest())
    assert len(cache.layers) == 8
    assert cache.slot_bytes >= 96 * 1024 * sum(layer.slots for layer in cache.layers)
    assert cache.loads > 0 and cache.load_failures == 0
    for layer in cache.layers:
        assert layer.resident == len(layer.resident_experts) <= layer.slots <= 32
        assert list(layer.resident_experts) == sorted(set(layer.resident_experts))
        assert layer.lookups >= layer.hits
    assert server.get("/v1/experts").status_code == 200


def test_bad_requests_name_the_field(inference, stubs):
    messages = stubs[0]

    def refused(**fields):
        return code_of(lambda: generate(inference, stubs, **fields))
    code, details = refused(prompt="x", max_tokens=-1)
    assert code == grpc.StatusCode.INVALID_ARGUMENT and "max_tokens" in details
    code, details = refused(prompt_ids=messages.TokenIds(ids=[99999]))
    assert code == grpc.StatusCode.INVALID_ARGUMENT and "99999" in details
    code, details = refused(prompt_ids=messages.TokenIds(ids=[556] * 5000))
    assert code == grpc.StatusCode.INVALID_ARGUMENT and "4096" in details
    code, details = refused()
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    code, details = refused(prompt="x", sampling=messages.SamplingParams(temperature=-1))
    assert code == grpc.StatusCode.INVALID_ARGUMENT and "temperature" in details
    code, details = refused(prompt="x", model="no-such-model")
    assert code == grpc.StatusCode.NOT_FOUND and "no-such-model" in details


def test_a_deadline_ends_the_call_and_frees_what_it_held(inference, stubs, server):
    request = stubs[0].GenerateRequest(prompt="The", max_tokens=4000, ignore_eos=True)
    code, _ = code_of(lambda: list(inference.Generate(request, timeout=0.3)))
    assert code == grpc.StatusCode.DEADLINE_EXCEEDED
    server.wait_idle()


def test_a_cancelled_call_frees_what_it_held(inference, stubs, server):
    request = stubs[0].GenerateRequest(prompt="The", max_tokens=4000, ignore_eos=True)
    call = inference.Generate(request, timeout=60)
    next(call)
    call.cancel()
    server.wait_idle()


def test_large_calls_are_refused_beyond_the_budget_and_give_their_memory_back(
        start_server, stubs):
    server = start_server()
    request = stubs[0].TokenizeRequest(text="a bird " * (1 << 20))
    unlimited = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(server.grpc_target, options=unlimited) as channel:
        tokenize = stubs[1].InferenceStub(channel).Tokenize
        tokenize(stubs[0].TokenizeRequest(text="a bird"))
        before = server.memory_bytes()
        calls = [tokenize.future(request, timeout=120) for _ in range(40)]
        codes = [call.code() for call in calls]
        assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert codes.count(grpc.StatusCode.OK) >= 8
        assert all("67108864, the limit" in call.details() for call in calls
                   if call.code() != grpc.StatusCode.OK)
        wait_until(lambda: server.memory_bytes() < before + (112 << 20), 20,
                   "the memory is the system's again")


def test_a_chat_of_a_million_messages_is_refused_at_once(inference, stubs):
    messages = stubs[0]
    one = messages.ChatMessage(role="user", content="x")
    chat = messages.ChatMessages(messages=[one] * 700_000)
    code, details = code_of(lambda: generate(inference, stubs, chat=chat))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert details == "chat has 700000 messages, at most 16384 are allowed"


def test_health_checks_and_watches(channel):
    health = health_pb2_grpc.HealthStub(channel)
    serving = health_pb2.HealthCheckResponse.SERVING
    for service in ("", SERVICE):
        assert health.Check(health_pb2.HealthCheckRequest(service=service)).status == serving
    code, _ = code_of(health.Check, health_pb2.HealthCheckRequest(service="none"))
    assert code == grpc.StatusCode.NOT_FOUND
    watch = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=30)
    assert next(watch).status == serving
    watch.cancel()


def test_reflection_lists_and_describes_the_service(channel):
    database = ProtoReflectionDescriptorDatabase(channel)
    assert {SERVICE, "grpc.health.v1.Health"} <= set(database.get_services())
    file = database.FindFileContainingSymbol(SERVICE)
    methods = {method.name for service in file.service for method in service.method}
    assert methods == {"Generate", "Tokenize", "Detokenize", "GetModel", "GetExpertCache"}


def test_a_key_is_asked_for_in_the_metadata(start_server, stubs, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("right-key\n")
    server = start_server("--api-key-file", keys)
    with grpc.insecure_channel(server.grpc_target) as channel:
        inference = stubs[1].InferenceStub(channel)
        request = stubs[0].GetModelRequest()
        assert inference.GetModel(
            request, metadata=[("authorization", "Bearer right-key")]).layers == 8
        code, _ = code_of(inference.GetModel, request)
        assert code == grpc.StatusCode.UNAUTHENTICATED
        health = health_pb2_grpc.HealthStub(channel)
        assert health.Check(health_pb2.HealthCheckRequest()).status
