"""Small SentencePiece models that use the options of the format one by one, and what sentencepiece makes of random text.

    pip install tokenizers==0.23.3 sentencepiece==0.2.3
    python sentencepiece_parts.py OUT_DIR TRAINING_TEXT [--seed N] [--cases N]

Writes OUT_DIR/NAME/tokenizer.model and OUT_DIR/NAME/cases.jsonl: text (or ids alone), ids, special (BOS and ids), decoded
(of ids; absent: it equals text).
"""
import argparse, json, pathlib, random, tempfile

import sentencepiece

from tokenizer_parts import TRAINING, texts

VARIANTS = {
    "sp_user": dict(byte_fallback=True, user_defined_symbols=["<x>", "[INST]", "  ", "news"], control_symbols=["<ctl>"]),
    "sp_strip": dict(remove_extra_whitespaces=True), "sp_no_prefix": dict(add_dummy_prefix=False),
    "sp_ids": dict(unk_id=3, bos_id=0, eos_id=2, pad_id=1, byte_fallback=True, split_by_whitespace=False, allow_whitespace_only_pieces=True),
    "sp_nfkc": dict(normalization_rule_name="nmt_nfkc", remove_extra_whitespaces=True),
}


def cases(model, name, seed, count):
    stream = random.Random(f"{name} {seed}")
    for text in texts(stream, ["<x>", "[INST]", "<ctl>", "<s>"], count):
        ids = model.encode(text)
        line = {"text": text, "ids": ids, "special": [model.bos_id()] + ids, "decoded": model.decode(ids)}
        if line["decoded"] == text:
            del line["decoded"]
        yield line
    plain = [i for i in range(model.vocab_size()) if not model.is_control(i)]
    for _ in range(count // 4):
        ids = [stream.choice(plain) for _ in range(stream.randint(1, 12))]
        yield {"ids": ids, "decoded": model.decode(ids)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("training", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cases", type=int, default=60)
    arguments = parser.parse_args()
    for name, options in VARIANTS.items():
        folder = arguments.out / name
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            text = pathlib.Path(scratch) / "text"
            text.write_text("\n".join(TRAINING * 5) + "\n" + arguments.training.read_text())
            sentencepiece.SentencePieceTrainer.train(
                input=str(text), model_prefix=f"{scratch}/made", vocab_size=600, model_type="bpe", hard_vocab_limit=False, minloglevel=2,
                character_coverage=0.98, **{"normalization_rule_name": "identity", "remove_extra_whitespaces": False, **options})
            (folder / "tokenizer.model").write_bytes((pathlib.Path(scratch) / "made.model").read_bytes())
        model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
        with open(folder / "cases.jsonl", "w") as file:
            for line in cases(model, name, arguments.seed, arguments.cases):
                file.write(json.dumps(line) + "\n")
