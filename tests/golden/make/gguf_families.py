"""Golden checkpoints of more families as GGUF, in the names and keys of llama.cpp, for the logits that they have already.

    pip install gguf numpy
    python gguf_families.py GOLDEN_DIR

Writes FAMILY/model.bf16.gguf: matrices BF16 (the experts of gpt_oss_mxfp4 MXFP4), all else F32, so that no weight changes.
"""
import json, pathlib, re, struct, sys

import gguf, numpy as np
from gguf import GGMLQuantizationType as QT

ARCHITECTURES = {"qwen2_moe": "qwen2moe", "glm4_moe": "glm4moe", "gpt_oss_mxfp4": "gpt-oss", "deepseek_v2": "deepseek2",
                 "deepseek_v2_group": "deepseek2", "deepseek_v3": "deepseek2", "llama": "llama", "qwen3": "qwen3"}
NAMES = {  # transformers -> llama.cpp, below model.layers.N
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "self_attn.sinks": "attn_sinks.weight", "self_attn.q_a_proj": "attn_q_a", "self_attn.q_a_layernorm": "attn_q_a_norm",
    "self_attn.q_b_proj": "attn_q_b", "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa", "self_attn.kv_a_layernorm": "attn_kv_a_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "mlp.gate": "ffn_gate_inp",
    "mlp.router": "ffn_gate_inp", "mlp.gate.e_score_correction_bias": "exp_probs_b.bias", "mlp.shared_expert_gate": "ffn_gate_inp_shexp"}
NAMES |= {f"mlp.{shared}.{part}_proj": f"ffn_{part}_shexp" for shared in ("shared_expert", "shared_experts") for part in ("gate", "up", "down")}
POST_ATTENTION_NORM = ("glm4moe", "gpt-oss")


def load(path):
    """Tensors as float32, or uint8."""
    data = path.read_bytes()
    size, = struct.unpack("<Q", data[:8])
    for name, t in json.loads(data[8:8 + size]).items():
        if name != "__metadata__":
            raw = np.frombuffer(data[8 + size:][slice(*t["data_offsets"])], {"BF16": np.uint16, "F32": np.float32, "U8": np.uint8}[t["dtype"]])
            if t["dtype"] == "BF16":
                raw = (raw.astype(np.uint32) << 16).view(np.float32)
            yield name, raw.reshape(t["shape"])


def permute(weight, heads):
    """Rows of a matrix, or elements of a bias."""
    return weight.reshape(heads, 2, -1, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def ggml_mxfp4(blocks, scales):
    """[.., G, 16] with neighbours in a byte -> rows of blocks {scale, elements b and b + 16 in byte b}."""
    codes = np.stack([blocks & 15, blocks >> 4], -1).reshape(*blocks.shape[:-1], 32)
    packed = codes[..., :16] | codes[..., 16:] << 4
    return np.concatenate([scales[..., None], packed], -1).reshape(*blocks.shape[:-2], -1)


def tensors(arch, config, state):
    """(GGUF name, array, raw type or None)."""
    stacks = {}
    for name, array in state.items():
        at = re.fullmatch(r"model\.layers\.(\d+)\.(.*)", name)
        if not at:
            yield {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
                   "lm_head.weight": "output.weight"}[name], array, None
            continue
        layer, rest = f"blk.{at[1]}.", at[2]
        if expert := re.fullmatch(r"mlp\.experts\.(\d+)\.(\w+)_proj\.weight", rest):
            stacks.setdefault(f"{layer}ffn_{expert[2]}_exps.weight", {})[int(expert[1])] = array
        elif rest.endswith("_scales"):
            continue
        elif rest.endswith("_blocks"):
            packed = ggml_mxfp4(array, state[name.replace("_blocks", "_scales")])
            parts = {"gate": packed[:, 0::2], "up": packed[:, 1::2]} if "gate_up" in rest else {"down": packed}
            for part, rows in parts.items():
                yield f"{layer}ffn_{part}_exps.weight", np.ascontiguousarray(rows), QT.MXFP4
        elif rest == "mlp.experts.gate_up_proj_bias":
            yield f"{layer}ffn_gate_exps.bias", array[:, 0::2], None
            yield f"{layer}ffn_up_exps.bias", array[:, 1::2], None
        elif rest == "mlp.experts.down_proj_bias":
            yield f"{layer}ffn_down_exps.bias", array, None
        elif rest == "self_attn.kv_b_proj.weight":
            if config["q_lora_rank"] is None:  # As old files have it.
                yield f"{layer}attn_kv_b.weight", array, None
                continue
            nope, value = config["qk_nope_head_dim"], config["v_head_dim"]
            heads = array.reshape(-1, nope + value, array.shape[-1])
            yield f"{layer}attn_k_b.weight", heads[:, :nope].swapaxes(1, 2), None
            yield f"{layer}attn_v_b.weight", heads[:, nope:], None
        elif rest == "post_attention_layernorm.weight":
            yield layer + ("post_attention_norm" if arch in POST_ATTENTION_NORM else "ffn_norm") + ".weight", array, None
        elif rest in NAMES:
            yield layer + NAMES[rest], array, None
        else:
            stem, kind = rest.rsplit(".", 1)
            if arch == "llama" and stem in ("self_attn.q_proj", "self_attn.k_proj"):
                array = permute(array, config["num_attention_heads" if ".q" in stem else "num_key_value_heads"])
            if stem == "mlp.shared_expert_gate":
                array = array.reshape(-1)
            yield f"{layer}{NAMES[stem]}.{kind}", array, None
    for name, parts in stacks.items():
        yield name, np.stack([parts[e] for e in sorted(parts)]), None


def metadata(writer, arch, c):
    def add(key, value):
        kind = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}[type(value)]
        kind(f"{arch}.{key}", value)

    rope = c["rope_parameters"]
    for key, name in {"context_length": "max_position_embeddings", "embedding_length": "hidden_size", "block_count": "num_hidden_layers",
                      "feed_forward_length": "intermediate_size", "attention.head_count": "num_attention_heads",
                      "attention.layer_norm_rms_epsilon": "rms_norm_eps", "expert_used_count": "num_experts_per_tok",
                      "expert_feed_forward_length": "moe_intermediate_size", "expert_shared_count": "n_shared_experts",
                      "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
                      "leading_dense_block_count": "first_k_dense_replace", "expert_weights_scale": "routed_scaling_factor",
                      "expert_weights_norm": "norm_topk_prob", "attention.kv_lora_rank": "kv_lora_rank",
                      "attention.q_lora_rank": "q_lora_rank"}.items():
        if c.get(name) is not None:
            add(key, c[name])
    for name in ("num_experts", "n_routed_experts", "num_local_experts"):
        if name in c:
            add("expert_count", c[name])
    if (c.get("n_group") or 1) > 1:
        add("expert_group_count", c["n_group"]), add("expert_group_used_count", c["topk_group"])
    if arch in ("glm4moe", "deepseek2"):
        add("expert_gating_func", 1 if c["model_type"] == "deepseek_v2" else 2)
    add("rope.freq_base", float(rope["rope_theta"]))
    if rope["rope_type"] == "yarn":
        add("rope.scaling.type", "yarn"), add("rope.scaling.factor", float(rope["factor"]))
        add("rope.scaling.original_context_length", rope["original_max_position_embeddings"])
        if "mscale_all_dim" in rope:
            add("rope.scaling.yarn_log_multiplier", 0.1 * rope["mscale_all_dim"])
    if arch == "gpt-oss":
        add("attention.sliding_window", c["sliding_window"])
        add("expert_feed_forward_length", c["intermediate_size"])
        writer.add_array(f"{arch}.swiglu_clamp_exp", [float(c["swiglu_limit"])] * c["num_hidden_layers"])
    if arch == "deepseek2":
        split, nope, rotary = c["q_lora_rank"] is not None, c["qk_nope_head_dim"], c["qk_rope_head_dim"]
        add("rope.dimension_count", rotary)
        add("attention.head_count_kv", 1 if split else c["num_attention_heads"])
        add("attention.key_length", c["kv_lora_rank"] + rotary if split else nope + rotary)
        add("attention.value_length", c["kv_lora_rank"] if split else c["v_head_dim"])
        if split:
            add("attention.key_length_mla", nope + rotary), add("attention.value_length_mla", c["v_head_dim"])
    else:
        head_dim = c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
        add("attention.head_count_kv", c["num_key_value_heads"])
        add("attention.key_length", head_dim), add("attention.value_length", head_dim)
        add("rope.dimension_count", int(head_dim * rope.get("partial_rotary_factor", 1)))


def llama3_divisors(config, rope):
    """What converters make of the stretch of Llama 3: each frequency's divisor."""
    frequency = rope["rope_theta"] ** (-np.arange(0, config["head_dim"], 2) / config["head_dim"])
    wave, original = 2 * np.pi / frequency, rope["original_max_position_embeddings"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    smooth = (original / wave - low) / (high - low)
    between = 1 / ((1 - smooth) / rope["factor"] + smooth)
    return np.where(wave < original / high, 1, np.where(wave > original / low, rope["factor"], between)).astype(np.float32)


def write(path, arch, config, state, add_tokenizer):
    writer = gguf.GGUFWriter(path, arch)
    metadata(writer, arch, config)
    add_tokenizer(writer)
    if config["rope_parameters"]["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_divisors(config, config["rope_parameters"]))
    for name, array, raw in tensors(arch, config, state):
        array = np.ascontiguousarray(array)
        if raw is None and array.ndim > 1 and not re.search(r"ffn_gate_inp|\.bias$", name):
            array, raw = gguf.quantize(array, QT.BF16), QT.BF16
        writer.add_tensor(name, array, raw_dtype=raw)
    writer.write_header_to_file(), writer.write_kv_data_to_file(), writer.write_tensors_to_file(), writer.close()


def main():
    for family, arch in ARCHITECTURES.items():
        folder = pathlib.Path(sys.argv[1]) / family
        config = json.loads((folder / "config.json").read_text())
        write(folder / "model.bf16.gguf", arch, config, dict(load(folder / "model.safetensors")),
              lambda writer: writer.add_tokenizer_model("none"))


if __name__ == "__main__":
    main()
