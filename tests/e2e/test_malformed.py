"""Model files that are wrong in one place: each is refused, and the message names the file, the tensor or key, and what is wrong."""
import json
import os
import struct

from harness import expect, run, temp_dir

CONFIG = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
          "head_dim": 16, "vocab_size": 16, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "tie_word_embeddings": True}
LAYER = "model.layers.0."


def weights():
    shapes = {"model.embed_tokens.weight": [16, 32], "model.norm.weight": [32], LAYER + "input_layernorm.weight": [32],
              LAYER + "post_attention_layernorm.weight": [32], LAYER + "self_attn.q_proj.weight": [32, 32], LAYER + "self_attn.k_proj.weight": [16, 32],
              LAYER + "self_attn.v_proj.weight": [16, 32], LAYER + "self_attn.o_proj.weight": [32, 32], LAYER + "mlp.gate_proj.weight": [64, 32],
              LAYER + "mlp.up_proj.weight": [64, 32], LAYER + "mlp.down_proj.weight": [32, 64]}
    header, at = {}, 0
    for name, shape in shapes.items():
        n = 2 * shape[0] * (shape[1] if len(shape) == 2 else 1)
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [at, at + n]}
        at += n
    return header, bytes(at)


def safetensors(header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def refused(d, words, path=None):
    code, out, err = run("show", "--load", "--model", path or d)
    expect(code == 1 and all(w in err for w in words), f"wanted {words}: {code} {out}{err}")
    code, out, err = run("show", path or d)
    expect(code in (0, 1), f"show: {code} {err}")


def folder(files):
    def write(d):
        for name, content in {"config.json": CONFIG, **files}.items():
            with open(os.path.join(d, name), "wb") as f:
                f.write(content if isinstance(content, bytes) else json.dumps(content).encode())
    return write


def in_folder(files, *words):
    with temp_dir() as d:
        folder(files)(d)
        refused(d, words)


def test_the_whole_one_loads():
    header, data = weights()
    with temp_dir() as d:
        folder({"model.safetensors": safetensors(header, data)})(d)
        code, _, err = run("show", "--load", "--model", d)
        expect(code == 0, err)


def test_safetensors_headers():
    header, data = weights()
    q = LAYER + "self_attn.q_proj.weight"

    def changed(name, **entry):
        return {"model.safetensors": safetensors({**header, name: {**header[name], **entry}}, data)}

    in_folder({"model.safetensors": struct.pack("<Q", 2**63) + b"{}"}, "model.safetensors", "header")
    in_folder({"model.safetensors": b"\1\2\3"}, "model.safetensors")
    in_folder({"model.safetensors": b""}, "model.safetensors")
    in_folder({"model.safetensors": safetensors(b"[]", b"")}, "model.safetensors")
    in_folder({"model.safetensors": safetensors(header, data[:-2])}, "model.safetensors")
    in_folder({"model.safetensors": safetensors(header, data + b"1")}, "model.safetensors")
    in_folder(changed(q, shape=[2**62, 4]), "model.safetensors", q, "shape")
    in_folder(changed(q, shape=[-1, 4]), "model.safetensors", q, "shape")
    in_folder(changed(q, shape=[16, 32]), "model.safetensors", q)
    in_folder(changed(q, dtype="F17"), "model.safetensors", q, "dtype")
    in_folder(changed(q, data_offsets=[2**63 - 1, 5]), "model.safetensors", q, "data_offsets")
    in_folder(changed(q, data_offsets=header["model.norm.weight"]["data_offsets"]), "model.safetensors", q)
    in_folder({"model.safetensors": safetensors(header, data), "config.json": {**CONFIG, "intermediate_size": 66}}, "model.safetensors", "gate_proj", "shape", "66")
    nan = bytearray(data)
    at = header["model.norm.weight"]["data_offsets"][0]
    nan[at:at + 2] = struct.pack("<H", 0x7e00)
    in_folder({"model.safetensors": safetensors(header, bytes(nan))}, "model.safetensors", "model.norm.weight", "not finite")
    less = {k: v for k, v in header.items() if k != LAYER + "mlp.down_proj.weight"}
    cut = header[LAYER + "mlp.down_proj.weight"]["data_offsets"]
    in_folder({"model.safetensors": safetensors(less, data[:cut[0]])}, LAYER + "mlp.down_proj.weight", "missing")
    more = {**header, "model.layers.9.extra": {"dtype": "U8", "shape": [1], "data_offsets": [len(data), len(data) + 1]}}
    in_folder({"model.safetensors": safetensors(more, data + b"1")}, "model.safetensors", "model.layers.9.extra", "no place")


def test_shards():
    header, data = weights()
    one = safetensors(header, data)
    extra = safetensors({"model.norm.weight": {"dtype": "F16", "shape": [32], "data_offsets": [0, 64]}}, bytes(64))
    everything = {name: "a.safetensors" for name in header}
    index = "model.safetensors.index.json"
    in_folder({index: {"weight_map": everything}}, index, "a.safetensors", "missing")
    in_folder({index: {"weight_map": {}}, "a.safetensors": one}, index, "weight_map", "empty")
    in_folder({index: b"{", "a.safetensors": one}, index)
    in_folder({index: {"weight_map": {**everything, "model.norm.weight": "../a.safetensors"}}, "a.safetensors": one}, index, "model.norm.weight", "file name")
    in_folder({index: {"weight_map": {**everything, "model.norm.weight": 7}}, "a.safetensors": one}, index, "model.norm.weight")
    in_folder({index: {"weight_map": {**everything, "other": "a.safetensors"}}, "a.safetensors": one}, index, "other", "a.safetensors")
    in_folder({index: {"weight_map": {**everything, "model.norm.weight": "b.safetensors"}}, "a.safetensors": one, "b.safetensors": extra}, "model.norm.weight",
              "a.safetensors", "b.safetensors")
    in_folder({index: {"weight_map": {**everything, "model.norm.weight": index}}, "a.safetensors": one}, index)


def test_configs():
    header, data = weights()
    file = {"model.safetensors": safetensors(header, data)}
    for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "intermediate_size"):
        for value in (0, -1, 2**63 - 1, "32", 1.5, None, [], {}):
            in_folder({**file, "config.json": {**CONFIG, key: value}}, "config.json", key)
    for key, value in (("rms_norm_eps", "x"), ("rope_theta", 0), ("rope_scaling", 3), ("rope_scaling", {"rope_type": "magic"}), ("head_dim", 17),
                       ("num_key_value_heads", 3), ("hidden_act", "relu"), ("model_type", "gpt5"), ("quantization_config", {"quant_method": "magic"}),
                       ("quantization", {"bits": 7, "group_size": 64}), ("tie_word_embeddings", "yes"), ("eos_token_id", -1)):
        words = {"rope_scaling": "rope"}.get(key, key)
        in_folder({**file, "config.json": {**CONFIG, key: value}}, "config.json" if key != "hidden_act" else "", words)
    windows = {**CONFIG, "model_type": "mistral", "sliding_window": 8, "layer_types": ["full_attention"] * CONFIG["num_hidden_layers"]}
    in_folder({**file, "config.json": windows}, "layer_types", "full_attention", "sliding_attention in every layer")
    in_folder({**file, "config.json": b"[" * 100000}, "config.json")
    in_folder({**file, "config.json": b"\xff\xfe"}, "config.json")


# ---- GGUF


def text(s):
    return struct.pack("<Q", len(s)) + s.encode()


def gguf(keys, tensors, data=bytes(64), version=3, n_tensors=None, n_keys=None):
    """keys: (name, kind, packed value); tensors: (name, shape, type, offset)"""
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors) if n_tensors is None else n_tensors, len(keys) if n_keys is None else n_keys)
    for name, kind, packed in keys:
        head += text(name) + struct.pack("<I", kind) + packed
    for name, shape, kind, offset in tensors:
        head += text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape) + struct.pack("<IQ", kind, offset)
    return head + bytes(-len(head) % 32) + data


ARCH = ("general.architecture", 8, text("llama"))


def in_gguf(content, *words, name="m.gguf"):
    with temp_dir() as d:
        with open(f"{d}/{name}", "wb") as f:
            f.write(content)
        refused(d, (name, *words), f"{d}/{name}")


def test_gguf_headers():
    t = ("a.weight", [8], 0, 0)
    in_gguf(gguf([ARCH], [t], version=1), "version 1")
    in_gguf(gguf([ARCH], [t], version=4), "version 4")
    in_gguf(b"GGUF" + struct.pack(">I", 3) + bytes(100), "big-endian")
    in_gguf(b"GGML" + bytes(100), "GGUF")
    in_gguf(b"", "")
    in_gguf(gguf([ARCH], [t], n_tensors=2**63), "tensors")
    in_gguf(gguf([ARCH], [t], n_keys=2**63), "keys")
    in_gguf(gguf([("k", 8, struct.pack("<Q", 2**63))], [t]), "k")
    in_gguf(gguf([("k", 9, struct.pack("<IQ", 8, 2**61))], [t]), "k")
    in_gguf(gguf([("k", 99, b"")], [t]), "k")
    in_gguf(gguf([ARCH, ARCH], [t]), "general.architecture")
    in_gguf(gguf([ARCH, ("general.alignment", 4, struct.pack("<I", 0))], [t]), "alignment")
    in_gguf(gguf([ARCH, ("general.alignment", 4, struct.pack("<I", 24))], [t]), "alignment")
    in_gguf(gguf([ARCH], [("a.weight", [2**62, 8], 0, 0)]), "a.weight")
    in_gguf(gguf([ARCH], [("a.weight", [2**32, 2**32], 2, 0)]), "a.weight")
    in_gguf(gguf([ARCH], [("a.weight", [1] * 9, 0, 0)]), "a.weight")
    in_gguf(gguf([ARCH], [("a.weight", [0], 0, 0)]), "a.weight")
    in_gguf(gguf([ARCH], [("a.weight", [8], 5, 0)]), "a.weight", "type")
    in_gguf(gguf([ARCH], [("a.weight", [33], 2, 0)]), "a.weight")
    in_gguf(gguf([ARCH], [("a.weight", [8], 0, 2**63)]), "a.weight")
    in_gguf(gguf([ARCH], [("a.weight", [8], 0, 7)]), "a.weight")
    in_gguf(gguf([ARCH], [("a.weight", [8], 0, 64)]), "a.weight")
    in_gguf(gguf([ARCH], [t, t]), "a.weight")
    in_gguf(gguf([ARCH], [("a.weight", [16], 0, 0), ("b.weight", [8], 0, 32)]), "weight")
    in_gguf(gguf([], [t]), "general.architecture")
    in_gguf(gguf([("general.architecture", 8, text("magic"))], [t]), "magic")
    in_gguf(gguf([ARCH], [t]), "token_embd.weight")


def split(number, count, tensors=None, no=None):
    keys = [ARCH] if number == 1 else []
    keys += [("split.no", 2, struct.pack("<H", number - 1 if no is None else no)), ("split.count", 2, struct.pack("<H", count)),
             ("split.tensors.count", 5, struct.pack("<i", 2))]
    return gguf(keys, tensors or [(f"t{number}.weight", [8], 0, 0)])


def in_split(parts, *words):
    with temp_dir() as d:
        for number, content in parts.items():
            with open(f"{d}/m-{number:05}-of-00002.gguf", "wb") as f:
                f.write(content)
        refused(d, words, f"{d}/m-00001-of-00002.gguf")


def test_split_gguf():
    in_split({1: split(1, 2), 2: split(2, 2)}, "token_embd.weight")  # as whole as it can be
    in_split({1: split(1, 2)}, "m-00002-of-00002.gguf")
    in_split({1: split(1, 2), 2: split(2, 3)}, "m-00002-of-00002.gguf", "split")
    in_split({1: split(1, 2), 2: split(2, 2, no=0)}, "m-00002-of-00002.gguf", "split")  # the first again: a cycle
    in_split({1: split(1, 3), 2: split(2, 3)}, "split")
    in_split({1: split(1, 2), 2: split(2, 2, [("t1.weight", [8], 0, 0)])}, "t1.weight")
    in_split({1: split(1, 2), 2: b"GGUF"}, "m-00002-of-00002.gguf")
    in_split({1: split(1, 65535), 2: split(2, 2)}, "split")


def test_a_model_that_does_not_fit():
    header, at = {}, 0
    config = {**CONFIG, "hidden_size": 8192, "intermediate_size": 65536, "num_hidden_layers": 400, "num_attention_heads": 64, "num_key_value_heads": 64,
              "head_dim": 128}
    with temp_dir() as d:
        with open(d + "/config.json", "w", encoding="utf-8") as f:
            json.dump(config, f)
        code, out, err = run("show", "--config", d + "/config.json", "--tensors", "--json")
        expect(code == 0, err)
        for name, (rows, columns, _) in json.loads(out)["tensors"].items():
            n = 2 * rows * (columns or 1)
            header[name + ".weight" if columns else name] = {"dtype": "F16", "shape": [rows, columns] if columns else [rows], "data_offsets": [at, at + n]}
            at += n
        with open(d + "/model.safetensors", "wb") as f:
            f.write(safetensors(header, b""))
            f.truncate(f.tell() + at)  # a hole: it takes no disk
        refused(d, [d, f"{at / 2**30:.1f}"[:4], "GiB are available"])
