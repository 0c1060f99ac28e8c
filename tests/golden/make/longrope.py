"""Two tiny models with longrope whose prompts reach to and beyond its original context of 32, in float32 by transformers.

    pip install torch transformers==5.23.0 safetensors numpy
    python longrope.py GOLDEN_DIR

Writes longrope/llama and longrope/phimoe. Logits are of one pass over a prompt. Greedy ids are decoded with a cache of keys, as Bullpen has one:
a sequence that grows beyond 32 keeps what it cached. (generate() of Phi models computes everything again there.)
"""
import pathlib, sys

import torch, transformers
from safetensors.torch import save_file

from make_goldens import GREEDY_STEPS, generator, init_weights, load, reference, write_json

ORIGINAL, SEED = 32, 8
LENGTHS = (20, 32, 33, 60)
FACTORS = dict(rope_type="longrope", rope_theta=1e4, original_max_position_embeddings=ORIGINAL, short_factor=[1 + i / 8 for i in range(8)],
               long_factor=[2.0 + i for i in range(8)])
COMMON = dict(vocab_size=96, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
              max_position_embeddings=256, bos_token_id=1, eos_token_id=2, pad_token_id=0, tie_word_embeddings=False)
MODELS = {
    "llama": ("Llama", dict(head_dim=16, rope_parameters=dict(FACTORS, factor=4.0))),
    "phimoe": ("Phimoe", dict(num_local_experts=4, num_experts_per_tok=2, rope_parameters=dict(FACTORS, short_mscale=1.2, long_mscale=1.3)))}


def by_length(model):
    """Phimoe of transformers 5 leaves the length out where it asks for frequencies, and so never takes the long factors; 4 did not."""
    rotary = getattr(model.model, "rotary_emb", None)
    if type(rotary).__name__ != "PhimoeRotaryEmbedding" or rotary.rope_type != "longrope":
        return model
    frequencies = rotary.rope_init_fn
    length = lambda module, args, kwargs: setattr(module, "rope_init_fn", lambda config: frequencies(config, seq_len=int(kwargs["position_ids"].max()) + 1))
    rotary.register_forward_pre_hook(length, with_kwargs=True)
    return model


@torch.no_grad()
def greedy(model, prompt):
    ids, margins, cache, fed = [], [], transformers.DynamicCache(), prompt
    for _ in range(GREEDY_STEPS):
        top = model(input_ids=torch.tensor([fed]), past_key_values=cache, use_cache=True).logits[0, -1].topk(2)
        fed = [int(top.indices[0])]
        ids += fed
        margins.append(float(top.values[0] - top.values[1]))
    return ids, margins


@torch.no_grad()
def write(name, folder):
    stem, arguments = MODELS[name]
    model = getattr(transformers, f"{stem}ForCausalLM")(getattr(transformers, f"{stem}Config")(**COMMON, **arguments))
    init_weights(model, name, SEED)
    model.to(torch.bfloat16).save_pretrained(folder)
    model = by_length(load(folder))
    prompts = [torch.randint(3, COMMON["vocab_size"], (n,), generator=generator(SEED, f"{name}/{n}")).tolist() for n in LENGTHS]
    save_file(reference(model, prompts), folder / "golden.safetensors")
    continuations = [greedy(model, prompt) for prompt in prompts]
    write_json(folder / "golden.json", {"family": name, "seed": SEED, "torch": torch.__version__, "transformers": transformers.__version__, "prompts": prompts,
                                        "greedy": [ids for ids, _ in continuations], "margins": [m for _, m in continuations]})


if __name__ == "__main__":
    for name in MODELS:
        write(name, pathlib.Path(sys.argv[1]) / "longrope" / name)
