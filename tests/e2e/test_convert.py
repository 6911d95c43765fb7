"""`agent-memory convert`: every architecture to MLX's forms and GGUF to GGUF, near the golden logits; what other readers find in the files; and
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


def golden_cases():
    top = os.path.join(SHARED, "golden")
    if not os.path.isdir(top):
        raise Skip("no ../shared")
    for case in sorted(os.listdir(top)):
        if os.path.exists(f"{top}/{case}/golden.safetensors"):
            gguf = f"{top}/{case}/model.gguf"
            yield case, f"{top}/{case}", gguf if os.path.exists(gguf) else f"{top}/{case}"


def convert(source, out, form):
    code, text, err = run("convert", source, out, "--to", form, timeout=300)
    expect(code == 0, f"{source} to {form}: {err}")
    return text


def distance(d, folder, model):
    """Root of the mean squared difference from the golden logits, in their deviations."""
    golden = tensors(folder + "/golden.safetensors")
    with open(folder + "/golden.json", encoding="utf-8") as f:
        deviation = json.load(f)["tolerance"]["logit_std"]
    ours = logits(d, [list(golden["short.input_ids"][1])], "--model", model, "--kv-bits", "32", "--isa", "scalar")["logits.0"][1]
    wanted = golden["short.logits"][1]
    return (sum((a - b)**2 for a, b in zip(ours, wanted)) / len(wanted))**.5 / deviation


def test_every_architecture_as_mlx():
    worst, n = {"mlx-8": 0, "mlx-4": 0}, 0
    for case, folder, model in golden_cases():
        with temp_dir() as d:
            # where experts are chosen, a close choice may fall the other way, which is not small in models of this size (27 layers of them at the
            # worst); unrelated logits would be 1.4 apart
            chooses = any(word in case for word in ("deepseek", "moe", "gpt-oss"))
            for form, most in (("mlx-8", .45 if chooses else .06), ("mlx-4", 1.1)):
                convert(model, f"{d}/{form}", form)
                far = distance(d, folder, f"{d}/{form}")
                expect(far < most, f"{case} {form}: {far:.3f} deviations")
                worst[form] = max(worst[form], far)
        n += 1
    return f"{n} models, at most {worst['mlx-8']:.3f} and {worst['mlx-4']:.2f} deviations"


def test_gguf_as_gguf():
    worst, n = 0, 0
    for case, folder, model in golden_cases():
        if not model.endswith(".gguf"):
            continue
        with temp_dir() as d:
            for form, most in (("gguf-q8_0", .08), ("gguf-q4_0", 1.1)):
                convert(model, f"{d}/{form}.gguf", form)
                far = distance(d, folder, f"{d}/{form}.gguf")
                expect(far < most, f"{case} {form}: {far:.3f} deviations")
                worst = max(worst, far) if form == "gguf-q8_0" else worst
        n += 1
    return f"{n} models, at most {worst:.3f} deviations at 8 bits"


def test_folders_as_gguf():
    cases = ("llama-bias-linear", "llama-mha-f16", "llama-mlx-q4", "llama-rope3-gqa", "llama-tied-bf16-sharded", "mistral-headdim96", "qwen2-bias-tied",
             "qwen2-mlx-mixed", "qwen3-mlx-q8", "qwen3-qknorm", "qwen3-v5config")
    lost = {"mistral-window": "sliding_window", "qwen2-yarn": "rope_scaling", "gemma3-hd64": "gemma3_text", "qwen3-moe": "qwen3_moe"}
    for case, folder, model in golden_cases():
        with temp_dir() as d:
            if case in lost:
                code, _, err = run("convert", model, d + "/m.gguf", "--to", "gguf-q8_0")
                expect(code == 1 and lost[case] in err and not os.listdir(d), err)
            for form, most in (("gguf-q8_0", .06), ("gguf-q4_0", .7)) if case in cases else ():
                convert(model, f"{d}/{form}.gguf", form)
                far = distance(d, folder, f"{d}/{form}.gguf")
                expect(far < most, f"{case} {form}: {far:.3f} deviations")
    return f"{len(cases)} models, {len(lost)} refused"


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
