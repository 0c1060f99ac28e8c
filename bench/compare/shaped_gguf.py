"""Writes a GGUF file in the shapes of a real model with noise in it.

What is moved and computed matters to a benchmark, and what it means does not:
all layers share the same random Q4_K blocks, centred and scaled so that values
stay sane. Routers and norms are F32, everything else is Q4_K. There is no
tokenizer.
"""

import dataclasses

import gguf
import numpy

BLOCK = 256  # values of a Q4_K block
BLOCK_BYTES = 144


@dataclasses.dataclass
class Shape:
    """An OLMoE-1B-7B of fewer layers and tokens."""

    layers: int = 16
    vocabulary: int = 8192
    hidden: int = 2048
    heads: int = 16
    experts: int = 64
    experts_per_token: int = 8
    expert_width: int = 1024
    context: int = 4096


def q4_k(random, *shape):
    """Random blocks for a matrix; the bytes' shape, as the writer wants it.

    A value is d * scale * q - dmin * min with scale and min of 6 bits and q of
    4: with dmin = 7.5 d its mean is zero and its deviation about 200 d.
    """
    cols = shape[-1]
    blocks = numpy.prod(shape) // BLOCK
    data = random.integers(0, 256, (blocks, BLOCK_BYTES), dtype=numpy.uint8)
    d = 1 / (200 * numpy.sqrt(cols))
    data[:, :4] = numpy.array([d, 7.5 * d], numpy.float16).view(numpy.uint8)
    return data.reshape(*shape[:-1], cols // BLOCK * BLOCK_BYTES)


def add_tensors(writer, shape):
    random = numpy.random.default_rng(1)
    hidden, width = shape.hidden, shape.expert_width
    ones = numpy.ones(hidden, numpy.float32)
    square = q4_k(random, hidden, hidden)
    wide = q4_k(random, shape.experts, width, hidden)
    narrow = q4_k(random, shape.experts, hidden, width)
    table = q4_k(random, shape.vocabulary, hidden)

    def add(name, blocks):
        writer.add_tensor(name, blocks, raw_dtype=gguf.GGMLQuantizationType.Q4_K)

    add("token_embd.weight", table)
    add("output.weight", table)
    writer.add_tensor("output_norm.weight", ones)
    for layer in range(shape.layers):
        block = f"blk.{layer}"
        for norm in ("attn_norm", "attn_q_norm", "attn_k_norm", "ffn_norm"):
            writer.add_tensor(f"{block}.{norm}.weight", ones)
        for matrix in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"{block}.{matrix}.weight", square)
        router = random.normal(0, hidden**-0.5, (shape.experts, hidden))
        writer.add_tensor(f"{block}.ffn_gate_inp.weight", router.astype(numpy.float32))
        add(f"{block}.ffn_gate_exps.weight", wide)
        add(f"{block}.ffn_up_exps.weight", wide)
        add(f"{block}.ffn_down_exps.weight", narrow)


def write(path, shape):
    writer = gguf.GGUFWriter(path, "olmoe")
    writer.add_block_count(shape.layers)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_feed_forward_length(shape.expert_width)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_expert_count(shape.experts)
    writer.add_expert_used_count(shape.experts_per_token)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_tokenizer_model("none")
    add_tensors(writer, shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
