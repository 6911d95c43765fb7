#!/usr/bin/env python3
"""The tables of docs/BENCHMARKS.md about tokenizers: ours and Hugging Face's `tokenizers` in the same run, one thread each, over War and Peace and
a file of code. Without the test data, over made-up ones; without the package (build/venv or the Python that runs this), ours alone.

    bench/bench_tokenizer.py [--repeat N] [--curve]"""
import argparse
import glob
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SHARED = os.environ.get("AM_SHARED", os.path.join(ROOT, "..", "shared"))
os.environ.update(RAYON_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
try:
    from tokenizers import Tokenizer, __version__
except ImportError:
    venv = os.path.join(ROOT, "build/venv/bin/python")
    if sys.executable != venv and os.path.exists(venv) and not os.environ.get("AM_BENCH_VENV"):
        os.environ["AM_BENCH_VENV"] = "1"
        os.execv(venv, [venv] + sys.argv)
    Tokenizer, __version__ = None, "absent"


def cpu_times(repeat, f):
    """Median of processor seconds, and what f gave last."""
    times = []
    for _ in range(repeat):
        start = time.process_time()
        value = f()
        times.append(time.process_time() - start)
    return statistics.median(times), value


def ours(arguments):
    out = subprocess.run([os.path.join(ROOT, "build/bench/bench_tokenizer")] + arguments, capture_output=True, text=True)
    if out.returncode:
        sys.exit(out.stderr)
    return [json.loads(line) for line in out.stdout.splitlines()]


def cut(text):
    """As bench_tokenizer.c cuts: at the first newline behind every thousand bytes."""
    raw, parts, b = text.encode(), [], 0
    while b < len(raw):
        line = raw.find(b"\n", b + 1000) if len(raw) - b > 1000 else -1
        e = line + 1 if line >= 0 else len(raw)
        parts.append(raw[b:e].decode())
        b = e
    return parts


def encode_all(theirs, parts):
    for part in parts:
        theirs.encode(part, add_special_tokens=False)


def compare(folder, texts, args, curve):
    lines = ours(["--repeat", str(args.repeat)] + (["--curve"] if curve else []) + ([folder] + texts if folder else []))
    name = os.path.basename(folder) if folder else "made up, 128K entries"
    load = lines[0]
    theirs = None
    file_bytes = os.path.getsize(os.path.join(folder, "tokenizer.json")) if folder else 0
    if Tokenizer and folder:
        hf_load, theirs = cpu_times(3, lambda: Tokenizer.from_file(os.path.join(folder, "tokenizer.json")))
    print(f"\n{name}: {load['n_vocab']:,} entries" + (f", tokenizer.json {file_bytes / 1e6:.1f} MB" if folder else ""))
    print(f"  load: {load['json_cpu_s'] * 1e3:.0f} ms of processor time from JSON (clock: {load['json_s'] * 1e3:.0f}, least {load['json_least_s'] * 1e3:.0f}), "
          f"{load['compiled_cpu_s'] * 1e3:.0f} ms compiled (clock: {load['compiled_s'] * 1e3:.0f}, least {load['compiled_least_s'] * 1e3:.0f})"
          + (f"; tokenizers {hf_load * 1e3:.0f} ms" if theirs else ""))
    print(f"  memory: {load['memory_bytes'] / 1e6:.1f} MB" + (f", {load['memory_bytes'] / file_bytes:.2f} of the file's bytes" if folder else ""))
    for line in lines[1:]:
        if line["what"] == "curve":
            print(f"  ns a byte, {line['text']}: " + ", ".join(f"{int(n):,} B {v}" for n, v in line["ns_per_byte"].items()))
            continue
        mb = line["bytes"] / 1e6
        note = f"  {os.path.basename(line['text'])} ({mb:.1f} MB, {line['tokens']:,} tokens): encode {mb / line['encode_cpu_s']:.1f} MB/s"
        if theirs:
            parts = cut(open(line["text"], newline="").read())
            pieces, _ = cpu_times(3, lambda: encode_all(theirs, parts))
            text = open(line["text"], newline="").read()
            encode, e = cpu_times(3, lambda: theirs.encode(text, add_special_tokens=False))
            decode, _ = cpu_times(3, lambda: theirs.decode(e.ids, skip_special_tokens=False))
            assert len(e.ids) == line["tokens"], (len(e.ids), line["tokens"])
            note += (f", tokenizers {mb / encode:.1f} = {encode / line['encode_cpu_s']:.1f}x; by paragraphs {mb / line['cut_cpu_s']:.1f} MB/s, tokenizers {mb / pieces:.1f} = {pieces / line['cut_cpu_s']:.1f}x; decode {mb / line['decode_cpu_s']:.1f} MB/s, "
                     f"tokenizers {mb / decode:.1f} = {decode / line['decode_cpu_s']:.1f}x")
        else:
            note += f"; decode {mb / line['decode_cpu_s']:.1f} MB/s"
        print(note, flush=True)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--repeat", type=int, default=5)
    p.add_argument("--curve", action="store_true")
    args = p.parse_args()
    load = os.getloadavg()[0]
    print(f"tokenizers {__version__}, one thread; processor time, medians of {args.repeat} (theirs of 3); load average {load:.1f}"
          + (": the machine was busy" if load > 1 else ""))
    with tempfile.TemporaryDirectory() as folder:
        code = os.path.join(folder, "code.c")
        with open(code, "w") as f:
            for path in sorted(glob.glob(os.path.join(ROOT, "src/*/*.c"))):
                f.write(open(path).read())
        prose = os.path.join(SHARED, "testdata/text/war-and-peace.txt")
        names = [n for n in ("llama3", "qwen2.5", "phi-3-mini", "t5-small") if os.path.exists(os.path.join(SHARED, "testdata/tokenizers/hf", n))]
        for n in names:
            compare(os.path.join(SHARED, "testdata/tokenizers/hf", n), ([prose] if os.path.exists(prose) else []) + [code], args, args.curve)
        if not names:
            compare(None, [], args, args.curve)


main()
