"""`agent-memory logits`: every position's logits through the engine's way, against the golden models of ../shared and against itself in other chunks."""
import array
import json
import os
import struct
import subprocess

from harness import BINARY, SHARED, Skip, expect, temp_dir


def tensors(path):
    with open(path, "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        data = f.read()
    out = {}
    for name, t in header.items():
        if name != "__metadata__":
            values = array.array({"F32": "f", "I32": "i"}[t["dtype"]])
            values.frombytes(data[t["data_offsets"][0]:t["data_offsets"][1]])
            out[name] = (t["shape"], values)
    return out


def logits(d, lists, *args):
    with open(d + "/ids.json", "w", encoding="utf-8") as f:
        json.dump(lists, f)
    done = subprocess.run([BINARY, "logits", "--ids", d + "/ids.json", "--out", d + "/out.safetensors", *args], capture_output=True, text=True,
                          timeout=300, check=False)
    expect(done.returncode == 0, done.stderr)
    return tensors(d + "/out.safetensors")


def test_of_the_embedded_model():
    lists = [[i * 37 % 8000 for i in range(600)], [5, 6, 7]]
    with temp_dir() as d:
        whole = logits(d, lists, "--greedy", "4")
        pieces = logits(d, lists, "--greedy", "4", "--chunk", "7", "--threads", "1")
        expect(whole["logits.0"][0] == [600, 8192] and whole["greedy.1"][0] == [4], str([(k, v[0]) for k, v in whole.items()]))
        expect(all(whole[k][1] == pieces[k][1] for k in whole), "chunks of 7 on one thread give other bits")
        with open(d + "/ids.json", "w", encoding="utf-8") as f:
            f.write("[[1], [99999999]]")
        done = subprocess.run([BINARY, "logits", "--ids", d + "/ids.json", "--out", d + "/bad"], capture_output=True, text=True, check=False)
        expect(done.returncode == 1 and "list 1" in done.stderr and not os.path.exists(d + "/bad"), done.stderr)


def worst(ours, golden, rows, n_vocab):
    return max(abs(a - b) for i, row in enumerate(rows)
               for a, b in zip(ours[row * n_vocab:(row + 1) * n_vocab], golden[i * n_vocab:(i + 1) * n_vocab]))


def test_golden_models():
    top = os.path.join(SHARED, "golden")
    cases = sorted(c for c in os.listdir(top) if os.path.exists(f"{top}/{c}/golden.safetensors")) if os.path.isdir(top) else []
    if not cases:
        raise Skip("no ../shared")
    with temp_dir() as d:
        for case in cases:
            golden = tensors(f"{top}/{case}/golden.safetensors")
            with open(f"{top}/{case}/golden.json", encoding="utf-8") as f:
                tolerance = 1e-3 * json.load(f)["tolerance"]["logit_std"]
            model = f"{top}/{case}/model.gguf" if os.path.exists(f"{top}/{case}/model.gguf") else f"{top}/{case}"
            ours = logits(d, [list(golden[k + ".input_ids"][1]) for k in ("short", "long")], "--model", model, "--kv-bits", "32", "--greedy", "8", "--chunk", "100", "--isa", "scalar")
            for i, kind in enumerate(("short", "long")):
                n_vocab = ours[f"logits.{i}"][0][1]
                rows = golden["long.positions"][1] if kind == "long" else range(ours["logits.0"][0][0])
                far = worst(ours[f"logits.{i}"][1], golden[kind + ".logits"][1], rows, n_vocab)
                expect(far < tolerance, lambda: f"{case} {kind}: {far} of {tolerance}")
                expect(ours[f"greedy.{i}"][1] == golden[kind + ".greedy"][1][:8], lambda: f"{case} {kind}: other tokens")
    return f"{len(cases)} models"
