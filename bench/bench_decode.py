#!/usr/bin/env python3
"""What a server costs an answer: tokens a second of one stream as a client sees them over HTTP, beside the forward pass alone (bench_pass) at the same depth and on the same
model, in turn. The server samples greedily, drafts nothing, and sends each token as an event.

    bench/bench_decode.py [--model MODEL] [--tokens N] [--runs N]"""
import argparse
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "e2e"))
from harness import TOP, Server, temp_dir, words  # noqa: E402


def answer(s, agent, n):
    """(prompt's tokens, milliseconds a token between the first text and the last). Bytes are looked at when all have come: a client that parses each event would take
    the processors that it shares with the server."""
    body = json.dumps({"messages": [{"role": "user", "content": words(40, len(agent))}], "agent_id": agent, "max_tokens": n, "temperature": 0, "ignore_eos": True,
                       "logit_bias": {"65": 100}, "stream": True, "stream_options": {"include_usage": True}}).encode()
    pieces = []
    with socket.create_connection(("127.0.0.1", s.live_port)) as c:
        c.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        while piece := c.recv(1 << 16):
            pieces.append((time.monotonic(), piece))
    at = [when for when, piece in pieces for _ in range(piece.count(b'"delta":{"content"'))]
    usage = re.search(rb'"prompt_tokens":(\d+)', b"".join(piece for _, piece in pieces))
    if len(at) < n or not usage:
        raise SystemExit(f"{len(at)} of {n} tokens came as text")
    return int(usage[1]), max(at[-1] - at[0], 1e-6) * 1000 / (len(at) - 1)  # a few tokens may come in one piece


def threads_ms(pid):
    """Processor time by thread name."""
    spent = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/comm", encoding="utf-8") as f, open(f"/proc/{pid}/task/{task}/schedstat", encoding="utf-8") as g:
                name, ns = f.read().strip(), int(g.read().split()[0])
        except OSError:
            continue
        spent[name] = spent.get(name, 0) + ns / 1e6
    return spent


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--runs", type=int, default=5)
    o = parser.parse_args()
    model = ["--model", o.model] if o.model else []
    with temp_dir() as d, Server(d, *model, "--lookup", "off", ready_s=300) as s:
        alone = subprocess.Popen([os.path.join(TOP, "build", "bench", "bench_pass"), o.model, "", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        alone.stdout.readline()
        http, passes = [], []
        before = spent = None
        for run in range(-1, o.runs):
            before = threads_ms(s.process.pid) if run == 0 else before
            past, ms = answer(s, f"run{run}", o.tokens)
            alone.stdin.write(f"{past} {o.tokens} 1\n")
            alone.stdin.flush()
            seconds = float(alone.stdout.readline())
            if run >= 0:
                http.append(ms)
                passes.append(seconds * 1000 / o.tokens)
        spent = threads_ms(s.process.pid)
        alone.stdin.close()
        alone.wait()
    a, b = statistics.median(http), statistics.median(passes)
    print(f"behind {past} tokens: over HTTP {1000 / a:.1f} tok/s ({a:.2f} ms a token), the pass alone {1000 / b:.1f} ({b:.2f}): {100 * (a / b - 1):+.1f} %")
    print("processor ms a token by thread, prompts included: " +
          ", ".join(f"{k} {(v - before.get(k, 0)) / o.runs / o.tokens:.3f}" for k, v in sorted(spent.items()) if v - before.get(k, 0) > 0.5))


if __name__ == "__main__":
    main()
