"""The client and the plain values that it takes and gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import grpc
from bullpen.v1 import inference_pb2 as wire
from bullpen.v1 import inference_pb2_grpc as services

# What may be generated from: a text, token ids, or a chat as a list of
# {"role": ..., "content": ...}.
Prompt = str | Sequence[int] | Sequence[dict[str, str]]


class BullpenError(Exception):
    """A call failed. `code` is the canonical gRPC code: RESOURCE_EXHAUSTED when
    the queue is full, UNAVAILABLE while loading or draining, INVALID_ARGUMENT
    when a field is wrong, DATA_LOSS when a part of the model is damaged."""

    def __init__(self, code: grpc.StatusCode, message: str):
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; None leaves a value to the model's defaults."""
    temperature: float | None = None  # 0 = greedy
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    seed: int | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None


@dataclasses.dataclass(frozen=True)
class Options:
    """What one generation is asked for; the defaults are the server's."""
    sampling: Sampling = Sampling()
    max_tokens: int | None = None  # None: up to the context's end
    stop: Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    ignore_eos: bool = False
    logprobs: int | None = None  # of that many likeliest tokens


@dataclasses.dataclass(frozen=True)
class Token:
    id: int
    logprob: float | None
    top_logprobs: dict[int, float]  # by token id


@dataclasses.dataclass(frozen=True)
class Finish:
    reason: str  # "stop" or "length"
    prompt_tokens: int
    completion_tokens: int
    seed: int  # The one that repeats this generation.


@dataclasses.dataclass(frozen=True)
class Part:
    """What one message of a stream adds. Only the last has a finish."""
    text: str
    tokens: list[Token]
    finish: Finish | None


@dataclasses.dataclass(frozen=True)
class Completion:
    """A whole generation."""
    text: str
    tokens: list[Token]
    finish: Finish


@dataclasses.dataclass(frozen=True)
class Model:
    id: str
    architecture: str
    context_length: int
    vocab_size: int
    layers: int
    experts: int
    experts_per_token: int


@dataclasses.dataclass(frozen=True)
class ExpertCacheLayer:
    layer: int
    experts: int
    slots: int
    resident: int
    loading: int
    lookups: int
    hits: int
    resident_experts: list[int]


@dataclasses.dataclass(frozen=True)
class ExpertCache:
    slot_bytes: int  # of all slots together
    loads: int
    load_failures: int
    bytes_loaded: int
    stall_seconds: float
    layers: list[ExpertCacheLayer]


class Client:
    """A connection to one server; threads may share it. Use it in `with`."""

    def __init__(self, target: str, *, api_key: str | None = None, timeout: float = 600):
        self._channel = grpc.insecure_channel(target)
        self._stub = services.InferenceStub(self._channel)
        self._options = {
            "timeout": timeout,
            "metadata": [("authorization", f"Bearer {api_key}")] if api_key else None}

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()

    def stream(self, prompt: Prompt, options: Options = Options()) -> Iterator[Part]:
        """Generates, and yields what comes as it comes. To leave the loop early
        cancels the generation on the server."""
        call = self._stub.Generate(_request(prompt, options), **self._options)
        try:
            for message in call:
                yield _part(message)
        except grpc.RpcError as error:
            raise BullpenError(error.code(), error.details()) from None
        finally:
            call.cancel()

    def complete(self, prompt: Prompt, options: Options = Options()) -> Completion:
        """As stream(), but waits for the end."""
        parts = list(self.stream(prompt, options))
        return Completion(
            text="".join(part.text for part in parts),
            tokens=[token for part in parts for token in part.tokens],
            finish=parts[-1].finish)

    def tokenize(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        request = wire.TokenizeRequest(text=text, add_special_tokens=add_special_tokens)
        return list(self._call(self._stub.Tokenize, request).ids)

    def detokenize(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        request = wire.DetokenizeRequest(ids=ids, skip_special_tokens=skip_special_tokens)
        return self._call(self._stub.Detokenize, request).text

    def model(self) -> Model:
        answer = self._call(self._stub.GetModel, wire.GetModelRequest())
        return _plain(Model, answer)

    def expert_cache(self) -> ExpertCache:
        answer = self._call(self._stub.GetExpertCache, wire.GetExpertCacheRequest())
        layers = [_plain(ExpertCacheLayer, layer, resident_experts=list(layer.resident_experts))
                  for layer in answer.layers]
        return _plain(ExpertCache, answer, layers=layers)

    def _call(self, method, request):
        try:
            return method(request, **self._options)
        except grpc.RpcError as error:
            raise BullpenError(error.code(), error.details()) from None


def _request(prompt: Prompt, options: Options) -> wire.GenerateRequest:
    sampling = {name: value for name, value in dataclasses.asdict(options.sampling).items()
                if value is not None}
    request = wire.GenerateRequest(
        sampling=wire.SamplingParams(**sampling), stop=options.stop,
        stop_token_ids=options.stop_token_ids, ignore_eos=options.ignore_eos,
        max_tokens=options.max_tokens, logprobs=options.logprobs)
    if isinstance(prompt, str):
        request.prompt = prompt
    elif prompt and isinstance(prompt[0], dict):
        request.chat.messages.extend(wire.ChatMessage(**message) for message in prompt)
    else:
        request.prompt_ids.ids.extend(prompt)
    return request


def _part(message: wire.GenerateResponse) -> Part:
    tokens = [Token(id=token.id,
                    logprob=token.logprob if token.HasField("logprob") else None,
                    top_logprobs={top.id: top.logprob for top in token.top_logprobs})
              for token in message.tokens]
    finish = None
    if message.HasField("finish"):
        usage = message.finish.usage
        reason = wire.FinishReason.Name(message.finish.reason)
        finish = Finish(reason=reason.removeprefix("FINISH_REASON_").lower(),
                        prompt_tokens=usage.prompt_tokens,
                        completion_tokens=usage.completion_tokens, seed=usage.seed)
    return Part(text=message.text, tokens=tokens, finish=finish)


def _plain(cls, message, **converted):
    """A dataclass with the fields of a message that it names."""
    names = {field.name for field in dataclasses.fields(cls)} - converted.keys()
    return cls(**{name: getattr(message, name) for name in names}, **converted)
