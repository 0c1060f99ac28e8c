"""Random checkpoints of every family, as directories and as GGUF, through `bullpen logits` and through transformers.

    pip install torch transformers==5.23.0 safetensors gguf numpy
    python random_variants.py BULLPEN WORK_DIR [--first SEED] [--count N] [--only FAMILY,...] [--gguf]

One line each: family, seed, how it was written, largest logit error. A checkpoint whose error is above 1e-3 stays in WORK_DIR. The reference
is transformers in float32 from the folder as save_pretrained wrote it; Bullpen reads a copy that is spelled, cut and stored otherwise.
"""
import argparse, json, pathlib, random, re, shutil, subprocess, sys, zlib

import torch, transformers
from safetensors.torch import load_file, save_file

import gguf_variants
from longrope import by_length
from make_goldens import dequantise_mxfp4, init_weights, load, quantise_mxfp4
from random_configs import CLASSES, PROMPT, config

TOLERANCE = 1e-3
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@torch.no_grad()
def build(family, r, folder, plain, dtype):
    model_class, config_class, arguments = config(family, r, plain)
    made = getattr(transformers, config_class)(**arguments)
    model = getattr(transformers, model_class)(made).eval()
    init_weights(model, family, r.randrange(1 << 30))
    for tensor in [*model.parameters(), *model.buffers()]:
        if dtype == torch.float32:
            tensor.mul_(1 + 1e-3 * torch.rand_like(tensor))  # Else each would be a bfloat16.
        tensor.data = tensor.data.to(dtype)
    made.dtype = dtype
    model.save_pretrained(folder, max_shard_size=r.choice(["1GB", "100KB", "20KB"]))


def read(folder):
    return json.loads((folder / "config.json").read_text()), {n: t for f in sorted(folder.glob("*.safetensors")) for n, t in load_file(f).items()}


def write(folder, settings, tensors, shards):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(settings))
    names, files = sorted(tensors), {}
    for index in range(shards):
        file = f"model-{index + 1:05}-of-{shards:05}.safetensors" if shards > 1 else "model.safetensors"
        part = names[index::shards]
        save_file({n: tensors[n].contiguous() for n in part}, folder / file, metadata={"format": "pt"})
        files |= dict.fromkeys(part, file)
    if shards > 1:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))


def released(settings, family):
    """The keys of config.json as hubs have them."""
    made = {k: v for k, v in settings.items() if k not in ("rope_parameters", "transformers_version", "dtype")}
    rope = dict(settings["rope_parameters"])
    made |= {"torch_dtype": settings["dtype"], "rope_theta": rope.pop("rope_theta")}
    share = rope.pop("partial_rotary_factor", None)
    if share is not None:
        made |= {"rotary_dim": int(share * settings["head_dim"])} if family == "minimax_m2" else {"partial_rotary_factor": share}
    kind = rope.pop("rope_type")
    made["rope_scaling"] = None if kind == "default" else {"type": kind, **rope}
    if "num_local_experts" in made and family in ("qwen3_moe", "qwen2_moe", "olmoe", "flex_olmo"):
        made["num_experts"] = made.pop("num_local_experts")
    return made


def fuse(tensors):
    """Experts one by one -> [E, 2I, H] and [E, H, I]."""
    kept, stacks = {}, {}
    for name, tensor in tensors.items():
        at = re.fullmatch(r"(.*)\.\w+\.experts\.(\d+)\.(\w+?)(?:_proj)?\.weight", name)
        if not at:
            kept[name] = tensor
            continue
        part = {"w1": "gate", "w3": "up", "w2": "down"}.get(at[3], at[3])
        stacks.setdefault(f"{at[1]}.mlp.experts", {}).setdefault(int(at[2]), {})[part] = tensor
    for base, found in stacks.items():
        parts = [found[e] for e in sorted(found)]
        kept[base + ".gate_up_proj"] = torch.stack([torch.cat([p["gate"], p["up"]]) for p in parts])
        kept[base + ".down_proj"] = torch.stack([p["down"] for p in parts])
    return kept


def fp8(settings, tensors, r):
    """Matrices of projections as E4M3 with a scale for each block; returns their values too."""
    rows, cols = r.choice([(128, 128), (16, 24), (7, 64)])
    settings["quantization_config"] = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [rows, cols]}
    stored, values = dict(tensors), dict(tensors)
    for name, tensor in tensors.items():
        if not name.endswith("_proj.weight") or tensor.dim() != 2:
            continue
        height, width = tensor.shape
        scale = torch.rand(-(-height // rows), -(-width // cols)) * 1e-2 + 1e-3
        spread = scale.repeat_interleave(rows, 0)[:height].repeat_interleave(cols, 1)[:, :width]
        code = (tensor.float() / spread).clamp(-448, 448).to(torch.float8_e4m3fn)
        stored |= {name: code, name + "_scale_inv": scale}
        values[name] = code.float() * spread
    return stored, values


def mxfp4(settings, tensors):
    settings["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router"]}
    stored, values = {}, dict(tensors)
    for name, tensor in tensors.items():
        if not name.endswith(("gate_up_proj", "down_proj")):
            stored[name] = tensor
            continue
        blocks, scales = quantise_mxfp4(tensor.transpose(1, 2))
        stored |= {name + "_blocks": blocks, name + "_scales": scales}
        values[name] = dequantise_mxfp4(blocks, scales).transpose(1, 2)
    return stored, values


def respell(family, r, folder, copy):
    """Writes `copy`; where values change, `folder` gets them. Returns what was done."""
    settings, tensors = read(folder)
    done, values, width = [], None, settings["hidden_size"]
    if family == "gpt_oss" and width % 32 == 0 and settings["intermediate_size"] % 32 == 0 and r.random() < 0.7:
        tensors, values = mxfp4(settings, tensors)
        done.append("mxfp4")
    elif family not in ("gpt_oss", "granitemoe") and r.random() < 0.2:
        tensors, values = fp8(settings, tensors, r)
        done.append("fp8")
    elif r.random() < 0.3 and any(".experts.0." in n for n in tensors):
        tensors = fuse(tensors)
        done.append("fused")
    if values is not None:
        plain, _ = read(folder)
        for file in folder.glob("*.safetensors*"):
            file.unlink()
        save_file({n: t.contiguous() for n, t in values.items()}, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps(plain))
    if r.random() < 0.5:
        settings = released(settings, family)
        done.append("released")
    if r.random() < 0.25:
        inner, settings = settings, {"model_type": "some_wrapper", "vision_config": {"hidden_size": 7}}
        settings["text_config"] = dict(inner, model_type=inner["model_type"] + r.choice(["", "_text"]))
        tensors = {re.sub(r"^model\.", "model.language_model.", n): t for n, t in tensors.items()}
        done.append("wrapped")
    shards = r.choice([1, 1, 2, 5])
    write(copy, settings, tensors, shards)
    return "+".join([*done, f"{shards} file" + "s" * (shards > 1)])


@torch.no_grad()
def compare(bullpen, reference, source, work, r):
    """The largest logit error, or the message of a refusal."""
    model = by_length(load(reference))
    prompt = [r.randrange(3, model.config.vocab_size) for _ in range(PROMPT)]
    wanted = model(input_ids=torch.tensor([prompt]), use_cache=False).logits[0]
    out = work / "logits.safetensors"
    run = subprocess.run([bullpen, "logits", source, "--ids", ",".join(map(str, prompt)), "--out", out, "--activations", "f32", "--cache-dir", work / "cache"],
                         capture_output=True, text=True)
    if run.returncode:
        return run.stderr.strip().splitlines()[-1]
    difference = (load_file(out)["logits"] - wanted).abs().max()
    return float(difference) if wanted.isfinite().all() else "the reference is not finite"


def variant(bullpen, family, seed, folder, as_gguf):
    r = random.Random(zlib.crc32(f"{family} {seed} {as_gguf}".encode()))
    shutil.rmtree(folder, ignore_errors=True)
    dtype = "fp32" if as_gguf else r.choice(list(DTYPES))
    build(family, r, folder / "made", as_gguf, DTYPES[dtype])
    if as_gguf:
        source, how = gguf_variants.write(folder / "made", folder / "gguf", r)
    else:
        source, how = folder / "copy", f"{dtype} " + respell(family, r, folder / "made", folder / "copy")
    return how, compare(bullpen, folder / "made", source, folder, r)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bullpen", type=pathlib.Path)
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--only")
    parser.add_argument("--gguf", action="store_true")
    arguments = parser.parse_args()
    families = arguments.only.split(",") if arguments.only else [f for f in CLASSES if not arguments.gguf or f in gguf_variants.ARCHITECTURES]
    bad, largest = 0, 0.0
    for seed in range(arguments.first, arguments.first + arguments.count):
        for family in families:
            folder = arguments.work / f"{family}-{seed}{'-gguf' if arguments.gguf else ''}"
            how, error = variant(arguments.bullpen, family, seed, folder, arguments.gguf)
            good = isinstance(error, float) and error < TOLERANCE
            print(f"{'ok ' if good else 'BAD'} {family:18} {seed:4} {error if isinstance(error, str) else f'{error:.1e}'}  {how}", flush=True)
            bad += not good
            if good:
                largest = max(largest, error)
                shutil.rmtree(folder)
    print(f"{bad} of {arguments.count * len(families)} differ; the largest error of the others is {largest:.1e}")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
