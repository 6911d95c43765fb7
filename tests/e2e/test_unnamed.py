"""Agents of requests that name none: they go on, they do not pile up, and they make room for those that have a name."""
from harness import Server, cached_of, expect, run, temp_dir, text_of, words
from test_metrics import parse, scrape

SMALL = ["--ctx", "1024", "--kv-memory", "32M"]


class Talk:
    """A conversation that never says whose it is, unless told to."""

    def __init__(self, s, seed, key=None):
        self.s, self.key, self.messages, self.name = s, key, [{"role": "user", "content": words(60, seed)}], None

    def say(self, agent=None):
        headers = {"authorization": f"Bearer {self.key}"} if self.key else {}
        if agent:
            headers["x-agent-id"] = agent
        r = self.s.request("POST", "/v1/chat/completions", {"messages": self.messages, "max_tokens": 4, "temperature": 0}, headers)
        expect(r.status == 200, lambda: str(r.body))
        self.name = r.json()["agent_memory"]["agent"]
        self.messages += [{"role": "assistant", "content": text_of(r.json())}, {"role": "user", "content": "Go on"}]
        return cached_of(r.json())


def agents(s, key=None):
    r = s.request("GET", "/v1/agents", headers={"authorization": f"Bearer {key}"} if key else {})
    return {a["id"]: a["named"] for a in r.json()["data"]}


def test_they_do_not_pile_up():
    with temp_dir() as d:
        with Server(d, *SMALL, "--unnamed-agents", "3") as s:
            Talk(s, 100).say("alice")
            goes_on = Talk(s, 0)
            for i in range(1, 9):
                expect((goes_on.say() > 60) == (i > 1), "the one that goes on is known")
                Talk(s, i).say()
            there = agents(s)
            expect(len(there) == 4 and there.pop("alice") and not any(there.values()) and goes_on.name in there, str(there))
            goes_on.say(goes_on.name)  # the name of its answers, said once
            for i in range(10, 16):
                Talk(s, i).say()
            there = agents(s)
            expect(len(there) == 5 and there["alice"] and there[goes_on.name], str(there))
            m = parse(scrape(s))[0]
            labels = 'model="memo-28m"'
            expect(m["agent_memory_agents"][labels] == 5 and m["agent_memory_agents_unnamed"][labels] == 3, "gauges")
            expect(m["agent_memory_agents_shed_total"][labels] == 15 - 1 - 3, f"{m['agent_memory_agents_shed_total']}")
            expect(s.stop() == 0, "exit code")
        with Server(d, *SMALL, "--unnamed-agents", "1") as s:
            expect(agents(s) == there, "after a restart")
            Talk(s, 50).say()
            there = agents(s)
            expect(len(there) == 3 and sorted(there.values()) == [False, True, True], str(there))
            expect(run("agents", "verify", "--data-dir", d)[0] == 0, "verify")


def tenant(d, *limits):
    code, out, err = run("keys", "add", "t", "--data-dir", d, *limits)
    expect(code == 0, err)
    return out.split()[0]


def named(s, key, agent, status):
    r = s.request("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": words(60, ord(agent))}], "max_tokens": 4},
                  {"authorization": f"Bearer {key}", "x-agent-id": agent})
    expect(r.status == status, lambda: f"{agent}: {r.status} {r.body}")


def test_they_make_room_within_a_tenants_limits():
    with temp_dir() as d:
        key = tenant(d, "--max-agents", "2")
        with Server(d, *SMALL) as s:
            talks = [Talk(s, i, key) for i in range(3)]
            for t in talks:
                t.say()
            expect(set(agents(s, key)) == {talks[1].name, talks[2].name}, f"the last two: {agents(s, key)}")
            named(s, key, "a", 200)
            expect(set(agents(s, key)) == {"a", talks[2].name}, str(agents(s, key)))
            expect(talks[2].say() > 60 and talks[2].say() > 60, "one that goes on is no new one")
            r = s.request("POST", f"/v1/agents/{talks[2].name}/fork", {"to": "b"}, {"authorization": f"Bearer {key}"})
            expect(r.status == 429 and talks[2].name in agents(s, key), f"what is to be copied does not make room for its copy: {r.body}")
            named(s, key, "b", 200)
            named(s, key, "c", 429)
            talks[1].say()
            expect(agents(s, key) == {"a": True, "b": True}, "no room: answered, not kept")


def test_they_make_room_on_disk():
    with temp_dir() as d:
        key = tenant(d)
        with Server(d, *SMALL) as s:
            Talk(s, 1, key).say()
            Talk(s, 2, key).say()
            taken = sum(s.cache_files().values())
            expect(s.stop() == 0, "exit code")
        code, _, err = run("keys", "limit", "t", "--max-disk", str(taken * 3 // 4), "--data-dir", d)
        expect(code == 0, err)
        with Server(d, *SMALL) as s:
            named(s, key, "a", 200)
            named(s, key, "b", 200)
            named(s, key, "c", 429)
            expect(agents(s, key) == {"a": True, "b": True}, str(agents(s, key)))
