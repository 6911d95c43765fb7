"""Checkpoints in forms that other tools write (GPTQ, AWQ, FP8), made from float32 models, beside the float32 models they stand for.

Written from the formats' published definitions, without the program's code: a quantised model is written twice, as its tool would, and as the float32
values that the definition gives, so that any difference between the two, as the program sees them, is the reader's."""
import json
import os
import shutil
import struct

import numpy as np

DTYPES = {"F32": np.float32, "F16": np.float16, "I32": np.int32, "U8": np.uint8, "U32": np.uint32, "BF16": np.uint16}


def load(folder):
    """As float32."""
    return {k: v.astype(np.float32) for k, v in load_raw(folder).items()}


def load_raw(folder):
    """As stored; BF16 as float32."""
    tensors = {}
    for name in sorted(os.listdir(folder)):
        if not name.startswith("model") or not name.endswith(".safetensors"):
            continue
        with open(os.path.join(folder, name), "rb") as f:
            header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
            data = f.read()
        for key, t in header.items():
            if key == "__metadata__":
                continue
            raw = np.frombuffer(data[t["data_offsets"][0]:t["data_offsets"][1]], DTYPES[t["dtype"]])
            if t["dtype"] == "BF16":
                raw = (raw.astype(np.uint32) << 16).view(np.float32)
            tensors[key] = raw.reshape(t["shape"])
    return tensors


def save(folder, source, tensors, quantization_config=None):
    """tensors: name -> array, or (dtype name, array). config.json is the source's, with the quantisation given."""
    os.makedirs(folder)
    header, blobs, at = {}, [], 0
    for name, t in tensors.items():
        dtype, array = t if isinstance(t, tuple) else ({v: k for k, v in DTYPES.items() if k not in ("U8", "U32", "BF16")}[t.dtype.type], t)
        blob = np.ascontiguousarray(array).tobytes()
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [at, at + len(blob)]}
        blobs.append(blob)
        at += len(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(folder, "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))
    with open(os.path.join(source, "config.json"), encoding="utf-8") as f:
        config = json.load(f)
    if quantization_config:
        config["quantization_config"] = quantization_config
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as f:
        json.dump(config, f)
    if os.path.exists(os.path.join(source, "generation_config.json")):
        shutil.copy(os.path.join(source, "generation_config.json"), folder)


def is_projection(name, value):
    return value.ndim == 2 and name.endswith("_proj.weight")


def pack_words(codes, bits, axis):
    """int32 words of 32 / bits codes along an axis, the first in the lowest bits."""
    n = 32 // bits
    codes = np.moveaxis(codes.astype(np.uint32), axis, -1)
    words = np.zeros(codes.shape[:-1] + (codes.shape[-1] // n,), np.uint32)
    for i in range(n):
        words |= codes[..., i::n] << np.uint32(bits * i)
    return np.ascontiguousarray(np.moveaxis(words, -1, axis)).view(np.int32)


def group_codes(w, bits, group_of, sym):
    """w [in][out] in groups of inputs: codes, zero points and f16 scales [groups][out]."""
    n_groups = group_of.max() + 1
    top = 2**bits - 1
    scales = np.zeros((n_groups, w.shape[1]), np.float16)
    zeros = np.zeros((n_groups, w.shape[1]), np.int64)
    for g in range(n_groups):
        part = w[group_of == g]
        low, high = np.minimum(part.min(0), 0), np.maximum(part.max(0), 0)
        if sym:
            high = np.maximum(-low, high)
            low = -high
        scales[g] = np.maximum((high - low) / top, 1e-6).astype(np.float16)
        zeros[g] = 2**(bits - 1) if sym else np.clip(np.round(-low / scales[g].astype(np.float32)), 1, top)
    s, z = scales.astype(np.float32)[group_of], zeros[group_of]
    codes = np.clip(np.round(w / s) + z, 0, top).astype(np.int64)
    return codes, zeros, scales, s * (codes - z)


def gptq(tensors, bits, group, desc_act, sym, v2=False, g_idx=True, seed=1):
    """AutoGPTQ's layout: qweight [in / n][out], qzeros [groups][out / n] less one (not in gptq_v2), scales [groups][out], g_idx [in]."""
    random = np.random.default_rng(seed)
    packed, plain = {}, {}
    for name, value in tensors.items():
        plain[name] = packed[name] = value
        if not is_projection(name, value):
            continue
        w, path = value.T, name[:-len("weight")]
        length = w.shape[0] if group == -1 else group
        group_of = np.arange(w.shape[0]) // length
        if desc_act:
            random.shuffle(group_of)
        codes, zeros, scales, values = group_codes(w, bits, group_of, sym)
        plain[name] = np.ascontiguousarray(values.T, dtype=np.float32)
        del packed[name]
        packed[path + "qweight"] = pack_words(codes, bits, 0)
        packed[path + "qzeros"] = pack_words((zeros - (0 if v2 else 1)) % 2**bits, bits, 1)
        packed[path + "scales"] = scales
        if g_idx:
            packed[path + "g_idx"] = group_of.astype(np.int32)
        if path + "bias" not in tensors:
            packed[path + "bias"] = np.zeros(w.shape[1], np.float16)
    config = {"quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": desc_act, "sym": sym}
    if v2:
        config["checkpoint_format"] = "gptq_v2"
    return packed, plain, config


def awq(tensors, group):
    """AutoAWQ's GEMM layout: qweight [in][out / 8] and qzeros [groups][out / 8], a word holding outputs 0, 2, 4, 6, 1, 3, 5, 7 of its eight."""
    packed, plain = {}, {}
    order = np.array([0, 2, 4, 6, 1, 3, 5, 7])

    def words(codes):
        n = codes.shape[1]
        return pack_words(codes.reshape(-1, n // 8, 8)[:, :, order].reshape(-1, n), 4, 1)

    for name, value in tensors.items():
        plain[name] = packed[name] = value
        if not is_projection(name, value):
            continue
        w, path = value.T, name[:-len("weight")]
        codes, zeros, scales, values = group_codes(w, 4, np.arange(w.shape[0]) // group, False)
        plain[name] = np.ascontiguousarray(values.T, dtype=np.float32)
        del packed[name]
        packed[path + "qweight"], packed[path + "qzeros"], packed[path + "scales"] = words(codes), words(zeros), scales
    return packed, plain, {"quant_method": "awq", "bits": 4, "group_size": group, "version": "gemm", "zero_point": True}


def e4m3_values():
    """All 256 values: 1 sign, 4 exponent bits (bias 7), 3 mantissa; 0x7f and 0xff are NaN."""
    code = np.arange(256)
    exponent, mantissa = code >> 3 & 15, code & 7
    value = np.where(exponent > 0, (1 + mantissa / 8) * 2.0**(exponent - 7), mantissa / 8 * 2.0**-6)
    value = np.where(code & 128, -value, value)
    value[[127, 255]] = np.nan
    return value.astype(np.float32)


def to_e4m3(x):
    values = e4m3_values()
    positive = values[:127]
    magnitude = np.abs(x).astype(np.float32)
    at = np.clip(np.searchsorted(positive, magnitude), 1, 126)
    at = np.where(magnitude - positive[at - 1] < positive[at] - magnitude, at - 1, at)
    return (at | np.where(x < 0, 128, 0)).astype(np.uint8)


def fp8(tensors, block=None, rows=False):
    """block: DeepSeek's weight_scale_inv for each block; else weight_scale, one a row or one a matrix."""
    packed, plain = {}, {}
    values = e4m3_values()
    for name, w in tensors.items():
        plain[name] = packed[name] = w
        if not is_projection(name, w):
            continue
        n_out, n_in = w.shape
        b_out, b_in = (block, block) if block else (1, n_in) if rows else (n_out, n_in)
        scale = np.zeros((-(-n_out // b_out), -(-n_in // b_in)), np.float32)
        for i in range(scale.shape[0]):
            for j in range(scale.shape[1]):
                scale[i, j] = np.abs(w[i * b_out:(i + 1) * b_out, j * b_in:(j + 1) * b_in]).max() / 448
        whole = np.repeat(np.repeat(scale, b_out, 0)[:n_out], b_in, 1)[:, :n_in]
        codes = to_e4m3(w / whole)
        packed[name] = ("F8_E4M3", codes)
        plain[name] = values[codes] * whole
        if block:
            packed[name + "_scale_inv"] = scale
        else:
            packed[name + "_scale"] = scale if rows else scale.reshape(1)
            packed[name[:-len("weight")] + "input_scale"] = np.ones(1, np.float32)
    config = {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3"}
    if block:
        config["weight_block_size"] = [block, block]
    return packed, plain, config
