"""Random shapes and switches of every family, for random_variants.py: config(family, stream) -> (model class, config class, arguments)."""
from families import BASE

CLASSES = {  # model_type -> what transformers calls it
    "qwen3_moe": "Qwen3Moe", "qwen2_moe": "Qwen2Moe", "olmoe": "Olmoe", "flex_olmo": "FlexOlmo", "mixtral": "Mixtral", "phimoe": "Phimoe",
    "granitemoe": "GraniteMoe", "gpt_oss": "GptOss", "glm4_moe": "Glm4Moe", "dots1": "Dots1", "deepseek_v2": "DeepseekV2",
    "deepseek_v2_group": "DeepseekV2", "deepseek_v3": "DeepseekV3", "minimax_m2": "MiniMaxM2", "ernie4_5_moe": "Ernie4_5_Moe",
    "llama": "Llama", "qwen3": "Qwen3"}
LATENT = ("deepseek_v2", "deepseek_v2_group", "deepseek_v3")
PROMPT = 75  # Longer than four KV blocks and than most windows.


def yarn(r, plain):
    """plain: only what GGUF can say."""
    rope = dict(rope_type="yarn", factor=r.choice([1.5, 2.0, 8.0, 40.0]), original_max_position_embeddings=r.choice([32, 64, 500, 4096]))
    if plain:
        return rope
    if r.random() < 0.5:
        rope |= dict(beta_fast=r.choice([32.0, 16.0, 5.0]), beta_slow=r.choice([1.0, 2.0, 0.5]))
    if r.random() < 0.5:
        rope["truncate"] = r.random() < 0.5
    if r.random() < 0.3:
        rope["attention_factor"] = r.choice([0.7, 1.0, 1.25])
    return rope


def rope(r, family, rotary, plain):
    kind = r.choice(["default", "default", "linear", "yarn", "yarn", "llama3", "longrope"])
    theta = r.choice([1e3, 1e4, 5e5, 1e6, 7777.5])
    if family == "phimoe" and kind != "default":
        kind = "longrope"
    if plain and (kind == "longrope" or kind == "llama3" and family != "llama" or kind == "yarn" and family not in ("qwen3_moe", "gpt_oss", *LATENT)):
        kind = "default"
    if kind == "linear":
        found = dict(rope_type=kind, factor=r.choice([1.0, 2.0, 3.5]))
    elif kind == "yarn":
        found = yarn(r, plain)
        if plain and family == "gpt_oss":
            found["truncate"] = False
        if family in LATENT:
            found["mscale"] = r.choice([0.707, 1.0])
            found["mscale_all_dim"] = found["mscale"] if plain else r.choice([0.5, 0.707, 1.0])
            found.pop("attention_factor", None)
    elif kind == "llama3":
        found = dict(rope_type=kind, factor=r.choice([4.0, 8.0, 32.0]), low_freq_factor=1.0, high_freq_factor=r.choice([2.0, 4.0]),
                     original_max_position_embeddings=r.choice([16, 64, 256]))
    elif kind == "longrope":
        found = dict(rope_type=kind, factor=r.choice([2.0, 4.0]), original_max_position_embeddings=r.choice([32, PROMPT - 1, PROMPT, 128]),
                     short_factor=[round(1 + r.random(), 3) for _ in range(rotary // 2)], long_factor=[round(1 + 9 * r.random(), 3) for _ in range(rotary // 2)])
        if family == "phimoe":
            found |= dict(short_mscale=r.choice([1.0, 1.2]), long_mscale=1.3)
    else:
        found = dict(rope_type="default")
    return dict(found, rope_theta=theta)


def widths(r, plain):
    return r.choice([32, 64, 96, 256] if plain else [8, 18, 24, 40, 50, 72, 104])


def grouped_experts(r):
    groups, each = r.choice([1, 1, 2, 3, 4]), r.randint(2, 5)
    kept = r.randint(1, groups)
    return dict(n_routed_experts=groups * each, n_group=groups, topk_group=kept, num_experts_per_tok=r.randint(1, min(8, each * kept)))


def experts(r, count):
    number = r.randint(2, 19)
    return {count: number, "num_experts_per_tok": r.randint(1, min(number, 8))}


def windows(r, layers):
    return dict(sliding_window=r.choice([1, 3, 16, 17, 33]), layer_types=[r.choice(["full_attention", "sliding_attention"]) for _ in range(layers)])


def attention(r, family, plain):
    """Heads, rotation and sizes of any family but those with latent attention."""
    kv_heads = r.choice([1, 1, 2, 3, 4])
    found = dict(num_key_value_heads=kv_heads, num_attention_heads=kv_heads * r.choice([1, 2, 3, 5, 7]))
    dim = r.choice([8, 12, 16, 20, 24, 26, 32, 36, 40, 48, 64])
    share = r.choice([0.25, 0.5, 0.75, 1.0]) if family in ("glm4_moe", "minimax_m2") else 1.0
    if family in ("qwen3_moe", "qwen3", "mixtral", "gpt_oss", "glm4_moe", "dots1", "minimax_m2", "llama"):
        found["head_dim"] = dim
        if int(dim * share) % 2:
            share = 1.0
        if family == "llama":  # transformers wants it so, though head_dim says otherwise.
            found["hidden_size"] = found["num_attention_heads"] * r.choice([32, 64] if plain else [10, 16])
    else:
        if plain:
            dim = r.choice([32, 64])
        found["hidden_size"] = found["num_attention_heads"] * dim
    found["rope_parameters"] = rope(r, family, int(dim * share), plain)
    if family in ("glm4_moe", "minimax_m2"):
        found["rope_parameters"]["partial_rotary_factor"] = share
    return found


def latent(r, family, plain):
    heads, rotary = r.choice([1, 2, 3, 5, 8]), r.choice([4, 8, 16, 20])
    found = dict(hidden_size=heads * r.choice([32, 64] if plain else [12, 20, 32]), num_attention_heads=heads, num_key_value_heads=heads, kv_lora_rank=r.choice([12, 32, 40, 64]), q_lora_rank=r.choice([None, 24, 48, 96]),
                 qk_nope_head_dim=r.choice([8, 20, 32]), qk_rope_head_dim=rotary, v_head_dim=r.choice([8, 24, 40]), rope_parameters=rope(r, family, rotary, plain))
    if not plain:
        found["attention_bias"] = r.random() < 0.3
    return found


def of_family(r, family, layers, plain):
    flip = lambda p=0.5: r.random() < p
    biased = dict(attention_bias=flip()) if not plain else {}
    dense = dict(intermediate_size=widths(r, plain), moe_intermediate_size=widths(r, plain))
    shared = dict(n_shared_experts=r.randint(1, 3), first_k_dense_replace=r.randint(0, layers), routed_scaling_factor=r.choice([0.8, 1.0, 2.5, 16.0]))
    if family == "llama":
        return dict(intermediate_size=widths(r, plain), attention_bias=flip(), mlp_bias=flip())
    if family == "qwen3":
        window = dict(use_sliding_window=True, sliding_window=r.choice([3, 16, 21]), max_window_layers=r.randint(0, layers)) if flip() and not plain else {}
        return dict(intermediate_size=widths(r, plain), **biased, **window)
    if family == "qwen3_moe":
        window = dict(use_sliding_window=True, sliding_window=r.choice([3, 16, 21])) if flip(0.3) and not plain else {}
        only = [] if plain else sorted(r.sample(range(layers), r.randint(0, layers - 1)))
        return dict(dense, **experts(r, "num_experts"), **biased, **window, norm_topk_prob=plain or flip(), decoder_sparse_step=1 if plain else r.choice([1, 1, 2]),
                    mlp_only_layers=only)
    if family == "qwen2_moe":
        window = dict(use_sliding_window=True, sliding_window=r.choice([3, 16, 21]), max_window_layers=r.randint(0, layers)) if flip() and not plain else {}
        return dict(dense, **experts(r, "num_experts"), **window, norm_topk_prob=not plain and flip(), qkv_bias=flip(0.7), shared_expert_intermediate_size=widths(r, plain),
                    decoder_sparse_step=r.choice([1, 1, 2]), mlp_only_layers=sorted(r.sample(range(layers), r.randint(0, layers - 1))))
    if family in ("olmoe", "flex_olmo"):
        clip = dict(clip_qkv=r.choice([0.5, 2.0])) if family == "olmoe" and flip() else {}
        return dict(intermediate_size=widths(r, plain), **experts(r, "num_experts"), **biased, **clip, norm_topk_prob=not plain and flip())
    if family == "mixtral":
        return dict(intermediate_size=widths(r, plain), **experts(r, "num_local_experts"), sliding_window=r.choice([None, None, 2, 19]) if not plain else None)
    if family == "phimoe":
        return dict(intermediate_size=widths(r, plain), num_local_experts=r.randint(2, 12), num_experts_per_tok=2, **biased, lm_head_bias=flip(),
                    router_jitter_noise=r.choice([0.01, 0.1, 0.4]), sliding_window=r.choice([None, 5, 20]))
    if family == "granitemoe":
        return dict(intermediate_size=widths(r, plain), **experts(r, "num_local_experts"), **biased, embedding_multiplier=r.choice([0.7, 1.0, 12.0]),
                    logits_scaling=r.choice([0.8, 1.0, 6.0]), residual_multiplier=r.choice([0.22, 1.0]), attention_multiplier=r.choice([0.0156, 0.3]))
    if family == "gpt_oss":
        return dict(intermediate_size=widths(r, plain), **experts(r, "num_local_experts"), swiglu_limit=r.choice([1.5, 7.0]),
                    **(dict(sliding_window=r.choice([4, 16, 128])) if plain else windows(r, layers)), **(dict(attention_bias=False) if flip(0.2) and not plain else {}))
    if family == "glm4_moe":
        return dict(dense, **grouped_experts(r), **shared, attention_bias=flip(), use_qk_norm=flip(), norm_topk_prob=flip(), num_nextn_predict_layers=0)
    if family == "dots1":
        window = dict(sliding_window=r.choice([3, 16, 21]), max_window_layers=r.randint(0, layers)) if flip() else dict(sliding_window=None)
        return dict(dense, **grouped_experts(r), **shared, **biased, **window, norm_topk_prob=flip())
    if family == "minimax_m2":
        return dict(intermediate_size=widths(r, plain), **experts(r, "num_local_experts"))
    if family == "ernie4_5_moe":
        number = experts(r, "moe_num_experts")
        return dict(dense, moe_num_experts=number["moe_num_experts"], moe_k=number["num_experts_per_tok"], moe_num_shared_experts=r.randint(1, 3), use_bias=flip(),
                    moe_layer_start_index=r.randint(0, layers - 1), moe_layer_interval=r.choice([1, 1, 2]), moe_layer_end_index=r.choice([-1, layers - 1]))
    if family == "deepseek_v2":
        number = experts(r, "n_routed_experts")
        return dict(dense, **number, **shared, topk_method="greedy", norm_topk_prob=False)
    if family == "deepseek_v2_group":
        return dict(dense, **grouped_experts(r), **shared, topk_method="group_limited_greedy", norm_topk_prob=False)
    return dict(dense, **grouped_experts(r), **shared, norm_topk_prob=flip(), rope_interleave=plain or flip(0.7))


def config(family, r, plain=False):
    """plain: in what a GGUF file of this family can say, with rows that quantised blocks fit."""
    layers = r.randint(2, 4)
    arguments = dict(BASE, vocab_size=r.randint(61, 400), hidden_size=r.choice([64, 96, 256] if plain else [24, 40, 50, 64, 72, 100, 136]),
                     num_hidden_layers=layers, tie_word_embeddings=r.random() < 0.4, rms_norm_eps=r.choice([1e-6, 1e-5, 1e-3]),
                     max_position_embeddings=r.choice([128, 256, 1000]))
    arguments |= latent(r, family, plain) if family in LATENT else attention(r, family, plain)
    arguments |= of_family(r, family, layers, plain)
    if family == "gpt_oss" and r.random() < 0.4:  # Sizes that MXFP4 fits.
        arguments |= dict(hidden_size=r.choice([32, 96]), intermediate_size=r.choice([32, 64, 160]))
    stem = CLASSES[family]
    return f"{stem}ForCausalLM", f"{stem}Config", arguments
