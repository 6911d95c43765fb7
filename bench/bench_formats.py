#!/usr/bin/env python3
"""Perplexity of a model in each form of its weights, on each kernel table, beside the same model as it came (float32 arithmetic on a table that takes inputs as
they are), all with an exact cache. Prints the table of docs/CACHE_QUALITY.md.

    bench/bench_formats.py MODEL TEXT [FORM|MODEL...] [--tables NAME[:WINDOWS],...] [--windows N] [--window-tokens N] [--peer DIR] [--keep DIR]

MODEL is a Hugging Face folder. A FORM is one that `agent-memory convert --to` writes, or one that llama.cpp writes (q4_0, q4_k, q5_k, q6_k, q8_0, ...: every matrix that
form), when --peer names a folder with libllama.*.so (bench/peer installs one). Other models are measured as they are."""
import argparse
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "e2e"))
import llama_cpp  # noqa: E402
from harness import run, temp_dir  # noqa: E402

CONVERTED = ("mlx-4", "mlx-8", "gguf-q4_0", "gguf-q8_0", "gguf-f16", "gguf-bf16", "gguf-f32")


def program(*arguments):
    code, out, err = run(*arguments, timeout=3600)
    if code:
        raise SystemExit(f"agent-memory {' '.join(arguments)}: {code}\n{err}")
    return out


def converted(folder, model, form):
    path = os.path.join(folder, form + (".gguf" if form.startswith("gguf") else ""))
    if not os.path.exists(path):
        program("convert", "--to", form, model, path)
    return path


def quantised(folder, model, form, peer):
    path = os.path.join(folder, form + ".gguf")
    if not os.path.exists(path):
        llama_cpp.quantise(peer, converted(folder, model, "gguf-f32"), path, form)
    return path


class Measure:
    def __init__(self, options):
        self.options, self.known = options, {}

    def perplexity(self, model, table, windows):
        """(positions, perplexity) with an exact cache."""
        key = model, table, windows
        if key not in self.known:
            o = self.options
            out = program("eval", "--isa", table, "--model", model, "--text", o.text, "--windows", str(windows), "--window-tokens", str(o.window_tokens), "32,32")
            words = out.split("\n", 1)[0].replace(",", "").split()
            self.known[key] = int(words[0]), float(words[-1])
        return self.known[key]


def tables_here():
    """Tables of this machine, best first, by what an unknown name is answered."""
    _, _, err = run("eval", "--isa", "none")
    return [word.strip(" .;,\n") for word in err.rsplit(":", 1)[-1].split()]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("forms", nargs="*")
    parser.add_argument("--tables")
    parser.add_argument("--windows", type=int, default=6)
    parser.add_argument("--window-tokens", type=int, default=2048)
    parser.add_argument("--peer")
    parser.add_argument("--keep")
    options = parser.parse_args()
    here = tables_here()
    wanted = [t.split(":") for t in (options.tables or ",".join(here)).split(",")]
    tables = [(t[0], int(t[1]) if len(t) > 1 else options.windows) for t in wanted]
    exact = next(t for t in here if t in ("avx512", "neon", "scalar"))  # inputs stay float32
    measure = Measure(options)
    with temp_dir() as folder:
        folder = options.keep or folder
        os.makedirs(folder, exist_ok=True)
        models = [(os.path.basename(os.path.normpath(options.model)), options.model)]
        for form in options.forms:
            if form in CONVERTED:
                models.append((form, converted(folder, options.model, form)))
            elif os.path.exists(form):
                models.append((os.path.basename(os.path.normpath(form)), form))
            else:
                models.append((form, quantised(folder, options.model, form, options.peer)))
        n, base = measure.perplexity(options.model, exact, options.windows)
        print(f"{n} positions; perplexity of {models[0][0]} on {exact}: {base:.4f}\n")
        print("| form | " + " | ".join(name for name, _ in tables) + " |\n|---|" + "---|" * len(tables))
        for name, model in models:
            row = []
            for table, windows in tables:
                truth = measure.perplexity(options.model, exact, windows)[1]
                row.append(f"{100 * (measure.perplexity(model, table, windows)[1] / truth - 1):+.3f} %")
            print(f"| {name} | " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
