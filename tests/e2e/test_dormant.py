"""Agents of models that are not in memory: quotas count them, and they can be forgotten without loading anything."""
import os

from harness import Server, cached_of, expect, run, words
from test_models import MEMO, SMALL, ask, post, states, two_models


def two(d, other, *args):
    return Server(d, "--model", f"memo={MEMO}", "--model", f"other={other}", *SMALL, *args)


def heads(s):
    return sorted(f for f in os.listdir(s.caches) if "~" in f)


def blocks(s):
    return sum(f.startswith("b-") for f in os.listdir(s.caches))


def test_clear_without_loading():
    with two_models() as (d, other):
        with two(d, other) as s:
            for model, agent in (("memo", "a"), ("other", "a"), ("other", "b")):
                ask(s, model, agent, words(400, 1))
            ask(s, "other", "c", words(400, 2))
            post(s, "/v1/admin/models/unload", {"model": "other"})
            expect(len(heads(s)) == 4, str(heads(s)))
            n = blocks(s)
            out = post(s, "/v1/admin/clear", {"agent": "b", "model": "other"})
            expect(out["agents"] == 1 and len(heads(s)) == 3 and blocks(s) == n, f"{out}: its block is a's too")
            out = post(s, "/v1/admin/clear", {"agent": "a"})
            expect(out["agents"] == 2 and len(heads(s)) == 1 and blocks(s) < n, f"{out}: in memory and on disk")
            expect(states(s)["other"] == "absent", "nothing was loaded")
            disk = s.request("GET", "/v1/admin/status").json()["disk_bytes"]
            expect(disk == sum(s.cache_files().values()), f"{disk} {s.cache_files()}")
            expect(s.stop() == 0, "exit code")
        with two(d, other) as s:  # the list comes from the files
            out = post(s, "/v1/admin/clear", {"model": "other"})
            expect(out["agents"] == 1 and heads(s) == [] and blocks(s) == 0, f"{out} {heads(s)}")
            ask(s, "other", "c", words(400, 2))
            expect(cached_of(ask(s, "other", "c", words(400, 2))) > 0, "it begins anew")
            expect(run("agents", "verify", "--data-dir", d)[0] == 0, "and all is well")


def test_quotas_count_them():
    with two_models() as (d, other):
        code, key, err = run("keys", "add", "t", "--data-dir", d, "--max-agents", "2")
        expect(code == 0, err)
        key = next(w for w in key.split() if w.startswith("sk-am-"))

        def turn(s, model, agent, status=200):
            r = s.request("POST", "/v1/chat/completions", {"model": model, "messages": [{"role": "user", "content": words(300, 1)}], "max_tokens": 4},
                          {"x-agent-id": agent, "authorization": f"Bearer {key}"})
            expect(r.status == status, lambda: f"{model} {agent}: {r.status} {r.body}")
            return r.json()
        with two(d, other, "--admin-key", "boss") as s:
            boss = {"x-admin-key": "boss"}
            turn(s, "memo", "a")
            turn(s, "other", "b")
            r = s.request("POST", "/v1/admin/models/unload", {"model": "other"}, boss)
            expect(r.status == 200, str(r.body))
            expect(turn(s, "memo", "c", 429)["error"]["code"] == "agent_quota_exceeded", "b is asleep, and counted")
            turn(s, "memo", "a")
            expect(s.stop() == 0, "exit code")
        with two(d, other, "--admin-key", "boss") as s:
            turn(s, "memo", "c", 429)
            r = s.request("POST", "/v1/admin/clear", {"tenant": "t", "agent": "b"}, boss)
            expect(r.status == 200 and r.json()["agents"] == 1, str(r.body))
            turn(s, "memo", "c")
            turn(s, "memo", "d", 429)
        code, out, err = run("keys", "limit", "t", "--max-agents", "0", "--max-disk", "10K", "--data-dir", d)
        expect(code == 0, err)
        with two(d, other, "--admin-key", "boss", "--default-model", "other") as s:
            expect(turn(s, "other", "e", 429)["error"]["code"] == "disk_quota_exceeded", "bytes of the other model's agents")
