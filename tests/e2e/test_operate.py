"""What an operator asks of a running server, while it is at work: each verb does what it says, says what it did, and nothing that was not meant."""
import os
import threading
import time

from harness import TOP, Server, expect, run, temp_dir, text_of, words

MEMO = os.path.join(TOP, "models", "memo-28m")
SMALL = ["--ctx", "2048", "--kv-memory", "48M", "--log-level", "warn"]


def post(s, path, body=None, status=200):
    r = s.request("POST", "/v1/admin/" + path, body if body is not None else {})
    expect(r.status == status, lambda: f"{path} {body}: {r.status} {r.body}")
    return r.json()


def ask(s, model, agent, content, headers=None, **more):
    body = {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": 4, "temperature": 0, **more}
    r = s.request("POST", "/v1/chat/completions", body, {"x-agent-id": agent, **(headers or {})})
    expect(r.status == 200, r.body)
    return r.json()


def cached(reply):
    return reply["usage"]["prompt_tokens_details"]["cached_tokens"]


class Busy:
    """Requests of four agents that stream for long; what became of each."""

    def __init__(self, server, n=4):
        self.s, self.ends, self.n_tokens = server, [], [0] * n
        self.threads = [threading.Thread(target=self.one, args=(i,)) for i in range(n)]

    def one(self, i):
        last = None
        for chunk in self.s.stream("Tell me a story", f"busy{i}", max_tokens=1200, ignore_eos=True):
            last = chunk
            self.n_tokens[i] += 1
        self.ends.append(last["error"]["code"] if "error" in last else last["choices"][0]["finish_reason"])

    def __enter__(self):
        for t in self.threads:
            t.start()
        end = time.monotonic() + 30
        while min(self.n_tokens) < 5 and time.monotonic() < end:
            time.sleep(0.01)
        expect(min(self.n_tokens) >= 5, "the load does not come up")
        return self

    def __exit__(self, *exc):
        for t in self.threads:
            t.join(60)


def test_verbs_under_load():
    with temp_dir() as d, Server(d, *SMALL, "--parallel", "4") as s:
        there = ["--port", str(s.live_port), "--data-dir", d]
        ask(s, "", "idle", words(400, 1))
        with Busy(s) as load:
            expect(run("pause", *there)[1] == "paused (was open)\n", "pause")
            time.sleep(0.3)  # what was on its way arrives
            before = list(load.n_tokens)
            time.sleep(0.5)
            expect(load.n_tokens == before, "answers went on while paused")
            expect(s.request("GET", "/health/live").status == 200 and s.request("GET", "/health/ready").status == 503, "health while paused")
            out = post(s, "evict")
            expect(out["agents"] == 1 and out["busy"] == 4, f"evict while paused: {out}")
            expect(run("resume", *there)[1] == "open (was paused)\n", "resume")
            out = post(s, "evict", {"agent": "busy0"})
            expect(out["agents"] == 0 and out["busy"] == 1, f"evict of one that runs: {out}")
            out = post(s, "clear", {"agent": "busy0"})
            expect(out["agents"] == 0 and out["busy"] == 1, f"clear of one that runs: {out}")
            code, out, err = run("drain", "--wait", "0", *there)
            expect(code == 0 and "4 requests cancelled" in out, out + err)
        expect(sorted(load.ends) == ["canceled"] * 4, f"after a drain without patience: {load.ends}")
        r = s.request("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]})
        expect(r.status == 503 and r.json()["error"]["code"] == "drained" and int(r.headers["retry-after"]) >= 1, f"{r.status} {r.body} {r.headers}")
        expect(cached(ask_when_open(s, there, words(400, 1))) >= 256, "what was evicted is there")
        with Busy(s) as load:
            out = post(s, "drain", {"timeout_seconds": 60})
            expect(out["requests_finished"] == 4 and out["requests_canceled"] == 0, f"drain with patience: {out}")
        expect(load.ends == ["length"] * 4, f"after a drain with patience: {load.ends}")
        expect(s.agents()["busy0"]["dirty"] is False, "a drained agent is on disk")
        post(s, "resume")
        with Busy(s) as load:
            queued = threading.Thread(target=lambda: s.request("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}))
            queued.start()
            while s.request("GET", "/health").json()["requests"]["queued"] < 1:
                time.sleep(0.01)
            code, out, err = run("clear-pool", *there)
            expect(code == 0 and "5 requests cancelled" in out, out + err)
            queued.join()
        expect(load.ends == ["canceled"] * 4, f"after clear-pool: {load.ends}")
        memory = s.request("GET", "/debug/memory").json()["pool"]
        expect(memory["sealed"]["used_bytes"] == 0 and memory["open"]["used_bytes"] == 0, f"the pool after clear-pool: {memory}")
        expect(cached(ask(s, "", "idle", words(400, 1))) >= 256, "agents come back from disk after clear-pool")
        expect(s.stop() == 0, "exit code")


def ask_when_open(s, there, text):
    expect(run("resume", *there)[1] == "open (was drained)\n", "resume after drain")
    return ask(s, "", "idle", text)


def test_a_misspelt_body_does_nothing():
    with temp_dir() as d, Server(d, *SMALL) as s:
        ask(s, "", "a", "hello")
        for path, body in (("clear", {"agnet": "b"}), ("clear", {}), ("clear", {"agent": "a", "all": True}), ("clear", {"all": False}), ("clear", {"all": 1}), ("evict", {"all": True}),
                           ("drain", {"timeout": 5}), ("drain", {"model": "x"}), ("models/swap", {"modell": "x"}), ("models/load", {"model": "memo-28m", "from": "x"}),
                           ("clear-pool", {"": 1}), ("clear-pool", {"model mod": 1}), ("seed", {"sed": 1}), ("seed", {}), ("seed", {"seed": "x"}), ("seed", {"seed": -1}),
                           ("clear", {"agent": "a\0b"}), ("clear", {"agent": ""}), ("clear", {"tenant": None}), ("clear", b'{"agent": "b", "agent": "a"}'), ("clear", b"null"), ("clear", b'{"agent": "a"} x')):
            said = post(s, path, body, 400)["error"]
            expect(said["message"] and said["code"] == "invalid_body", said)
        expect(list(s.agents()) == ["a"] and s.request("GET", "/v1/admin/status").json()["state"] == "open", "something was done all the same")
        code, out, _ = run("clear", "nobody", "--port", str(s.live_port), "--data-dir", d)
        expect(code == 0 and "0 agents" in out, out)
        post(s, "clear", {"all": True})
        expect(s.agents() == {}, "all")


def two_models(d):
    other = os.path.join(d, "other")
    code, out, err = run("convert", MEMO, other, "--to", "mlx-8", timeout=120)
    expect(code == 0, out + err)
    return os.path.join(d, "data"), ["--model", f"memo={MEMO}", "--model", f"other={other}", *SMALL, "--model-memory", "140M"]


def test_clear_reaches_agents_of_models_that_are_not_in_memory():
    with temp_dir() as d:
        data, flags = two_models(d)
        key = run("keys", "add", "team", "--data-dir", data)[1].split()[0]
        default = run("keys", "add", "default", "--data-dir", data)[1].split()[0]
        admin = {"x-admin-key": run("keys", "add", "--admin", "--data-dir", data)[1].split()[0]}
        mine, theirs = {"authorization": "Bearer " + default}, {"authorization": "Bearer " + key}

        def clear(body, method="POST", path="/v1/admin/clear"):
            r = s.request(method, path, body, admin)
            expect(r.status == 200, r.body)
            return r.json()

        def heads(word=""):
            return sorted(n for n in os.listdir(os.path.join(data, "caches")) if "~" in n and word in n)

        def blocks():
            return sorted(n for n in os.listdir(os.path.join(data, "caches")) if n.startswith("b-"))

        with Server(data, *flags) as s:
            for who, agent, seed in ((mine, "a", 1), (mine, "shares", 1), (mine, "b", 2), (theirs, "a", 1)):
                ask(s, "memo", agent, words(400, seed), who)
            expect(s.request("POST", "/v1/admin/models/swap", {"model": "other"}, admin).status == 200, "swap")
            ask(s, "other", "a", words(400, 1), mine)
            expect(len(heads()) == 5 and len(blocks()) == 4, f"{heads()} {blocks()}")
            used = s.request("GET", "/v1/admin/status", headers=admin).json()["disk_bytes"]
            r = s.request("POST", "/v1/admin/clear", {"model": "memo", "all": True}, admin)
            expect(r.status == 409 and "not in memory" in r.json()["error"]["message"], r.body)
            out = clear({"agent": "a"})
            expect(out["agents"] == 2 and out["blocks"] == 1, f"of both models, but a block that 'shares' has: {out}")
            expect(len(heads("a~")) == 1 and len(blocks()) == 3, f"{heads()} {blocks()}")
            left = s.request("GET", "/v1/admin/status", headers=admin).json()["disk_bytes"]
            on_disk = sum(os.path.getsize(os.path.join(data, "caches", n)) for n in heads() + blocks())
            expect(left == used - out["bytes"] == on_disk, f"{used} {out} {left} {on_disk}")
            there = ["--port", str(s.live_port), "--data-dir", data, "--admin-key", admin["x-admin-key"]]
            code, text, err = run("evict", "--tenant", "default", *there)
            expect(code == 0 and "agents" in text, text + err)
            code, text, err = run("clear", "--tenant", "nobody", *there)
            expect(code == 1 and "there is no tenant 'nobody'" in err, text + err)
            out = clear({"tenant": "team"})
            expect(out["agents"] == 1 and out["blocks"] == 1 and heads("@") == [], f"{out} {heads()}")
            expect(s.request("POST", "/v1/admin/models/swap", {"model": "memo"}, admin).status == 200, "swap back")
            expect(cached(ask(s, "memo", "b", words(400, 2), mine)) >= 256, "another agent's state went")
            ask(s, "other", "c", words(400, 3), mine)
            ask(s, "memo", "d", words(400, 4), theirs)
            code, text, err = run("clear", "--tenant", "default", *there)
            expect(code == 0 and "3 agents" in text and len(heads("@")) == len(heads()) == 1, f"the default tenant by its name: {text}{err}{heads()}")
            ask(s, "other", "c", words(400, 3), mine)
            expect(s.request("POST", "/v1/admin/models/unload", {}, admin).status == 200, "unload")
            refused = os.path.join(data, "caches", "refused")
            os.makedirs(os.path.join(refused, "folder"))
            with open(os.path.join(refused, "1-" + heads()[0]), "wb") as f:
                f.write(b"somebody's words")
            expect(clear({"agent": "nobody"})["refused"] == 0 and len(os.listdir(refused)) == 2, "one agent's clear leaves what is nobody's")
            out = clear(None, "DELETE", "/admin/caches")
            expect(out["agents"] == 2 and heads() == [] and blocks() == [], f"with nothing in memory: {out} {heads()} {blocks()}")
            expect(out["refused"] == 1 and os.listdir(refused) == ["folder"], f"words in refused files are forgotten too: {out} {os.listdir(refused)}")
            first = ask(s, "memo", "b", words(400, 2), mine)
            expect(cached(first) == 0 and first["agent_memory"]["miss_reason"] == "new_agent", first["agent_memory"])
            expect(s.stop() == 0, "exit code")


def test_a_seed_for_all():
    with temp_dir() as d:
        data, flags = two_models(d)
        with Server(data, *flags, "--admin-key", "k") as s:
            def run_of_three():
                return [text_of(s.chat("Tell me a story", None, temperature=1.2, max_tokens=12, model=m)) for m in ("memo", "memo", "other")]

            expect(s.request("POST", "/admin/seed", {"seed": 7}).status == 401, "without the admin's key")
            runs = []
            for seed in (7, 7, 8):
                r = s.request("POST", "/admin/seed", {"seed": seed}, {"x-admin-key": "k"})
                expect(r.status == 200 and r.json() == {"status": "ok", "seed": seed}, r.body)
                runs.append(run_of_three())
            expect(runs[0] == runs[1] and runs[0] != runs[2], runs)
            expect(runs[0][0] != runs[0][1], "each request has a seed of its own")
