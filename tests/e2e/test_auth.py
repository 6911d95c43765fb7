"""Keys, tenants and limits of the real server: who is let in, and that tenants never meet."""
import http.client
import json
import os
import stat
import threading
import time
from urllib.parse import quote

from harness import Server, cached_of, expect, run, temp_dir, text_of, words


def new_key(data, *args):
    code, out, err = run("keys", "add", *args, "--data-dir", data)
    expect(code == 0 and out.startswith("sk-am-"), out + err)
    return out.strip()


def bearer(key):
    return {"authorization": f"Bearer {key}"}


def ask(s, key, messages, agent=None, **more):
    body = {"messages": messages if isinstance(messages, list) else [{"role": "user", "content": messages}], "temperature": 0, "max_tokens": 16, **more}
    return s.request("POST", "/v1/chat/completions", body, {**(bearer(key) if key else {}), **({"x-agent-id": agent} if agent else {})})


def expect_error(reply, status, code, kind):
    expect(reply.status == status, f"{reply.status}, not {status}: {reply.body!r}")
    error = reply.json()["error"]
    expect(error["code"] == code and error["type"] == kind and error["message"] and "param" in error, str(error))
    expect(reply.headers.get("x-request-id"), "no x-request-id")


def test_keys_are_made_listed_and_removed():
    with temp_dir() as d:
        key = new_key(d, "team", "--note", "laptop", "--max-rate", "7")
        path = os.path.join(d, "keys.json")
        expect(stat.S_IMODE(os.stat(path).st_mode) == 0o600, "mode of keys.json")
        with open(path, encoding="utf-8") as f:
            text = f.read()
        expect(key not in text and key[6:] not in text, "the key itself is in the file")
        second = new_key(d, "team")
        expect(second != key, "the same key twice")
        code, out, _ = run("keys", "list", "--data-dir", d)
        ids = [line.split()[0] for line in out.splitlines()[1:]]
        expect(code == 0 and len(ids) == 2 and "laptop" in out and "team" in out, out)
        code, out, _ = run("keys", "show", "team", "--data-dir", d)
        expect(code == 0 and "requests a minute      7" in out and all(i in out for i in ids), out)
        expect(run("keys", "limit", "team", "--max-rate", "0", "--max-agents", "3", "--data-dir", d)[0] == 0, "limit")
        out = run("keys", "show", "team", "--data-dir", d)[1]
        expect("requests a minute      no limit" in out and "agents                 3" in out, out)
        expect(run("keys", "rm", ids[0], "0123", "--data-dir", d)[0] == 1, "a wrong id was taken")
        expect(len(run("keys", "list", "--data-dir", d)[1].splitlines()) == 3, "half of a refused rm was done")
        expect(run("keys", "rm", ids[0], "--data-dir", d)[0] == 0, "rm")
        expect(len(run("keys", "list", "--data-dir", d)[1].splitlines()) == 2, "rm removed nothing")
        for wrong in (("add", "a b"), ("add", "../x"), ("add", "x" * 64), ("add", "t", "--admin"), ("limit", "nobody"), ("limit", "team"), ("show", "nobody")):
            code, _, err = run("keys", *wrong, "--data-dir", d)
            expect(code == 1 and err, f"{wrong}: {code} {err}")
        os.chmod(path, 0o644)
        code, _, err = run("keys", "list", "--data-dir", d)
        expect(code == 1 and "chmod 600" in err, err)
        code, _, err = run("serve", "--port", "0", "--data-dir", d)
        expect(code == 1 and "chmod 600" in err, err)


def test_a_hundred_at_once_lose_no_key():
    with temp_dir() as d:
        threads = [threading.Thread(target=new_key, args=(d, f"t{i % 3}")) for i in range(24)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        expect(len(run("keys", "list", "--data-dir", d)[1].splitlines()) == 25, "keys were lost")


def test_public_addresses_want_keys():
    with temp_dir() as d:
        data = os.path.join(d, "data")
        code, _, err = run("serve", "--host", "0.0.0.0", "--port", "0", "--data-dir", data)
        expect(code == 1 and "agent-memory keys add" in err and "--allow-no-auth" in err, err)
        expect(not os.path.exists(data), "the data folder was made")
        with Server(data, env={"AGENT_MEMORY_API_KEY": ""}) as s:
            expect(any("this machine only, without keys" in line for line in s.out), "\n".join(s.out))


def test_missing_wrong_and_right_keys():
    with temp_dir() as d:
        key, admin = new_key(d, "a"), new_key(d, "--admin")
        with Server(d) as s:
            for path in ("/v1/models", "/v1/agents", "/v1/agents/x"):
                expect_error(s.request("GET", path), 401, "missing_api_key", "invalid_request_error")
            r = ask(s, None, "hi")
            expect_error(r, 401, "missing_api_key", "invalid_request_error")
            expect(r.headers.get("www-authenticate", "").startswith("Bearer"), "no www-authenticate")
            for wrong in (key[:-1], key + "x", "", "x" * 5000, key.upper(), "Bearer " + key):
                r = s.request("GET", "/v1/models", headers=bearer(wrong))
                expect(r.status == 401, f"{wrong[:20]!r}: {r.status}")
                expect(wrong[:12] not in r.body.decode() or not wrong, "the key is echoed")
            expect_error(s.request("GET", "/v1/models", headers=bearer(admin)), 403, "wrong_kind_of_key", "permission_error")
            for good in ({"authorization": "Bearer " + key}, {"authorization": "bearer  " + key}, {"x-api-key": key},
                         {"authorization": "Basic Zm9v", "x-api-key": key}, {"authorization": "Bearer wrong", "x-api-key": key}):
                expect(s.request("GET", "/v1/models", headers=good).status == 200, str(good))
            expect(ask(s, key, "hi").status == 200, "chat with the key")
            open_paths = {p: s.request("GET", p).status for p in ("/", "/health", "/health/live", "/health/ready", "/health/startup")}
            expect(set(open_paths.values()) == {200}, str(open_paths))
            expect("cache" not in s.request("GET", "/health").json(), "/health tells strangers how much is stored")
            expect("cache" in s.request("GET", "/health", headers=bearer(key)).json(), "/health with a key")
            log = "\n".join(s.log + s.out)
            expect(key not in log and admin not in log, "a key is in the log")


def test_one_key_from_the_environment():
    with temp_dir() as d:
        with Server(d) as s:
            s.chat("remember me", "old friend")
            s.stop()
        with Server(d, env={"AGENT_MEMORY_API_KEY": "my secret", "AGENT_MEMORY_ADMIN_KEY": "other secret"}) as s:
            expect(s.request("GET", "/v1/agents").status == 401, "without the key")
            names = [a["id"] for a in s.request("GET", "/v1/agents", headers=bearer("my secret")).json()["data"]]
            expect(names == ["old friend"], f"the default tenant's agents: {names}")
            line = s.events("settings")[0]
            expect("secret" not in line and 'api-key="(set) (environment)"' in line, line)
            env = {"AGENT_MEMORY_API_KEY": "my secret"}
            code, out, err = run("agents", "list", "--port", str(s.live_port), "--data-dir", d, env=env)
            expect(code == 0 and "old friend" in out, out + err)
            code, out, err = run("agents", "list", "--port", str(s.live_port), "--data-dir", d)
            expect(code == 1 and "API key" in err, out + err)
            code, out, err = run("chat", "--port", str(s.live_port), "--agent", "cli", "--max-tokens", "4", stdin="hello\n", env=env)
            expect(code == 0, out + err)
        with Server(d, "--api-key", "on the line") as s:
            with open(f"/proc/{s.process.pid}/cmdline", "rb") as f:
                expect(b"on the line" not in f.read(), "the key stands in the process list")
            expect(s.request("GET", "/v1/models", headers=bearer("on the line")).status == 200, "--api-key")


def test_tenants_never_meet():
    """B asks for what A has, by name, by content and by time; everything must be as if A were not there."""
    with temp_dir() as d:
        a, b = new_key(d, "a"), new_key(d, "b")
        long = words(700, 5)
        for round_ in range(2):  # a second time after a restart: from disk
            with Server(d) as s:
                first = ask(s, a, long, "shared name").json()
                expect((cached_of(first) > 0) == (round_ == 1), f"A's own state: {first['usage']}")
                again = [{"role": "user", "content": long}, {"role": "assistant", "content": text_of(first)}, {"role": "user", "content": "go on"}]
                expect(cached_of(ask(s, a, again, "shared name").json()) > 600, "A continues")
                # by content: B has never seen these tokens, whatever name it tries
                for name in (None, "shared name", "another name"):
                    r = ask(s, b, long, name).json()
                    expect(cached_of(r) == 0 and r["agent_memory"]["tier"] == "cold", f"B measured A's state: {r['usage']}")
                    expect(r["agent_memory"]["agent"] == name or name is None and r["agent_memory"]["agent"] != "shared name", "B was given A's agent")
                    for mine in s.request("GET", "/v1/agents", headers=bearer(b)).json()["data"]:
                        s.request("DELETE", "/v1/agents/" + quote(mine["id"]), headers=bearer(b))
                # by name: the same answers as for an agent that is nowhere
                expect(ask(s, a, again, "shared name").json()["agent_memory"]["tier"] == "hot", "B's agent of that name was A's")
                for method, path, body in (("GET", "/v1/agents/{}", None), ("DELETE", "/v1/agents/{}", None), ("POST", "/v1/agents/{}/fork", {"to": "y"})):
                    there, nowhere = (s.request(method, path.format(n), body, bearer(b)) for n in ("shared%20name", "nowhere%20else"))
                    expect(there.status == nowhere.status == 404, f"{method} {path}: {there.status} {nowhere.status}")
                    expect(there.body.replace(b"shared name", b"nowhere else") == nowhere.body, f"{there.body!r} {nowhere.body!r}")
                expect([x["id"] for x in s.request("GET", "/v1/agents", headers=bearer(a)).json()["data"]] == ["shared name"], "A's list")
                expect(s.request("GET", "/v1/agents", headers=bearer(b)).json()["data"] == [], "B's list")
                s.stop()


def test_first_sight_is_cold_for_every_tenant():
    with temp_dir() as d:
        keys = [new_key(d, t) for t in ("a", "b", "default")]
        prompt = words(600, 9)
        with Server(d) as s:
            for key in keys:
                r = ask(s, key, prompt, "x").json()
                expect(cached_of(r) == 0 and r["agent_memory"]["tier"] == "cold", f"{r['usage']}")
            for key in keys:
                expect(cached_of(ask(s, key, prompt, "x").json()) > 500, "own state")


def test_requests_a_minute():
    with temp_dir() as d:
        key, other = new_key(d, "slow", "--max-rate", "5"), new_key(d, "free")
        with Server(d) as s:
            replies = [s.request("GET", "/v1/models", headers=bearer(key)) for _ in range(7)]
            expect([r.status for r in replies] == [200] * 5 + [429] * 2, str([r.status for r in replies]))
            expect([r.headers["x-ratelimit-remaining-requests"] for r in replies] == ["4", "3", "2", "1", "0", "0", "0"], "remaining")
            expect(replies[0].headers["x-ratelimit-limit-requests"] == "5" and replies[0].headers["x-ratelimit-reset-requests"], "headers")
            expect_error(replies[6], 429, "rate_limit_exceeded", "rate_limit_error")
            expect(1 <= int(replies[6].headers["retry-after"]) <= 12, replies[6].headers["retry-after"])
            expect(s.request("GET", "/v1/models", headers=bearer(other)).status == 200, "another tenant suffers")
            expect("x-ratelimit-limit-requests" not in s.request("GET", "/v1/models", headers=bearer(other)).headers, "headers without a limit")
            expect(ask(s, key, "hi").status == 429, "chat is not counted")


def test_parallel_requests():
    with temp_dir() as d:
        key = new_key(d, "one", "--max-parallel", "2")
        with Server(d) as s:
            bodies = []
            threads = [threading.Thread(target=lambda: bodies.append(ask(s, key, "Tell me a story.", max_tokens=300, ignore_eos=True).status)) for _ in range(2)]
            for t in threads:
                t.start()
            end = time.monotonic() + 20
            while s.request("GET", "/health", headers=bearer(key)).json()["requests"]["running"] < 2 and time.monotonic() < end:
                time.sleep(0.01)
            r = ask(s, key, "me too")
            expect_error(r, 429, "too_many_parallel_requests", "rate_limit_error")
            expect(int(r.headers["retry-after"]) >= 1, "retry-after")
            for t in threads:
                t.join()
            expect(bodies == [200, 200], str(bodies))
            expect(ask(s, key, "now").status == 200, "a place was not given back")
            body = json.dumps({"messages": [{"role": "user", "content": "Tell me a story."}], "stream": True, "max_tokens": 3000, "ignore_eos": True}).encode()
            for _ in range(6):  # who hangs up gives the place back, too
                c = http.client.HTTPConnection("127.0.0.1", s.live_port, timeout=30)
                c.request("POST", "/v1/chat/completions", body, {**bearer(key), "content-type": "application/json"})
                expect(c.getresponse().status == 200, "a hang-up kept its place")
                c.close()
                end = time.monotonic() + 10
                while s.request("GET", "/health", headers=bearer(key)).json()["requests"]["running"] and time.monotonic() < end:
                    time.sleep(0.01)


def test_agents_and_disk_of_a_tenant():
    with temp_dir() as d:
        key = new_key(d, "small", "--max-agents", "2")
        with Server(d) as s:
            expect([ask(s, key, "hi", n).status for n in ("one", "two", "one")] == [200] * 3, "within the limit")
            expect_error(ask(s, key, "hi", "three"), 429, "agent_quota_exceeded", "rate_limit_error")
            expect_error(s.request("POST", "/v1/agents/one/fork", {"to": "four"}, bearer(key)), 429, "agent_quota_exceeded", "rate_limit_error")
            expect(ask(s, key, "no name given").status == 200, "a request without a name")
            expect(len(s.request("GET", "/v1/agents", headers=bearer(key)).json()["data"]) == 2, "an agent too many")
            expect(s.request("DELETE", "/v1/agents/two", headers=bearer(key)).status == 200, "delete")
            expect(ask(s, key, "hi", "three").status == 200, "after one was deleted")
            expect(run("keys", "limit", "small", "--max-agents", "0", "--max-disk", "1K", "--data-dir", d)[0] == 0, "limit")
            end = time.monotonic() + 5
            while not s.events("keys_read") and time.monotonic() < end:
                time.sleep(0.05)
            expect_error(ask(s, key, "hi", "three"), 429, "disk_quota_exceeded", "rate_limit_error")


def test_changes_of_keys_reach_a_running_server():
    with temp_dir() as d:
        first = new_key(d, "a")
        with Server(d) as s:
            second = new_key(d, "a")

            def becomes(key, status):
                end = time.monotonic() + 10
                while time.monotonic() < end:
                    if s.request("GET", "/v1/models", headers=bearer(key)).status == status:
                        return True
                    time.sleep(0.05)
                return False

            expect(becomes(second, 200), "a new key is not known")
            ids = [line.split()[0] for line in run("keys", "list", "--data-dir", d)[1].splitlines()[1:]]
            run("keys", "rm", ids[0], "--data-dir", d)
            expect(becomes(first, 401), "a removed key still opens")
            with open(os.path.join(d, "keys.json"), "w", encoding="utf-8") as f:
                f.write("{nonsense")
            time.sleep(1.5)
            expect(becomes(second, 200), "a broken file took the keys away")
            expect(s.events("keys_refused"), "a broken file is not said")
            os.remove(os.path.join(d, "keys.json"))


def test_a_key_made_while_the_model_loads_counts():
    with temp_dir() as d:
        new_key(d, "a")
        with Server(d, wait=False) as s:
            s.wait_event("server_listening")
            key = new_key(d, "a")  # after the keys were read, before the first look
            s.wait_ready()
            end = time.monotonic() + 10
            while (r := s.request("GET", "/v1/models", headers=bearer(key))).status != 200 and time.monotonic() < end:
                time.sleep(0.05)
            expect(r.status == 200, "the key is never known")


def test_the_last_key_does_not_open_the_door():
    with temp_dir() as d:
        new_key(d, "a")
        with Server(d) as s:
            ids = [line.split()[0] for line in run("keys", "list", "--data-dir", d)[1].splitlines()[1:]]
            run("keys", "rm", *ids, "--data-dir", d)
            end = time.monotonic() + 5
            while not s.events("no_keys") and time.monotonic() < end:
                time.sleep(0.05)
            expect(s.request("GET", "/v1/models").status == 401, "anybody may ask")
