"""Small tokenizers that use the parts of tokenizer.json one by one, and what the tokenizers library makes of random text.

    pip install tokenizers==0.23.3
    python tokenizer_parts.py OUT_DIR [--seed N] [--cases N]

Writes OUT_DIR/NAME/tokenizer.json and OUT_DIR/NAME/cases.jsonl: text (or ids alone), ids, special (encoded with special
tokens), decoded and decoded_skip (of special). Absent: special = ids, decoded = text, decoded_skip = decoded.
"""
import argparse, json, pathlib, random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers as N, pre_tokenizers as P, processors, trainers

CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
WORD = r"[^\r\n\p{L}\p{N}]?"
LLAMA3 = rf"{CONTRACTION}|{WORD}\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{SPACES}"
O200K = (rf"{WORD}{UPPER}*{LOWER}+{CONTRACTION}?|{WORD}{UPPER}+{LOWER}*{CONTRACTION}?|\p{{N}}{{1,3}}"
         rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{SPACES}")
CL100K = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+")
KIMI = (r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{SPACES}")
TRAINING = [
    "The quick brown fox jumps over the lazy dog, don't they? I'll say it's so.", "def f(x):\n    return x + 1  # comment\n\n\nclass A:\n\tpass\n",
    "caf\u00e9 na\u00efve \u00c5ngstr\u00f6m stra\u00dfe \u4f60\u597d\u4e16\u754c \u041f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440 \u3053\u3093\u306b\u3061\u306f", "1234567 3.14 2026-11-22 $5.00 100%", "HELLO World camelCase snake_case",
    "the the the and and of of in in to to that that is is was was for for", "e\u0301 a\u0300 n\u0303 \u1ed9 \ufb01 \u00b2", "   spaces    here\t\ttabs\r\nlines\n\n", "\U0001f600\U0001f603 !!! ??? ... --- ((x)) [y] {z} <tag>"]


def byte_level(split, **options):
    return P.Sequence([*split, P.ByteLevel(add_prefix_space=False, use_regex=False)]), decoders.ByteLevel()


def isolated(pattern):
    return P.Split(Regex(pattern), "isolated")


def tokenizer(pre=None, normalizer=None, decoder=None, model=None, special=(), added=(), alphabet=(), vocabulary=420):
    made = Tokenizer(models.BPE(**(model or {})))
    if normalizer is not None:
        made.normalizer = normalizer
    if pre is not None:
        made.pre_tokenizer = pre
    tokens = [*special, *([f"<0x{i:02X}>" for i in range(256)] if (model or {}).get("byte_fallback") else [])]
    made.train_from_iterator(TRAINING * 3, trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=list(special), initial_alphabet=list(alphabet), show_progress=False))
    if (model or {}).get("byte_fallback"):
        document = json.loads(made.to_str())
        for token in tokens:
            document["model"]["vocab"].setdefault(token, len(document["model"]["vocab"]))
        made = Tokenizer.from_str(json.dumps(document))
    if decoder is not None:
        made.decoder = decoder
    for token in added:
        made.add_tokens([token])
    return made


def template(made, token):
    made.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(
        single=f"{token} $A", pair=f"{token} $A {token} $B", special_tokens=[(token, made.token_to_id(token))])])
    return made


def variants():
    alphabet = P.ByteLevel.alphabet()
    pre, decoder = byte_level([isolated(LLAMA3)])
    made = tokenizer(pre, decoder=decoder, model={"ignore_merges": True}, special=["<|begin|>", "<|end|>"], alphabet=alphabet)
    yield "llama3", template(made, "<|begin|>")
    pre, decoder = byte_level([isolated(O200K)])
    yield "o200k", tokenizer(pre, decoder=decoder, special=["<|endoftext|>"], alphabet=alphabet)
    pre, decoder = byte_level([isolated(CL100K)])
    yield "cl100k", tokenizer(pre, normalizer=N.NFKC(), decoder=decoder, alphabet=alphabet)
    pre, decoder = byte_level([isolated(KIMI)])
    yield "kimi", tokenizer(pre, decoder=decoder, alphabet=alphabet)
    pre, decoder = byte_level([P.Digits(individual_digits=True), P.Punctuation("contiguous"), isolated(r"\s?\p{L}+")])
    yield "digits", tokenizer(pre, normalizer=N.Sequence([N.NFD(), N.StripAccents()]), decoder=decoder, alphabet=alphabet)
    yield "gpt2", tokenizer(P.ByteLevel(add_prefix_space=True, use_regex=True), decoder=decoders.ByteLevel(), special=["<|endoftext|>"], alphabet=alphabet)
    yield "byte_normalizer", tokenizer(None, normalizer=N.ByteLevel(), decoder=decoders.ByteLevel(), alphabet=alphabet)

    fallback = {"byte_fallback": True, "fuse_unk": True, "unk_token": "<unk>"}
    llama2 = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    special = ["<unk>", "<s>", "</s>"]
    made = tokenizer(P.Metaspace(prepend_scheme="always", split=False), decoder=llama2, model=fallback, special=special, vocabulary=300)
    document = json.loads(made.to_str())  # As published: a normaliser in place of the pre-tokenizer.
    document["pre_tokenizer"] = None
    document["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"}, {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]}
    made = Tokenizer.from_str(json.dumps(document))
    yield "llama2", template(made, "<s>")
    for scheme in ("first", "always", "never"):
        for split in (True, False):
            made = tokenizer(P.Metaspace(prepend_scheme=scheme, split=split), decoder=decoders.Metaspace(prepend_scheme=scheme),
                             model={"unk_token": "<unk>", "fuse_unk": split}, special=special, vocabulary=260)
            yield f"metaspace_{scheme}_{'split' if split else 'whole'}", template(made, "<s>")
    clean = N.Sequence([N.Strip(left=True, right=False), N.Lowercase(), N.NFD(), N.StripAccents(), N.Replace(Regex(r"\d+"), "#")])
    made = tokenizer(P.Whitespace(), normalizer=clean, model={"unk_token": "<unk>"}, special=["<unk>", "<cls>", "<sep>"], vocabulary=200)
    made.post_processor = processors.RobertaProcessing(("<sep>", 2), ("<cls>", 1))
    yield "words", made
    yield "bert", tokenizer(P.BertPreTokenizer(), normalizer=N.Sequence([N.NFKD(), N.Strip()]), model={"unk_token": "<unk>", "fuse_unk": True}, special=["<unk>"], vocabulary=200)
    yield "delimiter", tokenizer(P.Sequence([P.CharDelimiterSplit("-"), P.WhitespaceSplit()]), model={"unk_token": "<unk>"}, special=["<unk>"], vocabulary=200)
    flags = [AddedToken("<l>", lstrip=True), AddedToken("<r>", rstrip=True), AddedToken("<lr>", lstrip=True, rstrip=True), AddedToken("<w>", single_word=True),
             AddedToken("caf\u00e9", normalized=True), AddedToken("\ufb01", normalized=False), AddedToken("<n>", normalized=False, special=True), AddedToken("new"), AddedToken("news", special=True)]
    pre, decoder = byte_level([isolated(LLAMA3)])
    yield "added", tokenizer(pre, normalizer=N.NFC(), decoder=decoder, added=flags, alphabet=alphabet)


POOLS = [(0x20, 0x7e), (0x20, 0x7e), (0xa0, 0x24f), (0x300, 0x36f), (0x370, 0x52f), (0x590, 0x6ff), (0x900, 0xd7f), (0x3040, 0x30ff), (0x4e00, 0x9fff), (0xac00, 0xd7a3), (0x1f300, 0x1faff), (0x2000, 0x2bff), (0, 0x10ffff)]
PIECES = ["'s", "'LL", "don't", "  ", "\n", "\r\n", "\t", " \n ", "123", "12345", "\u00b2", "\u2581", "caf\u00e9", "cafe\u0301", "\ufb01", "the ", " and", "Hello", "WORLD", "camelCase", "-", "--", "...", "\u4f60\u597d", "\u1112\u1161\u11ab", "\u0130", "\u01c5", "a\u0301\u0323", "\U0001f600", "<0x41>", "new", "news", "$5", "\u3000", "\u00a0", "_", "x_1", "/", "!\n"]


def texts(stream, tokens, count):
    yield from ["", " ", "a", "  a  ", "\n\n", "Hello world", " Hello", "caf\u00e9 cafe\u0301"]
    for _ in range(count):
        parts = []
        for _ in range(stream.randint(1, 12)):
            kind = stream.random()
            if kind < 0.2 and tokens:
                parts.append(stream.choice(tokens))
            elif kind < 0.65:
                parts.append(stream.choice(PIECES))
            else:
                low, high = stream.choice(POOLS)
                parts.append("".join(chr(p) for p in (stream.randint(low, high) for _ in range(stream.randint(1, 6))) if not 0xd800 <= p < 0xe000))
        yield "".join(parts)


def cases(made, name, seed, count):
    stream = random.Random(f"{name} {seed}")
    tokens = [t.content for t in made.get_added_tokens_decoder().values()]
    for text in texts(stream, tokens, count):
        ids, special = made.encode(text, add_special_tokens=False).ids, made.encode(text, add_special_tokens=True).ids
        line = {"text": text, "ids": ids, "special": special, "decoded": made.decode(special, skip_special_tokens=False), "decoded_skip": made.decode(special, skip_special_tokens=True)}
        for field, default in (("decoded_skip", "decoded"), ("decoded", "text"), ("special", "ids")):
            if line[field] == line[default]:
                del line[field]
        yield line
    for _ in range(count // 4):
        ids = [stream.randrange(made.get_vocab_size()) for _ in range(stream.randint(1, 12))]
        line = {"ids": ids, "decoded": made.decode(ids, skip_special_tokens=False), "decoded_skip": made.decode(ids, skip_special_tokens=True)}
        yield line


def write_folders(made, lines):
    """For each name in `made`, whose function gives the content of a tokenizer.json: that file and its cases.jsonl, in a folder of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cases", type=int, default=60)
    parser.add_argument("--only", help="a list of names")
    arguments = parser.parse_args()
    for name, content in made.items():
        if arguments.only and name not in arguments.only.split(","):
            continue
        folder = arguments.out / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tokenizer.json").write_text(json.dumps(content()) + "\n")
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        with open(folder / "cases.jsonl", "w") as file:
            for line in lines(tokenizer, name, arguments.seed, arguments.cases):
                file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    write_folders({name: lambda made=made: json.loads(made.to_str()) for name, made in variants()}, cases)
