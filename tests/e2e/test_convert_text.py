"""What `agent-memory convert` writes of a folder's tokenizer and templates into a GGUF file, against Hugging Face's tokenizers reading the folder."""
import json
import os
import shutil
import struct

from harness import SHARED, TOP, Skip, expect, need, run, temp_dir
from test_convert import convert

WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA = WORDS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|" + TAIL
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CASED = [r"[^\r\n\p{L}\p{N}]?" + part for part in (UPPER + "*" + LOWER + "+", UPPER + "+" + LOWER + "*")]
SLASH = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
O200K = "|".join(c + WORDS + "?" for c in CASED) + r"|\p{N}{1,3}" + SLASH
TEKKEN = "|".join(CASED) + r"|\p{N}" + SLASH
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
HOSTILE = ["Hello world, it's 1 12 123 12345\n\n  x", "HTTPServer camelCase O'Neill WE'LL a//b/\n/c", "\u6f22\u5b57 \u3053\u3093 1\u5e74 \ud55c\uad6d",
           " \t\r\n \n", "<|im_start|>user\n B\u00f6b <|im_end|>\n"]


def split(pattern):
    return {"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
                                                  {**BYTES, "use_regex": False}]}


def folder_of(d, tokenizer):
    """A model of zeros around a tokenizer.json."""
    os.mkdir(d)
    n = 1 + max([*tokenizer["model"]["vocab"].values(), *(a["id"] for a in tokenizer["added_tokens"])])
    with open(d + "/tokenizer.json", "w", encoding="utf-8") as f:
        json.dump(tokenizer, f)
    with open(d + "/config.json", "w", encoding="utf-8") as f:
        json.dump({"model_type": "llama", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "head_dim": 16,
                   "vocab_size": n, "rms_norm_eps": 1e-5, "max_position_embeddings": 512, "tie_word_embeddings": True, "hidden_act": "silu"}, f)
    layer = "model.layers.0."
    names = {"model.embed_tokens": [n, 16], "model.norm": [16], layer + "input_layernorm": [16], layer + "post_attention_layernorm": [16],
             **{layer + p: [16, 16] for p in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj",
                                              "mlp.up_proj", "mlp.down_proj")}}
    head, at = {}, 0
    for name, shape in names.items():
        size = 4 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        head[name + ".weight"] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(head).encode()
    with open(d + "/model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + bytes(at))


def ids_differ(tokenizers, folder, gguf, lines, whole=True):
    """The first line of which the file makes other tokens than Hugging Face's library does of the folder; whole: with what is put around."""
    theirs = tokenizers.Tokenizer.from_file(folder + "/tokenizer.json")
    code, out, err = run("text", "encode", "--tokenizer", gguf, stdin="".join(json.dumps({"text": t, "add_special": whole}) + "\n" for t in lines))
    expect(code == 0, err)
    for text, line in zip(lines, out.splitlines()):
        ours, wanted = json.loads(line)["ids"], theirs.encode(text, add_special_tokens=whole).ids
        if ours != wanted:
            return text, ours, wanted
    return None


def test_split_patterns_have_their_names():
    tokenizers, gguf = need("tokenizers"), need("gguf")
    with open(os.path.join(TOP, "models", "memo-28m", "tokenizer.json"), encoding="utf-8") as f:
        source = json.load(f)
    vocab, merges = source["model"]["vocab"], source["model"]["merges"]
    for left, right in ("1", "2"), ("12", "3"), ("123", "4"), ("\u010a", "/"), ("l", "C"), ("E", "'"): # what patterns allow or not
        if left + right not in vocab:
            vocab[left + right] = len(vocab)
            for a in source["added_tokens"]:
                a["id"] += 1
            merges.append([left, right] if isinstance(merges[0], list) else f"{left} {right}")
    digits = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, BYTES]}
    wanted = [("gpt-2", BYTES, False), ("llama-bpe", split(LLAMA), True), ("dbrx", split(LLAMA), False), ("gpt-4o", split(O200K), False),
              ("tekken", split(TEKKEN), True), ("qwen2", split(LLAMA.replace("{1,3}", "")), False), ("starcoder", digits, False),
              (None, split(r"\p{L}{1,4}|\s"), False), (None, {**BYTES, "add_prefix_space": True}, False)]
    with temp_dir() as d:
        for i, (name, pre, ignores) in enumerate(wanted):
            tokenizer = json.loads(json.dumps(source))
            tokenizer["pre_tokenizer"], tokenizer["normalizer"] = pre, None
            tokenizer["model"]["ignore_merges"] = ignores
            folder_of(f"{d}/{i}", tokenizer)
            convert(f"{d}/{i}", f"{d}/{i}.gguf", "gguf-f32")
            fields = gguf.GGUFReader(f"{d}/{i}.gguf").fields
            found = fields["tokenizer.ggml.pre"].contents() if "tokenizer.ggml.pre" in fields else None
            expect(found == name, f"{name}: {found}")
            expect(fields["tokenizer.ggml.model"].contents() == ("gpt2" if name else "none"), name)
            differs = name and ids_differ(tokenizers, f"{d}/{i}", f"{d}/{i}.gguf", HOSTILE)
            expect(not differs, (name, differs))
    return f"{len(wanted)} patterns"


def test_sentencepiece_goes_along():
    tokenizers = need("tokenizers")
    top = os.path.join(SHARED, "testdata", "tokenizers", "hf", "phi-3-mini", "tokenizer.json")
    if not os.path.exists(top):
        raise Skip("no ../shared")
    with open(top, encoding="utf-8") as f:
        source = json.load(f)
    with open(os.path.join(SHARED, "golden", "tokenizers", "lines.json"), encoding="utf-8") as f:
        lines = [*json.load(f), *HOSTILE, "<|user|>\nHi<|end|> x", "<s> a</s> b"]
    with temp_dir() as d:
        for name, normalizers in (("prefix", source["normalizer"]["normalizers"]), ("plain", source["normalizer"]["normalizers"][1:])):
            tokenizer = {**source, "normalizer": {"type": "Sequence", "normalizers": normalizers}}
            folder_of(f"{d}/{name}", tokenizer)
            convert(f"{d}/{name}", f"{d}/{name}.gguf", "gguf-f32")
            differs = ids_differ(tokenizers, f"{d}/{name}", f"{d}/{name}.gguf", lines)
            expect(not differs, (name, differs))
        with open(d + "/prefix.gguf", "r+b") as f:
            key = b"agent_memory.rstrip_token_ids"
            f.seek(f.read().index(key) + len(key) + 16) # kind, kind of elements, how many
            f.write(struct.pack("<i", 1 << 30))
        code, _, err = run("text", "encode", "--tokenizer", d + "/prefix.gguf", stdin='{"text": "x"}\n')
        expect(code != 0 and "rstrip_token_ids: token 1073741824 is beyond the vocabulary" in err, err)
        source["model"]["merges"] = source["model"]["merges"][:len(source["model"]["merges"]) // 2]
        folder_of(d + "/half", source) # entries that merges do not make, and scores would
        convert(d + "/half", d + "/half.gguf", "gguf-f32")
        code, _, err = run("text", "encode", "--tokenizer", d + "/half.gguf", stdin='{"text": "x"}\n')
        expect(code != 0 and "neither a tokenizer" in err, err)
    differs = ids_differ(tokenizers, os.path.dirname(top), os.path.join(SHARED, "testdata", "tokenizers", "gguf-vocab", "ggml-vocab-phi-3.gguf"), lines, whole=False)
    expect(not differs, ("llama.cpp's file of Phi-3, whose name says which tokens take blanks", differs))
    return f"{3 * len(lines)} strings"


def test_vocabulary_and_template_go_along():
    folder = os.path.join(TOP, "models", "memo-28m")
    with temp_dir() as d:
        convert(folder, d + "/m.gguf", "gguf-q8_0")
        lines = '{"text": "Hello world, 123 times <|im_start|>user\\nI am B\\u00f6b \\u6f22\\u5b57  <|im_end|>"}\n'
        a, b = (run("text", "encode", "--tokenizer", path, stdin=lines) for path in (folder, d + "/m.gguf"))
        expect(a == b and a[0] == 0 and "ids" in a[1], f"{a} {b}")
        lines = '{"messages": [{"role": "user", "content": "hi"}], "add_generation_prompt": true}\n'
        a, b = (run("text", "render", "--tokenizer", path, stdin=lines) for path in (folder, d + "/m.gguf"))
        expect(a == b and a[0] == 0 and "hi" in a[1], f"{a} {b}")


def test_several_templates_go_along():
    top = os.path.join(TOP, "models", "memo-28m")
    lines = "".join(json.dumps({"messages": [], **more}) + "\n" for more in ({}, {"tools": [{}]}, {"documents": [{}]}, {"chat_template": "odd"}, {"chat_template": "no"}))
    with temp_dir() as d:
        shutil.copytree(top, d + "/m")
        with open(d + "/m/tokenizer_config.json", encoding="utf-8") as f:
            config = json.load(f)
        config["chat_template"] = [{"name": "default", "template": "D"}, {"name": "rag", "template": "R"}]
        with open(d + "/m/tokenizer_config.json", "w", encoding="utf-8") as f:
            json.dump(config, f)
        os.mkdir(d + "/m/additional_chat_templates")
        for name in "tool_use", "odd":
            with open(f"{d}/m/additional_chat_templates/{name}.jinja", "w", encoding="utf-8") as f:
                f.write(name)
        convert(d + "/m", d + "/m.gguf", "gguf-q4_0")
        convert(d + "/m", d + "/mlx", "mlx-4")
        for path in d + "/m", d + "/m.gguf", d + "/mlx":
            code, out, err = run("text", "render", "--tokenizer", path, stdin=lines)
            expect(code == 0, err)
            answers = [json.loads(line) for line in out.splitlines()]
            expect([a.get("text") for a in answers] == ["D", "tool_use", "R", "odd", None] and "'no'" in answers[4]["error"]["message"], (path, answers))
