#!/usr/bin/env python3
"""Compares what folders say of special and added tokens beside tokenizer.json with what transformers' AutoTokenizer makes of them.

usage: tests/differential_folders.py

Folders are made on the spot: tokenizer_config.json's added_tokens_decoder, named tokens and lists of them, special_tokens_map.json,
added_tokens.json, each alone and against the others. Compared are ids with and without the post-processor's tokens, and of each added token whether
it is hidden where special tokens are. Needs `make` to have run and the packages transformers and tokenizers; says so and exits 0 when they
are absent. The last line is "N folders, M differ"."""
import json, os, random, subprocess, sys, tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = "1"
try:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AutoTokenizer
except ImportError:
    print("skipped: the Python package transformers is not installed")
    sys.exit(0)

PROGRAM = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "build", "agent-memory")
TEXTS = ["hello <|a|> world<|b|>", "<|x|> hi <|end|>", "tool <tool> x </tool>", "  <|new|>  y", "plain <|a|><|a|> <|end|> <|sep|>z", "<s>hi</s>", "the fox<|extra|>", "NEW word New", "a<|p|>  b"]
NAMED = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token", "image_token"]
CONTENTS = ["<|a|>", "<|b|>", "<tool>", "<|end|>", "<|x|>", "</tool>", "<|new|>", "<|sep|>", "<s>", "<|extra|>", "<|p|>", "New", "fox", "he"]


def token(content, **flags):
    return {"content": content, "special": False, "normalized": False, "lstrip": False, "rstrip": False, "single_word": False, **flags}


def base():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(["the quick brown fox jumps over the lazy dog and runs, hello world 123"] * 20,
                          trainers.BpeTrainer(vocab_size=320, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return json.loads(t.to_str())


def folder(where, model, r):
    """One folder at random; the number of entries of its model."""
    n = len(model["model"]["vocab"])
    flags = lambda: dict(special=r.random() < .5, lstrip=r.random() < .2, rstrip=r.random() < .2, normalized=r.random() < .2)
    contents = r.sample(CONTENTS[:11], r.randrange(1, 6))
    post = None
    if r.random() < .3:
        post = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": contents[0], "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}], "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {contents[0]: {"id": contents[0], "ids": [n], "tokens": [contents[0]]}}}
    added = [{"id": n + i, **token(c, **flags())} for i, c in enumerate(contents)]
    more = r.sample([c for c in CONTENTS[:11] if c not in contents], r.choice([0, 0, 1, 2]))
    config = {"tokenizer_class": "PreTrainedTokenizerFast"}
    if r.random() < .5:
        config["added_tokens_decoder"] = {str(n + i): token(c, **flags()) for i, c in enumerate(contents + more) if i >= len(contents) or r.random() < .7}
    for name in r.sample(NAMED, r.randrange(4)): config[name] = r.choice(CONTENTS)
    if r.random() < .3: config["additional_special_tokens"] = r.sample(CONTENTS, 2)
    if r.random() < .2: config["extra_special_tokens"] = {"audio_token": r.choice(CONTENTS)}
    if r.random() < .2: config["add_bos_token"] = r.random() < .5
    files = {"tokenizer.json": {**model, "added_tokens": added, "post_processor": post}}
    if r.random() < .8: files["tokenizer_config.json"] = config
    if r.random() < .3 and "added_tokens_decoder" not in config:
        files["special_tokens_map.json"] = {name: r.choice([c, token(c)]) for name in r.sample(NAMED[:7], 2) if name not in config for c in [r.choice(CONTENTS)]}
    if r.random() < .2 and "added_tokens_decoder" not in config: files["added_tokens.json"] = {c: n + len(contents) + i for i, c in enumerate(more)}
    for name, content in files.items():
        with open(os.path.join(where, name), "w") as f: json.dump(content, f)
    return n


def ours(where, command, lines):
    run = subprocess.run([PROGRAM, "text", command, "--tokenizer", where], input="".join(json.dumps(line) + "\n" for line in lines).encode(), capture_output=True)
    return [json.loads(line) for line in run.stdout.splitlines()] or [{"error": run.stderr.decode()}] * len(lines)


def main():
    model, bad, count = base(), 0, 300
    for k in range(count):
        with tempfile.TemporaryDirectory() as where:
            n = folder(where, model, random.Random(k))
            theirs = AutoTokenizer.from_pretrained(where)
            wrong = []
            for add in (False, True):
                for text, got in zip(TEXTS, ours(where, "encode", [{"text": text, "add_special": add} for text in TEXTS])):
                    want = theirs.encode(text, add_special_tokens=add)
                    if got.get("ids") != want: wrong.append(f"{text!r} with ends {add}: want {theirs.convert_ids_to_tokens(want)}, got {got if 'ids' not in got else theirs.convert_ids_to_tokens(got['ids'])}")
            ids = [*range(n, len(theirs)), *(i for i in theirs.all_special_ids if i < n)]
            for i, got in zip(ids, ours(where, "decode", [{"ids": [i], "skip_special": True} for i in ids])):
                want = theirs.decode([i], skip_special_tokens=True)
                if got.get("text") != want: wrong.append(f"id {i} {theirs.convert_ids_to_tokens(i)!r} skipping special tokens: want {want!r}, got {got}")
            if wrong:
                bad += 1
                if bad <= 3:
                    print(f"folder {k}:", *wrong[:3], sep="\n    ")
                    for name in sorted(os.listdir(where)):
                        if name != "tokenizer.json": print("    ", name, open(os.path.join(where, name)).read())
                        else: print("    ", json.load(open(os.path.join(where, name)))["added_tokens"])
    print(f"{count} folders, {bad} differ")
    sys.exit(1 if bad else 0)


main()
