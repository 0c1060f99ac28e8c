"""Tokenizers put together as published ones are, over small vocabularies; written like the parts of tokenizer_parts.py.

    pip install tokenizers==0.23.3
    python published_tokenizers.py OUT_DIR [--seed N] [--cases N]

The normalizer, pre-tokenizer, post-processor, decoder and flags of added tokens are those of the models named below. A case has `pieces` too:
what each of `special` adds when it is streamed, where the library's stream agrees with its decoder.
"""
import json, random

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers

from tokenizer_goldens import pieces, strings
from tokenizer_parts import CL100K, LLAMA3, O200K, TRAINING, cases, write_folders

QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
GLM4 = LLAMA3
HAN = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
# Shortened to the scripts that the texts have; the published class lists every letter range.
DEEPSEEK_LETTERS = r"\s?[A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0370-\u0373\u0386\u0388-\u03ff\u0400-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u1e00-\u1f15]+"
DEEPSEEK_MARKS = "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"


def split(pattern, behavior="Isolated", invert=False):
    return {"type": "Split", "pattern": pattern if isinstance(pattern, dict) else {"Regex": pattern}, "behavior": behavior, "invert": invert}


def level(**options):
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True} | options


def sequence(kind, parts):
    key = {"N": "normalizers", "P": "pretokenizers", "D": "decoders", "X": "processors"}[kind]
    return {"type": "Sequence", key: parts}


def before(*tokens):
    """Template with tokens in front."""
    return {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": t, "type_id": 0}} for t in tokens] + [{"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": list(tokens)}


def replace(old, new):
    return {"type": "Replace", "pattern": {"String": old}, "content": new}


BYTES = level(add_prefix_space=True)  # As decoder, and where only offsets move.
SPACE = "\u2581"
FALLBACK = [replace(SPACE, " "), {"type": "ByteFallback"}, {"type": "Fuse"}]
LLAMA2 = sequence("N", [{"type": "Prepend", "prepend": SPACE}, replace(" ", SPACE)])
PIECES = ["<unk>", "<s>", "</s>"]


def special(*tokens, **flags):
    return [AddedToken(t, special=True, normalized=False, **flags) for t in tokens]


def plain(*tokens, **flags):
    return [AddedToken(t, special=False, **flags) for t in tokens]


PUBLISHED = {  # name -> the parts that differ from {}: a tokenizer without any
    "pub_llama3": dict(pre_tokenizer=sequence("P", [split(LLAMA3), level(use_regex=False)]), decoder=BYTES, model={"ignore_merges": True},
                       post_processor=sequence("X", [level(add_prefix_space=True, trim_offsets=False), before("<|begin_of_text|>")]),
                       added=special("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|python_tag|>")),
    "pub_gpt_oss": dict(pre_tokenizer=sequence("P", [split(O200K), level(use_regex=False)]), decoder=BYTES, post_processor=level(trim_offsets=False),
                        added=special("<|startoftext|>", "<|endoftext|>", "<|return|>", "<|channel|>", "<|start|>", "<|end|>", "<|message|>", "<|call|>")),
    "pub_glm4": dict(pre_tokenizer=sequence("P", [split(GLM4), level(use_regex=False)]), decoder=BYTES, post_processor=sequence("X", [level(trim_offsets=False)]),
                     added=special("<|endoftext|>", "[MASK]", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>")
                     + plain("<think>", "</think>", "<tool_call>", "<arg_key>", "/nothink", normalized=False)),
    "pub_qwen3": dict(normalizer={"type": "NFC"}, pre_tokenizer=sequence("P", [split(QWEN2), level(use_regex=False)]), decoder=BYTES, post_processor=level(trim_offsets=False),
                      added=special("<|endoftext|>", "<|im_start|>", "<|im_end|>") + plain("<tool_call>", "</tool_call>", "<think>", "</think>", normalized=False)),
    "pub_minimax": dict(pre_tokenizer=sequence("P", [split(LLAMA3), level(use_regex=False)]), decoder=BYTES, post_processor=level(add_prefix_space=True, trim_offsets=False),
                        added=special("]!p~[", "]~!b[", "]~b]", "[e~[", "]!d~[") + plain("<think>", "</think>", "<minimax:tool_call>", normalized=False)),
    "pub_olmo": dict(normalizer={"type": "NFC"}, pre_tokenizer=level(), decoder=BYTES, post_processor=before("<|endoftext|>"),
                     added=special("<|endoftext|>", "<|padding|>") + plain("  ", "    ", "        ", "|||IP_ADDRESS|||", "|||EMAIL_ADDRESS|||")),
    "pub_granite": dict(pre_tokenizer=sequence("P", [{"type": "Digits", "individual_digits": True}, level()]), decoder=BYTES, post_processor=level(add_prefix_space=True, trim_offsets=False),
                        added=special("<|end_of_text|>", "<fim_prefix>", "<reponame>", "<|start_of_role|>", "<|tool_call|>")),
    "pub_phi4": dict(pre_tokenizer=sequence("P", [split(CL100K, "Removed", True), level(use_regex=False)]), decoder=BYTES, post_processor=level(trim_offsets=False),
                     added=special("<|endoftext|>", "<|im_start|>", "<|im_sep|>", lstrip=True, rstrip=True) + special("<|fim_prefix|>")),
    "pub_deepseek_v2": dict(normalizer=sequence("N", []), decoder=BYTES, pre_tokenizer=sequence("P", [
        split("[\r\n]"), split(DEEPSEEK_LETTERS), split(DEEPSEEK_MARKS), split(r"\s+$"), split(HAN), {"type": "Digits", "individual_digits": True}, level(use_regex=False)]),
        post_processor=before("<\uff5cbegin\u2581of\u2581sentence\uff5c>"),
        added=[AddedToken("<\uff5cbegin\u2581of\u2581sentence\uff5c>", special=True, normalized=True), AddedToken("<\uff5cend\u2581of\u2581sentence\uff5c>", special=True, normalized=True)]
        + plain("<\uff5cfim\u2581hole\uff5c>", "<\uff5cUser\uff5c>", normalized=False)),
    "pub_mixtral": dict(normalizer=LLAMA2, decoder=sequence("D", [*FALLBACK, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]), post_processor=before("<s>"),
                        model={"byte_fallback": True, "fuse_unk": True, "unk_token": "<unk>"}, pieces=True, added=special(*PIECES)),
    "pub_mistral_v3": dict(pre_tokenizer={"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "first", "split": False}, pieces=True, post_processor=before("<s>"),
                           decoder=sequence("D", [*FALLBACK, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]),
                           model={"byte_fallback": True, "fuse_unk": True, "unk_token": "<unk>", "ignore_merges": False}, added=special(*PIECES, "[INST]", "[/INST]", "[TOOL_CALLS]")),
    "pub_phi3": dict(normalizer=LLAMA2, decoder=sequence("D", [*FALLBACK, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]), post_processor=before("<s>"),
                     model={"byte_fallback": True, "fuse_unk": True, "unk_token": "<unk>"}, pieces=True,
                     added=special(*PIECES) + special("<|assistant|>", "<|user|>", "<|end|>", rstrip=True)),
    "pub_chatml_llama2": dict(normalizer=LLAMA2, decoder=sequence("D", [*FALLBACK, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]), post_processor=before("<s>"),
                              model={"byte_fallback": True, "fuse_unk": True, "unk_token": "<unk>"}, pieces=True,
                              added=[AddedToken(t, special=True, normalized=True) for t in PIECES] + plain("<|im_start|>", "<|im_end|>", "<tool>")),
    "pub_ernie": dict(normalizer=sequence("N", [replace(" ", SPACE)]), decoder=sequence("D", FALLBACK), model={"byte_fallback": True, "fuse_unk": True, "unk_token": "<unk>"}, pieces=True,
                      added=special(*PIECES, "<|begin_of_sentence|>", "<|end_of_sentence|>") + plain("<mask:0>", normalized=False)),
    "pub_gemma": dict(normalizer=replace(" ", SPACE), pre_tokenizer=split({"String": " "}, "MergedWithPrevious"), decoder=sequence("D", FALLBACK), pieces=True,
                      model={"byte_fallback": True, "fuse_unk": True, "unk_token": "<unk>"}, post_processor=before("<bos>"),
                      added=special("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>") + plain("\n\n", "\n\n\n", SPACE * 2, SPACE * 3, "<table>", normalized=False)),
}


def vocabulary(parts):
    """BPE of the training texts, over bytes or over characters with a token for each byte."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>") if parts.get("pieces") else models.BPE())
    if parts.get("pieces"):
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
        tokens = [*(t.content for t in parts["added"][:6]), *(f"<0x{b:02X}>" for b in range(256))]
        trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=tokens, limit_alphabet=120, show_progress=False)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(vocab_size=480, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(TRAINING * 3, trainer)
    return json.loads(tokenizer.to_str())["model"]


def made(parts):
    document = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": parts.get("normalizer"), "pre_tokenizer": parts.get("pre_tokenizer"),
                "post_processor": None, "decoder": parts["decoder"], "model": vocabulary(parts) | parts.get("model", {})}
    tokenizer = Tokenizer.from_str(json.dumps(document))
    tokenizer.add_tokens(parts["added"])
    document = json.loads(tokenizer.to_str())
    document["post_processor"] = post = json.loads(json.dumps(parts.get("post_processor")))
    for step in post["processors"] if post and post["type"] == "Sequence" else [post]:
        if step and step["type"] == "TemplateProcessing":
            step["special_tokens"] = {t: {"id": t, "ids": [tokenizer.token_to_id(t)], "tokens": [t]} for t in step["special_tokens"]}
    return document


def lines(tokenizer, name, seed, count):
    added = [t.content for _, t in sorted(tokenizer.get_added_tokens_decoder().items())]
    long = [t for t in strings(added, seed) if len(t) < 300]
    texts = random.Random(f"{name} {seed}").sample(long, min(count, len(long)))
    for line in [*cases(tokenizer, name, seed, count), *({"text": t} for t in texts)]:
        if "ids" not in line:
            line["ids"], line["special"] = tokenizer.encode(line["text"], add_special_tokens=False).ids, tokenizer.encode(line["text"]).ids
            line["decoded"], line["decoded_skip"] = (tokenizer.decode(line["special"], skip_special_tokens=s) for s in (False, True))
        try:
            streamed = pieces(tokenizer, line.get("special", line["ids"]), False)
        except Exception:  # The library's stream refuses some sequences that its decoder takes.
            streamed = [""]
        decoded = line.get("decoded", line.get("text"))
        if "".join(streamed) == decoded and "\ufffd" not in decoded:
            line["pieces"] = streamed
        yield line


if __name__ == "__main__":
    write_folders({name: lambda parts=parts: made(parts) for name, parts in PUBLISHED.items()}, lines)
