"""GET /metrics of the real server: its text by Prometheus' grammar, its numbers by what was done, and every name that docs/observability uses."""
import contextlib
import json
import os
import re
import shutil
import subprocess
import threading
import time

from harness import TOP, Server, expect, run, temp_dir, text_of, tier_of, words

SAMPLE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\"n])*",?)*)\})? (\S+)')


def parse(text):
    """{name: {labels as text: value}}, {name: type}. AssertionError where the grammar or a histogram is wrong."""
    samples, types, seen, current = {}, {}, set(), None
    expect(text.endswith("\n"), "the last line has no end")
    for line in text.splitlines():
        if line.startswith("# HELP "):
            current = line.split(" ", 3)[2]
            expect(current not in seen and len(line.split(" ", 3)[3]) > 5, f"{current}: twice, or no help")
            seen.add(current)
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            expect(name == current and kind in ("counter", "gauge", "histogram"), line)
            types[name] = kind
            expect((kind == "counter") == name.endswith("_total"), f"{name} is a {kind}")
        else:
            m = SAMPLE.fullmatch(line)
            expect(m, f"not a sample: {line!r}")
            name, labels, value = m[1], m[2] or "", float(m[3])
            family = re.sub(r"_(bucket|sum|count)$", "", name) if types.get(current) == "histogram" else name
            expect(family == current, f"{name} stands under {current}")
            expect(labels not in samples.setdefault(name, {}), f"{line}: twice")
            samples[name][labels] = value
    for name, kind in types.items():
        if kind == "histogram":
            check_histogram(name, samples)
    return samples, types


def check_histogram(name, samples):
    series = {}
    for labels, value in samples[name + "_bucket"].items():
        rest, bound = re.fullmatch(r'(.*?),?le="([^"]+)"', labels).groups()
        series.setdefault(rest, []).append((float(bound), value))
    for rest, buckets in series.items():
        expect([b for b, _ in buckets] == sorted(b for b, _ in buckets) and buckets[-1][0] == float("inf"), f"{name}: order of buckets")
        expect([n for _, n in buckets] == sorted(n for _, n in buckets), f"{name}: buckets do not add up")
        expect(buckets[-1][1] == samples[name + "_count"][rest], f"{name}: +Inf is not the count")
        expect((samples[name + "_sum"][rest] > 0) == (buckets[-1][1] > 0), f"{name}: sum")


def scrape(s, **headers):
    r = s.request("GET", "/metrics", headers=headers)
    expect(r.status == 200 and r.headers["content-type"].startswith("text/plain; version=0.0.4"), f"{r.status} {r.headers}")
    return r.body.decode()


def test_metrics_tell_what_was_done():
    with temp_dir() as d:
        history = []
        with Server(d) as s:
            before, _ = parse(scrape(s))
            expect(before["agent_memory_ready"][""] == 1, "ready")
            reply = s.turn(history, words(400, 3), "m", max_tokens=8, ignore_eos=True)
            s.turn(history, "go on", "m", max_tokens=8, ignore_eos=True)
            s.request("GET", "/v1/models/none")
            s.request("GET", "/nowhere/" + "x" * 50)
            s.request("GET", "/v1/models", headers={"origin": "https://evil.example"})
            after, _ = parse(scrape(s))

            def one(name, labels=""):
                """A series of the process, or else of its one model."""
                of_model = 'model="memo-28m"' + ("," + labels if labels else "")
                return after[name][of_model if of_model in after[name] else labels]

            prompt = reply["usage"]["prompt_tokens"]
            expect(one("agent_memory_generated_tokens_total") == 16, "generated")
            expect(one("agent_memory_prompt_tokens_total") > 2 * prompt, "prompts")
            expect(one("agent_memory_cached_tokens_total", 'tier="hot"') >= prompt, "reused")
            expect(one("agent_memory_turns_admitted_total", 'tier="cold"') == 1 and one("agent_memory_turns_admitted_total", 'tier="hot"') == 1, "tiers")
            expect(one("agent_memory_cache_misses_total", 'reason="new_agent"') == 1, "misses")
            expect(one("agent_memory_time_to_first_token_seconds_count", 'tier="hot"') == 1, "first token")
            expect(one("agent_memory_time_between_tokens_seconds_count") == 14, "between tokens")
            expect(one("agent_memory_turns_total", 'finish="length"') == 2, "finishes")
            route = 'method="POST",route="/v1/chat/completions",status="200"'
            expect(one("agent_memory_http_requests_total", route) == 2, "requests")
            expect(one("agent_memory_http_requests_total", 'method="GET",route="/v1/models/{id}",status="404"') == 1, "404 of a route")
            expect(one("agent_memory_http_requests_total", 'method="",route="other",status="404"') == 1, "404 of no route")
            expect(one("agent_memory_http_refused_total", 'reason="origin"') == 1, "refused")
            expect(one("agent_memory_agents") == 1 and one("agent_memory_disk_bytes") > 0 and one("agent_memory_save_seconds_count") > 0, "disk")
            expect(one("agent_memory_model_loads_total", 'result="ok"') == 1, "loads")
            expect(sum(after["agent_memory_kernels_info"].values()) == 1, "kernels")
            expect("nowhere" not in scrape(s), "a client's path became a series")
            s.stop()
        with Server(d) as s:
            history.append({"role": "user", "content": "and now?"})
            reply = s.chat(history, "m")
            expect(tier_of(reply) == "warm", tier_of(reply))
            after, _ = parse(scrape(s))
            expect(after["agent_memory_restore_seconds_count"][""] == 1 and after["agent_memory_read_seconds_count"][""] >= 1, "restored")
            model = 'model="memo-28m"'
            expect(after["agent_memory_restore_bytes_total"][model] > 1000 and after["agent_memory_restored_blocks_total"][model] >= 1, "bytes")
            expect(text_of(reply), "no answer")


def settled(s, name, labels, at_least, timeout=20):
    """The value of a series once it has come so far."""
    end = time.monotonic() + timeout
    while (value := parse(scrape(s))[0].get(name, {}).get(labels, 0)) < at_least and time.monotonic() < end:
        time.sleep(0.05)
    expect(value >= at_least, f"{name}{{{labels}}} is {value}, not {at_least}")
    return value


@contextlib.contextmanager
def moves(s, *series):
    """Each (name, labels, by): what happens inside moves it by at least so much."""
    before, _ = parse(scrape(s))
    yield
    for name, labels, by in series:
        settled(s, "agent_memory_" + name, labels, before.get("agent_memory_" + name, {}).get(labels, 0) + by)


def flip(path):
    size = os.path.getsize(path)
    with open(path, "r+b") as f:
        f.seek(size // 2)
        byte = f.read(1)[0]
        f.seek(size // 2)
        f.write(bytes([byte ^ 1]))


def test_each_thing_moves_its_series():
    """What the operator's list names, done one by one: queue, tokens, tiers, misses, restores, saves, evictions, refused files, loads, refusals."""
    with temp_dir() as d:
        data, other = os.path.join(d, "data"), os.path.join(d, "other")
        code, out, err = run("convert", os.path.join(TOP, "models", "memo-28m"), other, "--to", "mlx-8", timeout=120)
        expect(code == 0, out + err)
        m, o, g = 'model="memo"', 'model="other"', 'model="gone"'
        flags = ["--model", f"memo={TOP}/models/memo-28m", "--model", f"other={other}", "--model", "gone=/nowhere", "--parallel", "1", "--ctx", "2048",
                 "--kv-memory", "32M"]
        with Server(data, *flags) as s:
            def ask(text, agent, **more):
                return s.chat(text, agent, **{"model": "memo", "max_tokens": 4, "ignore_eos": True, **more})

            with moves(s, ("queue_seconds_count", m, 1), ("time_to_first_token_seconds_count", m + ',tier="cold"', 1), ("time_between_tokens_seconds_count", m, 3),
                       ("prompt_tokens_total", m, 400), ("generated_tokens_total", m, 4), ("cache_misses_total", m + ',reason="new_agent"', 1),
                       ("turns_total", m + ',finish="length"', 1), ("save_bytes_total", m, 1000), ("save_seconds_count", "", 2), ("steps_total", m, 4),
                       ("http_requests_total", 'method="POST",route="/v1/chat/completions",status="200"', 1)):
                ask(words(400, 1), "a")
            with moves(s, ("cached_tokens_total", m + ',tier="hot"', 256), ("turns_admitted_total", m + ',tier="hot"', 1), ("cache_misses_total", m + ',reason="tokens_differ_at"', 1)):
                ask(words(350, 1) + " and so on", "a")
            expect(s.request("POST", "/v1/admin/evict", {}).status == 200, "evict")
            with moves(s, ("cached_tokens_total", m + ',tier="warm"', 256), ("restore_seconds_count", "", 1), ("read_seconds_count", "", 1), ("restore_bytes_total", m, 1000),
                       ("restored_blocks_total", m, 1)):
                ask(words(350, 1) + " and so on", "a")
            with moves(s, ("requests_queued", m, 1), ("requests_running", m, 1)):
                waits = [threading.Thread(target=ask, args=("Tell me a story", f"q{i}"), kwargs={"max_tokens": 400}) for i in range(2)]
                for t in waits:
                    t.start()
                settled(s, "agent_memory_requests_queued", m, 1)
                expect(s.request("POST", "/v1/admin/pause").status == 200, "pause")
                settled(s, "agent_memory_gate", 'state="paused"', 1)
                expect(parse(scrape(s))[0]["agent_memory_ready"][""] == 0, "ready while paused")
            expect(s.request("POST", "/v1/admin/resume").status == 200, "resume")
            for t in waits:
                t.join()
            with moves(s, ("turns_total", m + ',finish="canceled"', 1), ("http_requests_total", 'method="POST",route="/v1/chat/completions",status="200"', 1)):
                stream = s.stream("Tell me a story", "h", model="memo", max_tokens=2000, ignore_eos=True)
                next(stream)
                stream.close()
            with moves(s, ("evictions_total", m, 1)):
                last, before = 0, parse(scrape(s))[0]["agent_memory_evictions_total"][m]
                while parse(scrape(s))[0]["agent_memory_evictions_total"][m] == before and last < 40:
                    last += 1
                    ask(words(600, 20 + last), f"e{last}")
            with moves(s, ("model_loads_total", o + ',result="ok"', 1), ("model_load_seconds_count", "", 1), ("generated_tokens_total", o, 4), ("model_bytes", o, 1 << 20),
                       ("cache_misses_total", o + ',reason="model_changed"', 1)):
                ask(words(400, 1), "a", model="other")
            before = parse(scrape(s))[0]["agent_memory_generated_tokens_total"][o]
            expect(s.request("POST", "/v1/admin/models/unload", {"model": "other"}).status == 200, "unload")
            after, _ = parse(scrape(s))
            expect(after["agent_memory_model_state"][o + ',state="absent"'] == 1 and after["agent_memory_model_bytes"][o] == 0, "state of a model that left")
            expect(after["agent_memory_generated_tokens_total"][o] == before, "a counter fell when its model left")
            with moves(s, ("generated_tokens_total", o, 4)):
                ask("hello", "b", model="other")
            with moves(s, ("model_loads_total", g + ',result="failed"', 1), ("model_state", g + ',state="failed"', 1)):
                expect(s.request("POST", "/v1/admin/models/load", {"model": "gone"}).status >= 400, "a model that is not there was loaded")
            expect(f"agent_memory_steps_total{{{g}" not in scrape(s), "series of a model that never was in memory")
            expect(s.request("POST", "/v1/admin/evict", {}).status == 200, "evict")
            for name in s.cache_files():
                if name.startswith("b-"):
                    flip(os.path.join(s.caches, name))
            with moves(s, ("refused_files_total", m, 1), ("cache_misses_total", m + ',reason="checksum"', 1)):
                ask(words(600, 20 + last), f"e{last}")
            expect(s.stop() == 0, "exit code")
        open(os.path.join(data, "caches", "left.tmp.safetensors"), "w", encoding="ascii").close()
        key = run("keys", "add", "t", "--max-rate", "6", "--max-parallel", "1", "--max-agents", "1", "--data-dir", data)[1].split()[0]
        with Server(data, *flags[:2]) as s:
            expect(parse(scrape(s))[0]["agent_memory_orphans_total"]['model="memo"'] == 1, "orphans")
            mine = {"authorization": "Bearer " + key}

            def post(agent, **more):
                body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2, **more}
                return s.request("POST", "/v1/chat/completions", body, {**mine, "x-agent-id": agent}).status

            with moves(s, ("http_refused_total", 'reason="key"', 1), ("http_refused_total", 'reason="origin"', 1), ("http_refused_total", 'reason="quota"', 1)):
                expect(s.request("GET", "/v1/models").status == 401 and s.request("GET", "/v1/models", headers={"host": "evil.example"}).status == 403, "refusals")
                expect(post("one") == 200 and post("two") == 429, "quota of agents")
            with moves(s, ("http_refused_total", 'reason="parallel"', 1), ("http_refused_total", 'reason="rate"', 1), ("http_exchanges", "", 1), ("http_connections", "", 1)):
                slow = threading.Thread(target=post, args=("one",), kwargs={"max_tokens": 1500, "ignore_eos": True})
                slow.start()
                settled(s, "agent_memory_requests_running", 'model="memo"', 1)
                expect([post("one") for _ in range(4)][0] == 429, "parallel")
                settled(s, "agent_memory_http_exchanges", "", 2)
            slow.join()


def promtool(*args, **more):
    tool = shutil.which("promtool") or shutil.which(os.path.join(TOP, "build", "bin", "promtool"))  # tools/setup --test puts it there
    if tool:
        done = subprocess.run([tool, *args], capture_output=True, text=True, check=False, **more)
        expect(done.returncode == 0, done.stdout + done.stderr)
    return tool


def observability(name):
    with open(os.path.join(TOP, "docs", "observability", name), encoding="utf-8") as f:
        return f.read()


def board_exprs():
    board = json.loads(observability("dashboard.json"))
    return [t["expr"] for p in board["panels"] for t in p.get("targets", [])], [v["query"]["query"] for v in board["templating"]["list"] if isinstance(v["query"], dict)]


def test_promtool_is_content():
    with temp_dir() as d, Server(d) as s:
        s.chat("hello", "p")
        text = scrape(s)
        parse(text)
        if not promtool("check", "metrics", input=text):
            return "no promtool here: our own reading only"
        rules = os.path.join(TOP, "docs", "observability", "alerts.yml")
        promtool("check", "rules", rules)
        shutil.copy(rules, d)
        promtool("test", "rules", shutil.copy(os.path.join(TOP, "tests", "data", "alerts_test.yml"), d))
        groups = {"groups": [{"name": "board", "rules": [{"record": f"board:{i}", "expr": e.replace("$instance", ".*").replace("$model", ".*")}
                                                        for i, e in enumerate(board_exprs()[0])]}]}
        with open(os.path.join(d, "board.yml"), "w", encoding="utf-8") as f:
            json.dump(groups, f)
        promtool("check", "rules", os.path.join(d, "board.yml"))
        return "promtool check metrics, check rules (alerts, and the dashboard's expressions), test rules"


def test_dashboard_and_alerts_use_metrics_that_are():
    alerts = re.findall(r"expr: (.*)", observability("alerts.yml"))
    panels, variables = board_exprs()
    exprs = panels + variables + alerts
    used = set(re.findall(r"\b(?:agent_memory|process)_[a-z0-9_]+", "\n".join(exprs)))
    expect(len(used) > 30, f"only {used}")
    with temp_dir() as d, Server(d) as s:
        s.chat("hello", "d")
        samples, types = parse(scrape(s))
    for name in used:
        expect(name in samples or name in types, f"{name} is used in docs/observability and not in /metrics")
    has = {name: {k for text in labels for k in re.findall(r'(\w+)="', text)} | {"instance", "job"} for name, labels in samples.items()}
    for name, filters in re.findall(r"\b((?:agent_memory|process)_[a-z0-9_]+)\{([^}]*)\}", "\n".join(exprs)):
        wanted = set(re.findall(r'(\w+)[=!]', filters))
        expect(wanted <= has[name], f"{name} has no label {wanted - has[name]}")
    values = set(re.findall(r'(tier|reason|finish|result)="([a-z_]+)"', "\n".join(alerts)))
    shown = {(k, v) for labels in samples.values() for text in labels for k, v in re.findall(r'(\w+)="([^"]*)"', text)}
    expect(values <= shown, f"{values - shown} are in no series")
    return f"{len(used)} names"


def test_metrics_while_loading_and_with_keys():
    with temp_dir() as d, Server(d, env={"AGENT_MEMORY_API_KEY": "k", "AGENT_MEMORY_ADMIN_KEY": "a"}) as s:
        parse(scrape(s))  # this machine
        far = {"x-forwarded-for": "192.0.2.1"}
        expect(s.request("GET", "/metrics", headers=far).status == 401, "a proxied stranger")
        expect(s.request("GET", "/metrics", headers={**far, "authorization": "Bearer k"}).status == 403, "a tenant from elsewhere")
        expect(s.request("GET", "/metrics", headers={**far, "authorization": "Bearer a"}).status == 200, "the admin from elsewhere")


def test_trace_ids_reach_the_log_and_the_reply():
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    with temp_dir() as d, Server(d) as s:
        r = s.request("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2},
                      {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"})
        m = re.fullmatch(f"00-{trace}-([0-9a-f]{{16}})-01", r.headers.get("traceresponse", ""))
        expect(m and m[1] != "00f067aa0ba902b7", str(r.headers))
        for bad in (f"00-{trace}-00f067aa0ba902b7", f"00-{'0' * 32}-00f067aa0ba902b7-01", f"ff-{trace}-00f067aa0ba902b7-01",
                    f"00-{trace.upper()}-00f067aa0ba902b7-01", f"00-{trace}-00f067aa0ba902b7-01-x", "x", f"00_{trace}_00f067aa0ba902b7_01",
                    f"00-{trace}-{'0' * 16}-01"):
            r = s.request("GET", "/v1/models", headers={"traceparent": bad})
            expect(r.status == 200 and "traceresponse" not in r.headers, bad)
        s.stop()
        with_trace = [line for line in s.log if trace in line]
        events = {word for line in with_trace for word in ("http_request", "turn ") if word in line}
        expect(len(with_trace) == 2 and len(events) == 2 and all(f"span_id={m[1]}" in line for line in with_trace), "\n".join(with_trace))
