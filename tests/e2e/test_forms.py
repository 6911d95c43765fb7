"""GPTQ, AWQ and FP8 checkpoints: the same logits as the float32 values that the formats' definitions give, and near the model they were made from."""
import json
import os

from harness import SHARED, Skip, expect, need, run, temp_dir
from test_logits import logits, tensors


def sources(*names):
    need("numpy")
    top = os.path.join(SHARED, "golden")
    if not os.path.isdir(top):
        raise Skip("no ../shared")
    return [os.path.join(top, n) for n in names]


# FP8 and scattered inputs become f16: each value is up to 2^-12 of itself away, which makes up to two thousandths of a
# deviation (a BF16 reader, as most are, has eight times that).
EXACT, F16 = 1e-4, 2e-3


def compare(source, made, distance, bound=EXACT):
    """made: packed, plain and config of weight_forms. The two agree within the bound; both are within `distance` deviations of the golden logits."""
    import numpy as np
    import weight_forms
    packed, plain, config = made
    golden = tensors(source + "/golden.safetensors")
    with open(source + "/golden.json", encoding="utf-8") as f:
        deviation = json.load(f)["tolerance"]["logit_std"]
    ids = [list(golden["short.input_ids"][1])]
    with temp_dir() as d:
        weight_forms.save(d + "/packed", source, packed, config)
        weight_forms.save(d + "/plain", source, plain)
        a = np.array(logits(d, ids, "--model", d + "/packed", "--kv-bits", "32", "--isa", "scalar")["logits.0"][1])
        b = np.array(logits(d, ids, "--model", d + "/plain", "--kv-bits", "32", "--isa", "scalar")["logits.0"][1])
        code, out, err = run("show", d + "/packed", "--json")
        expect(code == 0 and config["quant_method"] in out, out + err)
    reader = np.sqrt(np.mean((a - b)**2)) / deviation
    whole = np.sqrt(np.mean((b - np.array(golden["short.logits"][1]))**2)) / deviation
    expect(reader < bound, f"{source} {config}: {reader:.1e} deviations from its own values")
    expect(whole < distance, f"{source} {config}: {whole:.2f} deviations from the model")
    return f"{reader:.0e}/{whole:.3f}"


def test_gptq():
    notes = []
    for source in sources("llama-rope3-gqa", "qwen2-bias-tied", "phi3-fused", "qwen3-moe"):
        import weight_forms as forms
        t = forms.load(source)
        notes += [compare(source, forms.gptq(t, 4, 64, False, True), 0.8), compare(source, forms.gptq(t, 4, 32, True, False), 0.8, F16),
                  compare(source, forms.gptq(t, 8, -1, False, False, g_idx=False), 0.15), compare(source, forms.gptq(t, 4, 16, False, False, v2=True), 0.8)]
    return " ".join(notes)


def test_awq():
    notes = []
    for source in sources("llama-rope3-gqa", "phi3-fused", "mistral-headdim96"):
        import weight_forms as forms
        t = forms.load(source)
        notes += [compare(source, forms.awq(t, 64), 0.8), compare(source, forms.awq(t, 32), 0.8)]
    return " ".join(notes)


def test_fp8():
    notes = []
    for source in sources("llama-rope3-gqa", "phi3-fused", "deepseek2-lite", "deepseek2-qlora-groups"):
        import weight_forms as forms
        t = forms.load(source)
        notes += [compare(source, forms.fp8(t, block=128), 0.3, F16), compare(source, forms.fp8(t, block=48), 0.3, F16), compare(source, forms.fp8(t), 0.3, F16),
                  compare(source, forms.fp8(t, rows=True), 0.3, F16)]
    return " ".join(notes)


def refused(source, made, change, words):
    import weight_forms
    packed, _, config = made
    packed, config = dict(packed), dict(config)
    change(packed, config)
    with temp_dir() as d:
        weight_forms.save(d + "/bad", source, packed, config)
        code, _, err = run("show", "--load", "--model", d + "/bad")
        expect(code == 1 and all(w in err for w in words), err)


def test_what_is_wrong_is_named():
    (source,) = sources("llama-rope3-gqa")
    import numpy as np
    import weight_forms as forms
    t = forms.load(source)
    k = "model.layers.0.self_attn.k_proj."
    good = forms.gptq(t, 4, 32, True, False)

    def set_to(key, value):
        return lambda p, c: c.__setitem__(key, value)

    def spoil(name, index, value):
        def change(p, c):
            kind, array = p[name] if isinstance(p[name], tuple) else (None, p[name])
            array = array.copy()
            array.reshape(-1)[index] = value
            p[name] = (kind, array) if kind else array
        return change

    refused(source, good, set_to("bits", 3), ["quantization_config.bits", "3"])
    refused(source, good, set_to("checkpoint_format", "marlin"), ["checkpoint_format", "marlin"])
    refused(source, good, set_to("group_size", 0), ["group_size"])
    refused(source, good, set_to("quant_method", "hqq"), ["quant_method", "hqq"])
    refused(source, good, set_to("dynamic", {"-:lm_head": {}}), ["dynamic"])
    refused(source, good, spoil(k + "g_idx", 5, -1), ["model.safetensors", k + "g_idx", "value 5"])
    refused(source, good, spoil(k + "g_idx", 5, 1000), [k + "g_idx", "1000"])
    refused(source, good, spoil(k + "scales", 3, np.nan), [k + "scales", "not finite"])
    refused(source, good, lambda p, c: p.pop(k + "qzeros"), [k + "qzeros", "missing"])
    refused(source, good, lambda p, c: p.__setitem__(k + "qzeros", p[k + "qzeros"][:1]), [k + "qzeros", "shape"])
    refused(source, forms.awq(t, 32), set_to("version", "gemv"), ["version", "gemv"])
    refused(source, forms.fp8(t, 128), set_to("fmt", "e5m2"), ["fmt", "e5m2"])
    refused(source, forms.fp8(t, 128), set_to("weight_block_size", [128]), ["weight_block_size"])
    refused(source, forms.fp8(t, 128), spoil(k + "weight", 9, 127), [k + "weight", "value 9"])
    refused(source, forms.fp8(t, 128), set_to("weight_block_size", [64, 64]), ["weight_scale_inv", "shape"])
