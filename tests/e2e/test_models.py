"""Several models behind one server: names, loading on demand, swaps, what operators ask for."""
import contextlib
import http.client
import json
import os
import threading
import time

from harness import TOP, Server, expect, run, temp_dir, text_of, words

MEMO = os.path.join(TOP, "models", "memo-28m")
SMALL = ["--ctx", "2048", "--kv-memory", "48M", "--log-level", "warn"]


@contextlib.contextmanager
def two_models():
    """A data folder and a second model: the same one with 8-bit weights, so another one to every cache."""
    with temp_dir() as d:
        other = os.path.join(d, "other")
        code, out, err = run("convert", MEMO, other, "--to", "mlx-8", timeout=120)
        expect(code == 0, out + err)
        yield os.path.join(d, "data"), other


def config(d, text):
    os.makedirs(d, exist_ok=True)
    with open(os.path.join(d, "config.yaml"), "w", encoding="utf-8") as f:
        f.write(text)


def post(s, path, body=None, status=200):
    r = s.request("POST", path, body if body is not None else {})
    expect(r.status == status, lambda: f"{path} {body}: {r.status} {r.body}")
    return r.json()


def ask(s, model, agent, content, history=(), status=200, **more):
    messages = [*history, {"role": "user", "content": content}]
    r = s.request("POST", "/v1/chat/completions", {"model": model, "messages": messages, "max_tokens": 8, "temperature": 0, **more},
                  {"x-agent-id": agent} if agent else None)
    expect(r.status == status, lambda: f"{model}: {r.status} {r.body}")
    return r.json()


def cached(reply):
    return reply["usage"]["prompt_tokens_details"]["cached_tokens"]


def states(s):
    return {m["id"]: m["state"] for m in s.request("GET", "/v1/admin/status").json()["models"]}


def test_names_aliases_and_unknown_ones():
    with two_models() as (d, other):
        config(d, f"models:\n  - name: memo\n    aliases: [gpt-*, helper]\n  - name: other\n    path: {other}\n    aliases: 'claude-*'\n    temperature: 0.1\n    ctx: 1024\n")
        with Server(d, *SMALL) as s:
            listed = {m["id"]: m for m in s.request("GET", "/v1/models").json()["data"]}
            expect(set(listed) == {"memo", "helper", "other"}, str(set(listed)))
            expect(listed["memo"]["state"] == "ready" and listed["other"]["state"] == "absent" and listed["memo"]["default"], str(listed))
            expect(listed["other"]["spec"]["n_layers"] > 0 and listed["other"]["context_length"] == 1024, str(listed["other"]))
            expect(ask(s, "gpt-4o", "a", "Hello")["model"] == "memo", "an alias")
            wrong = ask(s, "nonesuch", "a", "Hello", status=404)["error"]
            expect("memo" in wrong["message"] and "other" in wrong["message"] and wrong["code"] == "model_not_found", str(wrong))
            expect(states(s)["other"] == "absent", "a wrong name loads nothing")
            expect(ask(s, "claude-x", "a", "Hello")["model"] == "other", "loaded when it is asked for")
            expect(states(s) == {"memo": "ready", "other": "ready"}, "both fit")
            expect(s.stop() == 0, "exit code")
        with Server(d, *SMALL, "--no-strict-model") as s:
            expect(ask(s, "nonesuch", "a", "Hello")["model"] == "memo", "the default, by setting")
    with temp_dir() as d, Server(d, *SMALL) as s:
        ask(s, "whatever", "a", "Hello")


def test_config_of_models():
    with temp_dir() as d:
        for text, says in (("models: 3\n", "must be a list"), ("models:\n  - nam: x\n", "did you mean 'name'"), ("models:\n  - [a]\n", "a path, or lines"),
                           ("models:\n  - ctx: many\n", "ctx: must be a whole number"), (f"model: {MEMO}\nmodels:\n  - {MEMO}\n", "both model and models")):
            config(d, text)
            code, out, err = run("config", "check", "--data-dir", d)
            expect(code == 2 and says in err, f"{text!r}: {code} {out}{err}")
        config(d, f"models:\n  - {MEMO}\n  - {MEMO}\n")
        code, out, err = run("serve", "--port", "0", "--data-dir", d)
        expect(code == 1 and "two models are called 'memo-28m'" in err, err)


def test_a_swap_that_cannot_be_changes_nothing():
    with two_models() as (d, other):
        broken = os.path.join(d + "-broken")
        os.makedirs(broken)
        for name in os.listdir(other):
            with open(os.path.join(other, name), "rb") as f, open(os.path.join(broken, name), "wb") as g:
                g.write(f.read()[:-100000] if name.endswith(".safetensors") else f.read())
        with Server(d, "--model", f"memo={MEMO}", "--model", f"other={other}", "--model", f"broken={broken}", "--model", "gone=/nowhere", *SMALL,
                    "--model-memory", "200M") as s:
            first = ask(s, "memo", "a", words(300, 1))
            for name in ("broken", "gone"):
                r = s.request("POST", "/v1/admin/models/swap", {"model_id": name})
                expect(r.status >= 400 and r.json()["error"]["message"], str(r.body))
                expect(states(s)["memo"] == "ready" and states(s)[name] == "failed", str(states(s)))
            expect(s.request("POST", "/v1/admin/models/swap", {"model": "no"}).status == 404, "unknown")
            loads = {m["id"]: m["loads"] for m in s.request("GET", "/v1/admin/status").json()["models"]}
            expect(loads["memo"] == 1, f"the old model was never dropped: {loads}")
            history = [{"role": "user", "content": words(300, 1)}, {"role": "assistant", "content": text_of_json(first)}]
            expect(cached(ask(s, "memo", "a", "Go on", history)) >= 256, "its agents are where they were")
            out = post(s, "/v1/admin/models/swap", {"model": "other"})
            expect(out["old_model_id"] == "memo" and out["new_model_id"] == "other", str(out))
            expect(states(s)["memo"] == "absent" and s.request("GET", "/v1/admin/models/current").json()["model_id"] == "other", str(states(s)))


def text_of_json(reply):
    return reply["choices"][0]["message"]["content"]


def test_operators_verbs():
    with two_models() as (d, other), Server(d, "--model", f"memo={MEMO}", "--model", f"other={other}", *SMALL) as s:
        there = ["--port", str(s.live_port), "--data-dir", d]
        ask(s, "memo", "a", words(400, 2))
        code, out, err = run("evict", *there)
        expect(code == 0 and "1 agents" in out, out + err)
        expect(s.request("GET", "/v1/agents/a").json()["tier"] == "warm", "on disk")
        code, out, err = run("swap", "other", *there)
        expect(code == 0 and "memo -> other" in out, out + err)
        code, out, err = run("status", *there)
        expect(code == 0 and "other" in out and "absent" in out, out + err)
        expect(json.loads(run("status", "--json", *there)[1])["default"] == "other", "status --json")
        for verb in (["load", "memo"], ["unload", "memo"], ["clear-pool"], ["clear", "nobody"]):
            code, out, err = run(*verb, *there)
            expect(code == 0 and "done in" in out, f"{verb}: {out}{err}")
        code, out, err = run("load", "nonesuch", *there)
        expect(code == 1 and "there is no model 'nonesuch'" in err, out + err)
        code, out, err = run("clear", *there)
        expect(code == 2 and "--all" in err, out + err)
        expect(run("pause", *there)[1] == "paused (was open)\n", "pause")
        expect(s.request("GET", "/health/ready").json() == {"status": "not_ready", "reason": "paused"}, "ready")
        answers = []
        waits = threading.Thread(target=lambda: answers.append(ask(s, "other", "b", "Hello")))
        waits.start()
        time.sleep(0.5)
        expect(not answers, "answers stand still")
        expect(run("resume", *there)[1] == "open (was paused)\n", "resume")
        waits.join(20)
        expect(len(answers) == 1, "and go on")
        expect("done" in run("drain", *there)[1], "drain")
        expect(ask(s, "other", "b", "Hello", status=503)["error"]["code"] == "drained", "nothing is taken")
        run("resume", *there)
        ask(s, "other", "b", "Hello")
        code, out, err = run("clear", "--all", *there)
        expect(code == 0 and "agents" in out, out + err)
        expect(s.request("GET", "/v1/agents").json()["data"] == [], "forgotten")
        expect(s.request("DELETE", "/admin/caches").status == 200, "by its other name")
        expect(s.stop() == 0, "exit code")


def test_admin_is_for_the_admin():
    with temp_dir() as d, Server(d, *SMALL, "--admin-key", "secret") as s:
        for method, path in (("POST", "/v1/admin/drain"), ("GET", "/v1/admin/status"), ("DELETE", "/admin/caches")):
            expect(s.request(method, path).status == 401, path)
            expect(s.request(method, path, headers={"x-admin-key": "wrong"}).status == 401, path)
        expect(s.request("GET", "/v1/admin/status", headers={"x-admin-key": "secret"}).status == 200, "x-admin-key")
        expect(s.request("GET", "/v1/admin/status", headers={"authorization": "Bearer secret"}).status == 200, "bearer")


def test_idle_models_leave_and_come_back():
    with two_models() as (d, other), Server(d, "--model", f"memo={MEMO}", *SMALL, "--model-idle", "1s") as s:
        first = ask(s, "memo", "a", words(400, 3))
        end = time.monotonic() + 20
        while states(s)["memo"] != "absent" and time.monotonic() < end:
            time.sleep(0.2)
        expect(states(s)["memo"] == "absent", "it left")
        expect(s.request("GET", "/health/ready").status == 200, "and the server is ready all the same")
        history = [{"role": "user", "content": words(400, 3)}, {"role": "assistant", "content": text_of_json(first)}]
        expect(cached(ask(s, "memo", "a", "Go on", history)) >= 256, "warm")


def test_least_recently_used_leaves_and_waiting_streams_are_kept_alive():
    with two_models() as (d, other), Server(d, "--model", f"memo={MEMO}", "--model", f"other={other}", *SMALL, "--model-memory", "140M", "--keep-alive", "100ms") as s:
        ask(s, "memo", "a", "Hello")
        slow = threading.Thread(target=ask, args=(s, "memo", "a", "Tell me more"), kwargs={"max_tokens": 400, "ignore_eos": True})
        slow.start()
        time.sleep(0.1)
        conn = http.client.HTTPConnection("127.0.0.1", s.live_port, timeout=60)
        conn.request("POST", "/v1/chat/completions", json.dumps({"model": "other", "stream": True, "max_tokens": 4, "messages": [{"role": "user", "content": "Hi"}]}),
                     {"content-type": "application/json"})
        body = conn.getresponse().read().decode()
        slow.join(60)
        expect(body.rstrip().endswith("data: [DONE]"), body[-300:])
        expect(states(s) == {"memo": "absent", "other": "ready"}, str(states(s)))
        return f"{body.count(chr(10) + ':') + body.startswith(':')} keep-alives"


def test_fifty_swaps_under_load():
    n = 50
    with two_models() as (d, other), Server(d, "--model", f"memo={MEMO}", "--model", f"other={other}", *SMALL, "--model-memory", "140M") as s:
        history = {}
        for model in ("memo", "other"):
            first = ask(s, model, f"of-{model}", words(400, 4))
            history[model] = [{"role": "user", "content": words(400, 4)}, {"role": "assistant", "content": text_of_json(first)}]
        stop, wrong, turns, rss = threading.Event(), [], [0], ([], [])

        def load(agent):
            while not stop.is_set():
                r = s.request("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "Say something"}], "max_tokens": 24},
                              {"x-agent-id": agent})
                turns[0] += 1
                if r.status != 200:
                    wrong.append(r.body)

        def swap(i):
            model = ("memo", "other")[i % 2]
            post(s, "/v1/admin/models/swap", {"model": model, "timeout_seconds": 20})
            got = cached(ask(s, model, f"of-{model}", "Go on", history[model]))
            expect(got >= 256, f"swap {i}: {got} tokens of the agent of {model} are known")

        def quiet():
            """RSS of each model while nothing else runs."""
            own = [0, 0]
            for i in range(4):
                swap(i)
                own[i % 2] = s.rss_bytes()
            return own
        before = quiet()
        threads = [threading.Thread(target=load, args=(f"busy{k}",)) for k in range(3)]
        for t in threads:
            t.start()
        try:
            for i in range(n):
                swap(i)
                rss[i % 2].append(s.rss_bytes())
        finally:
            stop.set()
            for t in threads:
                t.join()
        expect(not wrong, lambda: f"{len(wrong)} of {turns[0]}: {wrong[:2]}")
        after = quiet()
        for first, last, own in zip(before, after, rss):
            expect(last <= first * 1.05, f"RSS grew from {first / 2**20:.1f} to {last / 2**20:.1f} MiB; under load {[round(r / 2**20, 1) for r in own]}")
        explained = s.request("GET", "/debug/memory").json()["explained"]
        expect(s.stop() == 0, "exit code")
        return f"{turns[0]} turns meanwhile; RSS of both {before[0] / 2**20:.1f} and {before[1] / 2**20:.1f} MiB before, {after[0] / 2**20:.1f} and {after[1] / 2**20:.1f} after {n}; {100 * explained:.1f} % explained"
