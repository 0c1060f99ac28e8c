"""Checkpoints as GGUF with a random type for each matrix and in several files; used by random_variants.py."""
import json, re

import gguf, numpy as np, torch
from gguf import GGMLQuantizationType as QT
from safetensors.torch import load_file, save_file

import gguf_families
from gguf_goldens import QUANT_BLOCKS

ARCHITECTURES = {"qwen3_moe": "qwen3moe", "qwen2_moe": "qwen2moe", "olmoe": "olmoe", "mixtral": "llama", "llama": "llama", "qwen3": "qwen3",
                 "glm4_moe": "glm4moe", "gpt_oss": "gpt-oss", "deepseek_v2": "deepseek2", "deepseek_v2_group": "deepseek2", "deepseek_v3": "deepseek2"}
QUANTISED = [QT.Q8_0, QT.Q4_0, QT.Q4_1, QT.Q5_0, QT.Q5_1, QT.MXFP4]
DRAWN = {QT.Q2_K: 1.5, QT.Q3_K: 0, QT.Q4_K: 7.5, QT.Q5_K: 15.5, QT.Q6_K: 0, QT.IQ4_NL: 0, QT.IQ4_XS: 0}  # -> minimum over scale that centres them


def drawn_blocks(kind, shape, spread, random):
    """Random valid blocks whose values deviate by about `spread`: the package cannot quantise to these types."""
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = random.integers(0, 256, (*shape[:-1], shape[-1] // elements, size), dtype=np.uint8)

    def with_scale(scale):
        for offset, value in zip(QUANT_BLOCKS[kind], (scale, scale * DRAWN[kind])):
            blocks[..., offset:offset + 2] = np.array([value], np.float16).view(np.uint8)
        return blocks.reshape(*shape[:-1], -1)

    return with_scale(spread / gguf.dequantize(with_scale(1.0), kind).std())


def store(name, array, r, random):
    """(array to write, its type or None, the values it holds)."""
    if array.ndim < 2 or re.search(r"ffn_gate_inp|\.bias$", name):
        return array, None, array
    kinds = [QT.F32, QT.F16, QT.BF16]
    if array.shape[-1] % 32 == 0:
        kinds = [QT.BF16, *QUANTISED, QT.IQ4_NL]
    if array.shape[-1] % 256 == 0:
        kinds = list(DRAWN)
    kind = r.choice(kinds)
    if kind == QT.F32:
        return array, None, array
    if kind == QT.F16:
        half = array.astype(np.float16)
        return half, None, half.astype(np.float32)
    raw = drawn_blocks(kind, array.shape, array.std(), random) if kind in DRAWN else gguf.quantize(array, kind)
    return raw, kind, gguf.dequantize(raw, kind).reshape(array.shape).astype(np.float32)


def canonical(state):
    """The names and orders that gguf_families.tensors knows, whatever the family calls its experts."""
    for name, array in state.items():
        name = name.replace(".block_sparse_moe.", ".mlp.")
        for old, new in (("w1", "gate_proj"), ("w3", "up_proj"), ("w2", "down_proj")):
            name = re.sub(rf"\.experts\.(\d+)\.{old}\.", rf".experts.\1.{new}.", name)
        turned = re.fullmatch(r"(.*\.experts)\.(gate_up|down)_proj", name)  # gpt-oss: [E, in, out]
        if not turned:
            yield name, array
            continue
        rows = array.swapaxes(1, 2)
        parts = {"gate": rows[:, 0::2], "up": rows[:, 1::2]} if turned[2] == "gate_up" else {"down": rows}
        for part, matrices in parts.items():
            for expert, matrix in enumerate(matrices):
                yield f"{turned[1]}.{expert}.{part}_proj.weight", matrix


def write(made, folder, r):
    """Writes the checkpoint `made` as GGUF, and the values that the file holds back to `made`. Returns the file to open, and how it is."""
    settings = json.loads((made / "config.json").read_text())
    state = {n: t.float() for f in made.glob("*.safetensors") for n, t in load_file(f).items()}
    arch, random = ARCHITECTURES[settings["model_type"]], np.random.default_rng(r.randrange(1 << 30))
    # The number of each weight goes where the weight goes, and says in the end whose value it was.
    flat, places, start = np.concatenate([t.numpy().reshape(-1) for t in state.values()]), {}, 0
    for name, tensor in state.items():
        places[name] = np.arange(start, start + tensor.numel()).reshape(tensor.shape)
        start += tensor.numel()
    folder.mkdir()
    limit = r.choice([0, 0, 7, 20])
    writer = gguf.GGUFWriter(folder / "model.gguf", arch, split_max_tensors=limit)
    gguf_families.metadata(writer, arch, settings)
    rope = settings["rope_parameters"]
    if rope["rope_type"] == "linear":
        writer.add_string(f"{arch}.rope.scaling.type", "linear"), writer.add_float32(f"{arch}.rope.scaling.factor", rope["factor"])
    if settings.get("clip_qkv"):
        writer.add_float32(f"{arch}.attention.clamp_kqv", settings["clip_qkv"])
    writer.add_tokenizer_model("none")
    if rope["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", gguf_families.llama3_divisors(settings, rope))
    kinds = set()
    for name, place, _ in gguf_families.tensors(arch, settings, dict(canonical(places))):
        array, kind, values = store(name, np.ascontiguousarray(flat[place]), r, random)
        writer.add_tensor(name, np.ascontiguousarray(array), raw_dtype=kind)
        flat[place] = values
        kinds.add(kind.name if kind else str(array.dtype))
    writer.write_header_to_file(), writer.write_kv_data_to_file(), writer.write_tensors_to_file(), writer.close()
    for file in made.glob("*.safetensors*"):
        file.unlink()
    save_file({n: torch.from_numpy(flat[place]) for n, place in places.items()}, made / "model.safetensors", metadata={"format": "pt"})
    files = sorted(folder.glob("*.gguf"))
    return files[r.randrange(len(files))], f"{len(files)} files, " + " ".join(sorted(kinds))
