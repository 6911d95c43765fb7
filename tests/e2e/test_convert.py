"""`agent-memory convert`: every architecture to MLX's forms and GGUF's, near the golden logits; what other readers find in the files; and
interrupted runs that go on."""
import json
import os
import shutil
import signal
import subprocess
import sys
import time

from harness import BINARY, SHARED, TOP, Skip, expect, need, run, temp_dir
from test_logits import logits, tensors


def golden_cases(own=False):
    """name, folder of the golden logits, model; own: also those of tests/data/golden."""
    top = os.path.join(SHARED, "golden")
    if not os.path.isdir(top):
        raise Skip("no ../shared")
    for top in (top, os.path.join(TOP, "tests", "data", "golden")) if own else (top,):
        for case in sorted(os.listdir(top)):
            if os.path.exists(f"{top}/{case}/golden.safetensors"):
                gguf = f"{top}/{case}/model.gguf"
                yield case, f"{top}/{case}", gguf if os.path.exists(gguf) else f"{top}/{case}"


def convert(source, out, form):
    code, text, err = run("convert", source, out, "--to", form, timeout=300)
    expect(code == 0, f"{source} to {form}: {err}")
    return text


def differences(d, folder, model, kind="short"):
    """The root of the mean squared difference from the golden logits, in their deviations, at each position; and the largest difference."""
    golden = tensors(folder + "/golden.safetensors")
    with open(folder + "/golden.json", encoding="utf-8") as f:
        deviation = json.load(f)["tolerance"]["logit_std"]
    (_, n_vocab), ours = logits(d, [list(golden[kind + ".input_ids"][1])], "--model", model, "--kv-bits", "32", "--isa", "scalar")["logits.0"]
    (n_rows, _), wanted = golden[kind + ".logits"]
    at = golden[kind + ".positions"][1] if kind + ".positions" in golden else range(n_rows)
    off = [[(ours[p * n_vocab + v] - wanted[i * n_vocab + v]) / deviation for v in range(n_vocab)] for i, p in enumerate(at)]
    return [(sum(x * x for x in row) / n_vocab)**.5 for row in off], max(abs(x) for row in off for x in row)


def near(d, case, folder, model, most):
    """Eight bits move the logits of these models by a few hundredths of their deviation. Where experts are chosen, a close choice falls the other way
    for some positions, which then are far off: with the choices of the source the others' distance returns (docs/MODELS.md). So a quarter of the positions must be as near as
    in any other model, and the whole nearer than unrelated logits, which are 1.4 apart. 27 layers of such choices leave no position as it was."""
    rows, _ = differences(d, folder, model)
    far = (sum(r * r for r in rows) / len(rows))**.5
    chooses = any(word in case for word in ("deepseek", "moe", "gpt-oss"))
    whole = most * (7 if "27" in case else 5) if chooses else most
    expect(far < whole, f"{case}: {far:.3f} deviations")
    nearest = sorted(rows)[len(rows) // 4]
    expect(not chooses or "27" in case or nearest < most * 1.3, f"{case}: {nearest:.3f} deviations at the positions that keep their experts")
    return far


def within(d, case, folder, model, most):
    rows, _ = differences(d, folder, model)
    far = (sum(r * r for r in rows) / len(rows))**.5
    expect(far < most, f"{case}: {far:.3f} deviations")


def test_every_architecture_as_mlx():
    worst, n = 0, 0
    for case, folder, model in golden_cases():
        with temp_dir() as d:
            convert(model, d + "/8", "mlx-8")
            worst = max(worst, near(d, case, folder, d + "/8", .06))
            convert(model, d + "/4", "mlx-4")
            within(d, case, folder, d + "/4", 1.1)
        n += 1
    return f"{n} models, at most {worst:.3f} deviations at 8 bits"


def rounded_to_gguf(d, case, folder, model):
    convert(model, d + "/8.gguf", "gguf-q8_0")
    near(d, case, folder, d + "/8.gguf", .06)
    convert(model, d + "/4.gguf", "gguf-q4_0")
    within(d, case, folder, d + "/4.gguf", 1.1)


def test_gguf_as_gguf():
    n = 0
    for case, folder, model in golden_cases():
        if not model.endswith(".gguf"):
            continue
        with temp_dir() as d:
            convert(model, d + "/32.gguf", "gguf-f32")
            _, far = differences(d, folder, d + "/32.gguf")
            expect(far < 1e-3, f"{case} as numbers: {far:.1e} deviations")
            rounded_to_gguf(d, case, folder, model)
        n += 1
    return f"{n} models"


def test_folders_as_gguf():
    """Every architecture. As float32 numbers nothing is lost, so names, layouts and keys are right when the logits are; the other forms round."""
    lost = {"smollm3-nope": "no_rope_layers", "gemma3-hd24-bias": "layer_types", "gpt-oss-alpha": "swiglu_limit", "gpt-oss-hd24-nobias": "layer_types",
            "qwen2-window": "use_sliding_window", "qwen3-window-hd24": "use_sliding_window", "qwen3moe-window": "use_sliding_window", "smollm3-window": "use_sliding_window"}
    n = 0
    for case, folder, model in golden_cases(own=True):
        if model.endswith(".gguf"):
            continue
        with temp_dir() as d:
            if case in lost:
                code, _, err = run("convert", model, d + "/m.gguf", "--to", "gguf-q8_0")
                expect(code == 1 and f"'{lost[case]}'" in err and not os.listdir(d), err)
                continue
            convert(model, d + "/32.gguf", "gguf-f32")
            for kind in ("long",) if "longrope" in case else ("short", "long"):  # a short golden with longrope is of a model that is loaded for less
                _, far = differences(d, folder, d + "/32.gguf", kind)
                expect(far < 1e-3, f"{case} {kind} as numbers: {far:.1e} deviations")
            if "longrope" in case or "/shared/" not in folder:
                continue
            rounded_to_gguf(d, case, folder, model)
        n += 1
    return f"{n} models, {len(lost)} refused"


def test_halves_keep_halves():
    for case, form in ("qwen3-qknorm", "gguf-bf16"), ("qwen3-moe", "gguf-f16"), ("gpt-oss-mxfp4", "gguf-bf16"), ("deepseek2-normtopk", "gguf-f16"):
        folder = os.path.join(SHARED, "golden", case)
        if not os.path.isdir(folder):
            raise Skip("no ../shared")
        with temp_dir() as d:
            convert(folder, d + "/m.gguf", form)
            _, far = differences(d, folder, d + "/m.gguf")
            expect(far < 1e-3, f"{case} as {form}: {far:.1e} deviations")


def test_one_matrix_for_both_ends_under_the_heads_name():
    """transformers keeps one of the two names, which of them depends on its version."""
    golden = os.path.join(TOP, "tests", "data", "golden", "gemma2-hd40-bias")
    with temp_dir() as d:
        shutil.copytree(golden, d + "/head", copy_function=shutil.copyfile)
        with open(d + "/head/model.safetensors", "rb") as f:
            length = int.from_bytes(f.read(8), "little")
            header, data = json.loads(f.read(length)), f.read()
        header["lm_head.weight"] = header.pop("model.embed_tokens.weight")
        text = json.dumps(header).encode()
        with open(d + "/head/model.safetensors", "wb") as f:
            f.write(len(text).to_bytes(8, "little") + text + data)
        for form, out in (("gguf-f32", d + "/m.gguf"), ("mlx-8", d + "/m")):
            convert(d + "/head", out, form)
            _, far = differences(d, golden, out)
            expect(far < (1e-3 if form == "gguf-f32" else .5), f"{form}: {far:.1e} deviations")
        with open(d + "/m/model.safetensors", "rb") as f:
            names = json.loads(f.read(int.from_bytes(f.read(8), "little")))
        expect("model.embed_tokens.weight" in names and "lm_head.weight" not in names, "other readers look for the embedding's name")


def smollm3(config):
    del config["no_rope_layers"]


def pattern_of_3(config):
    config["layer_types"] = ["sliding_attention", "sliding_attention", "full_attention"] * 2


def unscaled(config):
    for key in "mscale", "mscale_all_dim":
        del config["rope_scaling"][key]


def louder(config):
    config["rope_scaling"]["attention_factor"] = 1.9


def local_base(config):
    config["rope_local_base_freq"] = 777.0


def no_window(config):
    config.update(sliding_window_pattern=1, layer_types=None)


def no_phi_window(config):
    config["sliding_window"] = None


def test_what_a_config_asks_for_goes_along():
    """Keys that no golden model has, or not so: the folder's logits are the file's. llama.cpp has been asked the same (docs/MODELS.md)."""
    for case, change in (("smollm3-nope", smollm3), ("gemma2", pattern_of_3), ("gemma3-hd64", local_base), ("gemma3-hd64", no_window),
                         ("deepseek2-qlora-groups", unscaled), ("qwen2-yarn", louder), ("phi3-fused", no_phi_window)):
        folder = os.path.join(SHARED, "golden", case)
        if not os.path.isdir(folder):
            raise Skip("no ../shared")
        with temp_dir() as d:
            shutil.copytree(folder, d + "/m")
            with open(folder + "/config.json", encoding="utf-8") as f:
                config = json.load(f)
            change(config)
            os.chmod(d + "/m/config.json", 0o644)
            with open(d + "/m/config.json", "w", encoding="utf-8") as f:
                json.dump(config, f)
            convert(d + "/m", d + "/m.gguf", "gguf-f32")
            a, b, old = (logits(d, [[i * 7 % 300 for i in range(100)]], "--model", m, "--kv-bits", "32", "--isa", "scalar")["logits.0"][1]
                         for m in (d + "/m", d + "/m.gguf", folder))
            size = max(abs(x) for x in a)
            far, moved = (max(abs(x - y) for x, y in zip(a, other)) / size for other in (b, old))
            expect(far < 1e-4 < 1e-2 < moved, f"{case} {change.__name__}: {far:.1e} of the largest logit off, {moved:.1e} from the golden model")


def test_weights_normalised_and_scaled():
    """DeepSeek's own code does one or the other, llama.cpp both where a GGUF file says so; an MLX folder has the scale in its experts then."""
    folder = os.path.join(SHARED, "golden", "deepseek2-gguf-q8")
    if not os.path.isdir(folder):
        raise Skip("no ../shared")
    with open(folder + "/model.gguf", "rb") as f:
        data = bytearray(f.read())
    key = b"deepseek2.expert_weights_norm"
    at = data.index(key) + len(key) + 4
    expect(data[at] == 0, "the golden file has the flag already")
    data[at] = 1
    with temp_dir() as d:
        with open(d + "/m.gguf", "wb") as f:
            f.write(data)
        convert(d + "/m.gguf", d + "/mlx", "mlx-8")
        convert(d + "/m.gguf", d + "/8.gguf", "gguf-q8_0")
        with open(d + "/mlx/config.json", encoding="utf-8") as f:
            config = json.load(f)
        expect(config["norm_topk_prob"] is True and config["routed_scaling_factor"] == 1, str(config))
        ids = [[i * 7 % 400 for i in range(40)]]
        rows = [logits(d, ids, "--model", m, "--kv-bits", "32", "--isa", "scalar")["logits.0"] for m in (d + "/m.gguf", d + "/mlx", d + "/8.gguf")]
        (n, n_vocab), wanted = rows[0]
        deviation = (sum(x * x for x in wanted) / len(wanted))**.5
        for _, ours in rows[1:]:
            off = sorted((sum((ours[p * n_vocab + v] - wanted[p * n_vocab + v])**2 for v in range(n_vocab)) / n_vocab)**.5 / deviation for p in range(n))
            expect(off[n // 4] < .065, f"{off[n // 4]:.3f} deviations")  # 0.2 without the scale


def test_keys_names_and_shapes_are_the_converters():
    """The golden GGUF files have what gguf's own writer was given: back from an MLX folder, everything must be called and lie so again."""
    gguf = need("gguf")
    np = need("numpy")
    n = 0
    for case, _, model in golden_cases():
        if not model.endswith(".gguf") or "oldmla" in case:
            continue
        with temp_dir() as d:
            convert(model, d + "/mlx", "mlx-8")
            convert(d + "/mlx", d + "/m.gguf", "gguf-q8_0")
            a, b = gguf.GGUFReader(model), gguf.GGUFReader(d + "/m.gguf")
            ours = {t.name: t for t in b.tensors}
            expect({t.name for t in a.tensors} == set(ours), f"{case}: {sorted({t.name for t in a.tensors} ^ set(ours))}")
            for x in a.tensors:
                y = ours[x.name]
                expect(list(x.shape) == list(y.shape), f"{case} {x.name}: {x.shape} {y.shape}")
                left, right = (gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32) for t in (x, y))
                expect(np.abs(left - right).max() <= np.abs(left).max() / 40, f"{case} {x.name}: {np.abs(left - right).max()}")
            for key, field in a.fields.items():
                if key.startswith(("GGUF.", "tokenizer.", "general.name", "general.alignment")):
                    continue
                expect(key in b.fields, f"{case}: no {key}")
                was, now = field.contents(), b.fields[key].contents()
                expect(was == now or isinstance(was, float) and abs(was - now) <= 1e-6 * abs(was), f"{case} {key}: {was} {now}")
        n += 1
    return f"{n} files"


def test_numpy_reads_the_mlx_form():
    np = need("numpy")
    import weight_forms
    folder = os.path.join(SHARED, "golden", "llama-rope3-gqa")
    if not os.path.isdir(folder):
        raise Skip("no ../shared")
    source = weight_forms.load(folder)
    with temp_dir() as d:
        for bits in (4, 8):
            convert(folder, f"{d}/{bits}", f"mlx-{bits}")
            t = weight_forms.load_raw(f"{d}/{bits}")
            for name, value in source.items():
                path = name[:-len(".weight")]
                if path + ".scales" not in t:
                    expect(np.array_equal(t[name].astype(np.float32), value), name)
                    continue
                words = t[name]
                codes = np.stack([words >> np.uint32(bits * i) & np.uint32(2**bits - 1) for i in range(32 // bits)], -1).reshape(value.shape)
                scale, bias = (np.repeat(t[path + s].astype(np.float32), 64, 1) for s in (".scales", ".biases"))
                off = np.abs(codes * scale + bias - value) / np.abs(scale)
                # one end of a group's range is kept exactly and zero is a code, so the other end may be a whole step away
                expect(off.max() <= 1.25 and np.sqrt(np.mean(off**2)) < .32, f"{name}: {off.max()}, {np.sqrt(np.mean(off**2))} steps")


def test_gguf_package_reads_the_file():
    need("numpy")
    gguf = need("gguf")
    import numpy as np
    source = os.path.join(SHARED, "golden", "qwen3-gguf-kquants", "model.gguf")
    if not os.path.exists(source):
        raise Skip("no ../shared")
    with temp_dir() as d:
        convert(source, d + "/8.gguf", "gguf-q8_0")
        a, b = gguf.GGUFReader(source), gguf.GGUFReader(d + "/8.gguf")
        found = {t.name: t for t in b.tensors}
        expect({t.name for t in a.tensors} == set(found), "other tensors")
        for x in a.tensors:
            y = found[x.name]
            left, right = (gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32) for t in (x, y))
            expect(np.abs(left - right).max() <= np.abs(left).max() / 127, f"{x.name}: {np.abs(left - right).max()}")
        expect(b.fields["general.file_type"].contents() == 7, "file_type")
        for key, field in a.fields.items():
            if not key.startswith(("GGUF.", "general.file_type", "general.alignment")):
                expect(b.fields[key].contents() == field.contents(), key)


def test_interrupted_runs_go_on():
    with temp_dir() as d:
        subprocess.run([sys.executable, os.path.join(TOP, "tools", "make-random-model"), "smollm2-135m", d + "/m.gguf"], check=True,
                       env={**os.environ, "AM_BINARY": BINARY})
        for form, out, part in (("gguf-q8_0", d + "/o.gguf", d + "/o.gguf.part"), ("mlx-4", d + "/o", d + "/o/model.safetensors.part")):
            whole = convert(d + "/m.gguf", out, form).split("xxh3 ")[1].split()[0]
            weights = part[:-len(".part")]
            os.unlink(weights)
            process = subprocess.Popen([BINARY, "convert", d + "/m.gguf", out, "--to", form, "--threads", "1"])
            journal = part[:-len("part")] + "journal"
            while process.poll() is None and (not os.path.exists(journal) or os.path.getsize(journal) < 33 * 40):
                time.sleep(.005)
            process.send_signal(signal.SIGKILL)
            process.wait()
            expect(os.path.exists(part) and not os.path.exists(weights), f"{form}: it was done before it could be killed")
            shutil.copy(part, part + ".keep")
            shutil.copy(journal, journal + ".keep")
            text = convert(d + "/m.gguf", out, form)
            expect(whole in text and "steps were there" in text and not os.path.exists(journal), text)
            # bytes that are not what the journal says are written again
            os.rename(part + ".keep", part)
            os.rename(journal + ".keep", journal)
            with open(part, "r+b") as f:
                f.seek(-100, os.SEEK_END)
                f.write(b"damage")
            text = convert(d + "/m.gguf", out, form)
            expect(whole in text, text)


def test_what_cannot_be():
    with temp_dir() as d:
        for args, words in (((d, d + "/x.gguf", "--to", "gguf-q8_0"), "config.json"), ((d, d + "/x", "--to", "gguf-q8_0"), ".gguf"), ((d + "/none.gguf", d + "/y.gguf", "--to", "gguf-q4_0"), "none.gguf"),
                            ((d + "/none", d + "/y"), "config.json")):
            code, _, err = run("convert", *args)
            expect(code == 1 and words in err, err)
