"""Agents of models that are not in memory: quotas, status and metrics count them. (test_operate.py: clear reaches them.)"""
from harness import Server, expect, run, words
from test_metrics import parse, scrape
from test_models import MEMO, SMALL, two_models


def two(d, other, *args):
    return Server(d, "--model", f"memo={MEMO}", "--model", f"other={other}", *SMALL, *args)


def test_quotas_count_them():
    boss = {"x-admin-key": "boss"}
    with two_models() as (d, other):
        code, key, err = run("keys", "add", "t", "--data-dir", d, "--max-agents", "2")
        expect(code == 0, err)
        key = next(w for w in key.split() if w.startswith("sk-am-"))

        def turn(s, model, agent, status=200):
            r = s.request("POST", "/v1/chat/completions", {"model": model, "messages": [{"role": "user", "content": words(300, 1)}], "max_tokens": 4},
                          {"x-agent-id": agent, "authorization": f"Bearer {key}"})
            expect(r.status == status, lambda: f"{model} {agent}: {r.status} {r.body}")
            return r.json()

        def count(s, absent):
            there = s.request("GET", "/v1/admin/status", headers=boss).json()
            disk = sum(s.cache_files().values())
            expect(there["absent_agents"] == absent and there["disk_bytes"] == disk, f"{absent} {disk} {there}")
            metrics = parse(scrape(s))[0]
            expect(metrics["agent_memory_absent_agents"][""] == absent and metrics["agent_memory_disk_bytes"][""] == disk, "metrics")

        def post(s, path, body):
            r = s.request("POST", path, body, boss)
            expect(r.status == 200, str(r.body))
            return r.json()

        with two(d, other, "--admin-key", "boss") as s:
            turn(s, "memo", "a")
            turn(s, "other", "b")
            count(s, 0)
            post(s, "/v1/admin/models/unload", {"model": "other"})
            count(s, 1)
            expect(turn(s, "memo", "c", 429)["error"]["code"] == "agent_quota_exceeded", "b is not in memory, and counted")
            turn(s, "memo", "a")
            post(s, "/v1/admin/models/load", {"model": "other"})
            count(s, 0)
            turn(s, "other", "b")
            turn(s, "other", "c", 429)
            expect(s.stop() == 0, "exit code")
        with two(d, other, "--admin-key", "boss") as s:  # the account comes from the files
            count(s, 1)
            turn(s, "memo", "c", 429)
            out = post(s, "/v1/admin/clear", {"tenant": "t", "agent": "b"})
            expect(out["agents"] == 1, str(out))
            count(s, 0)
            turn(s, "memo", "c")
            turn(s, "memo", "d", 429)
            expect(s.stop() == 0, "exit code")
        code, out, err = run("keys", "limit", "t", "--max-agents", "0", "--max-disk", "10K", "--data-dir", d)
        expect(code == 0, err)
        with two(d, other, "--admin-key", "boss", "--default-model", "other") as s:
            expect(turn(s, "other", "e", 429)["error"]["code"] == "disk_quota_exceeded", "bytes of the other model's agents")


def test_delete_reaches_every_model():
    with two_models() as (d, other), two(d, other) as s:
        def turns(agent, *models):
            for model in models:
                r = s.request("POST", "/v1/chat/completions", {"model": model, "messages": [{"role": "user", "content": words(300, 1)}], "max_tokens": 4}, {"x-agent-id": agent})
                expect(r.status == 200, str(r.body))

        def heads():
            return sorted(f.split("~")[0] for f in s.cache_files() if "~" in f)

        def delete(agent, status, query=""):
            r = s.request("DELETE", f"/v1/agents/{agent}{query}")
            expect(r.status == status, f"{agent} {query}: {r.status} {r.body}")
            return r.json()

        turns("a", "memo", "other")
        turns("b", "memo", "other")
        turns("c", "other", "memo")
        delete("a", 200)
        expect(heads() == ["b", "b", "c", "c"], f"of both models in memory: {heads()}")
        expect(delete("b", 200, "?model=other")["deleted"] and heads() == ["b", "c", "c"], f"of one: {heads()}")
        turns("b", "other")
        turns("d", "other")
        expect(s.request("POST", "/v1/admin/models/unload", {"model": "other"}).status == 200, "unload")
        delete("b", 200)
        expect(heads() == ["c", "c", "d"], f"also what is not in memory: {heads()}")
        delete("d", 200)
        delete("d", 404)
        delete("a", 404)
        for word in ("?evict_only", "?evict_only=", "?evict_only=tru", "?evict_only=%zz"):
            delete("c", 400, word)
        expect(delete("c", 200, "?evict_only=true")["tier"] == "warm" and heads() == ["c", "c"], "out of memory, not forgotten")
        delete("nobody", 404, "?evict_only=1")
        delete("c", 200, "?evict_only=false")
        expect(heads() == [] and not any(f.startswith("b-") for f in s.cache_files()), f"{s.cache_files()}")
