"""A tiny Llama 3 as one GGUF file with a tokenizer: rope_freqs.weight, biases everywhere, logits by transformers.

    pip install torch transformers==5.23.0 gguf numpy
    python gguf_llama3.py GOLDEN_DIR

Writes gguf_llama3/model.bf16.gguf, golden.safetensors and golden.json. The tokenizer is GPT-2's alphabet of bytes, some merges and an
end; there is no chat template. Prompts reach beyond the 16 positions that the rotation was "trained" on.
"""
import json, pathlib, sys

import torch, transformers
from safetensors.torch import save_file

from gguf_families import write

MERGES = ["t h", "th e", "Ġ the", "i n", "e r", "a n", "an d", "Ġ and", "o n", "Ġ o", "r e", "Ġ a", "s t", "Ġ i", "e s"]


def byte_alphabet():
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    return {**{b: chr(b) for b in plain}, **{b: chr(256 + i) for i, b in enumerate(others)}}


def add_tokenizer(writer):
    tokens = [*(byte_alphabet()[b] for b in range(256)), *(m.replace(" ", "") for m in MERGES), "<|endoftext|>"]
    writer.add_tokenizer_model("gpt2"), writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens), writer.add_token_merges(MERGES)
    writer.add_token_types([1] * (len(tokens) - 1) + [3])
    writer.add_eos_token_id(len(tokens) - 1)


torch.manual_seed(6), torch.set_num_threads(1)
config = transformers.LlamaConfig(
    vocab_size=272, hidden_size=40, intermediate_size=72, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=12,
    attention_bias=True, mlp_bias=True, tie_word_embeddings=False, max_position_embeddings=256, eos_token_id=271, bos_token_id=None,
    rope_parameters={"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                     "original_max_position_embeddings": 16}, attn_implementation="eager")
model = transformers.LlamaForCausalLM(config).float().eval()
with torch.no_grad():
    for name, tensor in model.named_parameters():
        width = tensor.shape[-1] if tensor.dim() > 1 else 9
        tensor.copy_((torch.randn(tensor.shape) / width**0.5 * (2 if tensor.dim() > 1 else 1) + ("norm" in name)).bfloat16())
    model.lm_head.weight[271] = 0  # The end never comes first.
prompts = [torch.randint(0, 256, (length,)).tolist() for length in (1, 7, 33)]
folder = pathlib.Path(sys.argv[1]) / "gguf_llama3"
folder.mkdir(exist_ok=True)
with torch.no_grad():
    save_file({f"logits.{i}": model(torch.tensor([p])).logits[0].contiguous() for i, p in enumerate(prompts)}, folder / "golden.safetensors")
(folder / "golden.json").write_text(json.dumps({"transformers": transformers.__version__, "prompts": prompts, "greedy": [], "margins": []}))
write(folder / "model.bf16.gguf", "llama", config.to_dict(), {n: t.numpy() for n, t in model.state_dict().items()}, add_tokenizer)
