"""tools/make-random-model: what it writes loads and answers, in every form, for every architecture it knows."""
import json
import os
import subprocess
import sys

from harness import SHARED, TOP, Skip, expect, run, temp_dir
from test_logits import logits

TOOL = os.path.join(TOP, "tools", "make-random-model")
TINY = {"model_type": "llama", "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "vocab_size": 600, "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False}


def make(*args):
    done = subprocess.run([sys.executable, TOOL, *args], capture_output=True, text=True, timeout=60, check=False)
    expect(done.returncode == 0, done.stdout + done.stderr)


def answers(d, path, words):
    values = logits(d, [[1, 2, 3, 4]], "--model", path)["logits.0"][1]
    expect(all(abs(v) < 1e6 for v in values) and max(values) > min(values), f"{path}: logits {min(values)} .. {max(values)}")
    code, out, err = run("show", path)
    expect(code == 0 and words in out, out + err)


def test_forms():
    with temp_dir() as d:
        with open(d + "/tiny.json", "w", encoding="utf-8") as f:
            json.dump(TINY, f)
        for form, words in (("gguf-q4_0", "Q4_0 16"), ("gguf-q8_0", "Q8_0 16"), ("gguf-q4_k", "Q6_K 4"), ("gguf-f16", "f16 16"), ("gguf-bf16", "bf16 16")):
            make(d + "/tiny.json", f"{d}/{form}.gguf", "--form", form)
            answers(d, f"{d}/{form}.gguf", words)
        for form in ("mlx-4", "mlx-8"):
            make(d + "/tiny.json", f"{d}/{form}", "--form", form)
            answers(d, f"{d}/{form}", f"mlx {form[4:]}-bit g64 16")


def test_architectures():
    top = os.path.join(SHARED, "golden")
    if not os.path.isdir(top):
        raise Skip("no ../shared")
    cases = ("gemma3-hd64", "qwen2-bias-tied", "qwen3-moe", "gpt-oss-mxfp4", "deepseek2-lite", "deepseek2-qlora-groups", "phi3-fused", "smollm3-nope", "olmo2")
    for case in cases:
        with temp_dir() as d:
            make(f"{top}/{case}/config.json", d + "/m")
            answers(d, d + "/m", "forms")
    return f"{len(cases)} architectures"
