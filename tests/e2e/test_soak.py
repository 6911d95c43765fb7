"""Everything at once for a while (make soak SECONDS=n): turns that must give the right answers, evictions, hang-ups, forks, removals, an operator's verbs, ends by SIGTERM and kill -9, and swaps; at the end every stored byte is verified against the model and the memory has not grown."""
import contextlib
import json
import os
import random
import signal
import statistics
import threading
import time

from harness import TOP, Server, expect, run, temp_dir, text_of, tier_of, words

SECONDS = float(os.environ.get("AM_SOAK_SECONDS", "20"))
N_AGENTS, N_STEPS = 8, 4
FLAGS = ["--parallel", "4", "--ctx", "2048", "--kv-memory", "20M", "--log-level", "warn"]  # a pool that is too small for all: it evicts
QUESTIONS = ["What is my number?", "Who are you?", "Tell me something short.", "And what is my number again?"]


def opening(i):
    return f"My number is {1000 + 37 * i}. " + words(80 + 70 * i, i)


def conversation(i, step, answers):
    """What agent i sends at a step, given its answers so far."""
    out = []
    for k in range(step + 1):
        out.append({"role": "user", "content": opening(i) if k == 0 else QUESTIONS[k % len(QUESTIONS)]})
        if k < step:
            out.append({"role": "assistant", "content": answers[k]})
    return out


def reference():
    """right[i][step]: from a server with room that is left alone."""
    right = []
    with temp_dir() as d, Server(d, "--ctx", "2048") as s:
        for i in range(N_AGENTS):
            answers = []
            for step in range(N_STEPS):
                answers.append(text_of(s.chat(conversation(i, step, answers), f"ref{i}", max_tokens=16)))
            right.append(answers)
    return right


class Life:
    """One server from start to end, with everybody who bothers it."""

    def __init__(self, server, right, seed, counts):
        self.s, self.right, self.counts = server, right, counts
        self.rng, self.stop, self.wrong = random.Random(seed), threading.Event(), []

    def count(self, what):
        self.counts[what] = self.counts.get(what, 0) + 1

    def talk(self, worker):
        rng = random.Random(self.rng.random() + worker)
        while not self.stop.is_set():
            i, step = rng.randrange(N_AGENTS), rng.randrange(N_STEPS)
            messages = conversation(i, step, self.right[i])
            name = f"agent{i}" if rng.random() < 0.8 else None
            try:
                if rng.random() < 0.15:  # hang up in the middle
                    stream = self.s.stream(messages, name, max_tokens=16, model="memo-28m")
                    next(stream)
                    stream.close()
                    self.count("hang-ups")
                    continue
                reply = self.s.chat(messages, name, max_tokens=16, model="memo-28m")
                answer = text_of(reply)
            except AssertionError:  # an answer, but another than 200: it is draining
                self.count("503s")
                time.sleep(0.02)
                continue
            except Exception:  # the connection broke, or nobody listens any more
                time.sleep(0.05)
                continue
            self.count("turns")
            self.count(tier_of(reply))
            if answer != self.right[i][step]:
                self.wrong.append(f"agent {i} step {step}: {answer!r} instead of {self.right[i][step]!r}")

    def bother(self):
        rng = random.Random(self.rng.random())
        while not self.stop.wait(0.1):
            name = f"agent{rng.randrange(N_AGENTS)}"
            with contextlib.suppress(Exception):
                if rng.random() < 0.4:  # whoever there is, or those without a name would pile up and be what grows
                    everybody = list(self.s.agents())
                    for gone in rng.sample(everybody, min(len(everybody), 1 + len(everybody) // 16)):
                        self.s.request("DELETE", f"/v1/agents/{gone}", timeout=10)
                        self.count("removals")
                elif rng.random() < 0.5:
                    self.s.request("POST", f"/v1/agents/{name}/fork", {"to": f"copy{rng.randrange(4)}"}, timeout=10)
                    self.count("forks")
                elif rng.random() < 0.2:  # away and back: turns in between wait
                    for model in ("other", "memo-28m"):
                        if self.s.request("POST", "/v1/admin/models/swap", {"model": model, "timeout_seconds": 30}, timeout=60).status == 200:
                            self.count("swaps")
                elif rng.random() < 0.3:  # an operator's verbs, and open again whatever came of them
                    verb = rng.choice(["drain", "pause", "clear-pool", "persist"])
                    body = {"timeout_seconds": rng.choice([0, 1])} if verb == "drain" else {}
                    if self.s.request("POST", f"/v1/admin/{verb}", body, timeout=20).status == 200:
                        self.count(verb)
                    time.sleep(0.1)
                    self.s.request("POST", "/v1/admin/resume", timeout=10)
                elif rng.random() < 0.5:
                    r = self.s.request("POST", "/v1/admin/evict", {}, timeout=10)
                    if r.status == 200:
                        self.count("evict-all")
                else:
                    self.s.request("GET", "/debug/memory", timeout=10)
                    self.count("looks at memory")

    def most(self, seconds):
        """The largest resident memory of that time: with a swap under way there are two models."""
        end, rss = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            rss = max(rss, self.s.rss_bytes())
            time.sleep(0.05)
        return rss

    def run(self, seconds, end):
        threads = [threading.Thread(target=self.talk, args=(w,)) for w in range(5)] + [threading.Thread(target=self.bother)]
        for t in threads:
            t.start()
        half, full = self.most(seconds / 2), self.most(seconds / 2)
        if end == "kill -9":
            self.s.kill()
        else:
            expect(self.s.stop(signal.SIGTERM) == 0, "exit code of a drain under load")
        self.count(end)
        self.stop.set()
        for t in threads:
            t.join()
        expect(not self.wrong, self.wrong[:5])
        return half, full


def test_soak():
    right, counts, growth = reference(), {}, []
    n_lives = max(3, int(SECONDS / 30))
    with temp_dir() as d:
        other = os.path.join(d, "other")
        code, out, err = run("convert", os.path.join(TOP, "models", "memo-28m"), other, "--to", "mlx-8", timeout=120)
        expect(code == 0, out + err)
        with open(os.path.join(d, "config.yaml"), "w", encoding="utf-8") as f:
            f.write(f"models:\n  - name: memo-28m\n  - name: other\n    path: {other}\n")
        for life in range(n_lives):
            with Server(d, *FLAGS) as s:
                growth.append(Life(s, right, life, counts).run(SECONDS / n_lives, ["SIGTERM", "kill -9"][life % 2]))
        with Server(d, *FLAGS) as s:
            expect(s.stop() == 0, "exit code at the end")
        code, out, err = run("agents", "verify", "--deep", "--json", "--data-dir", d, timeout=600)
        found = json.loads(out) if out else {}
        expect(code == 0 and found["wrong"] == 0, f"verify --deep: exit {code}: {out[-2000:]}{err}")
    # one half of a life may see two models in memory and the other none: medians of the lives' halves, then of early and late lives
    half, full = (statistics.median(g[i] for g in growth) for i in (0, 1))
    expect(full <= half * 1.05 + (16 << 20), f"RSS grew within the lives: {growth}")
    third = max(1, len(growth) // 3)
    early, late = (statistics.median(max(g) for g in part) for part in (growth[:third], growth[-third:]))
    expect(late <= early * 1.10 + (16 << 20), f"RSS grew from life to life: {growth}")
    expect(counts.get("warm", 0) > counts["turns"] // 20, f"the pool was not short: {counts}")
    expect(counts.get("turns", 0) > SECONDS, f"too little happened: {counts}")
    return f"{counts}; {found['deep']['blocks']} blocks equal to the model's; RSS in the lives' halves {half / 2**20:.1f} and {full / 2**20:.1f} MiB, in early and late lives {early / 2**20:.1f} and {late / 2**20:.1f}, at most {max(max(g) for g in growth) / 2**20:.1f}"
