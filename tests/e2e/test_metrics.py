"""GET /metrics of the real server: its text by Prometheus' grammar, its numbers by what was done, and every name that docs/observability uses."""
import json
import os
import re
import shutil
import subprocess

from harness import TOP, Server, expect, temp_dir, text_of, tier_of, words

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
                return after[name][labels]

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
            expect(after["agent_memory_restore_bytes_total"][""] > 1000 and after["agent_memory_restored_blocks_total"][""] >= 1, "bytes")
            expect(text_of(reply), "no answer")


def test_promtool_is_content():
    tool = shutil.which("promtool")
    with temp_dir() as d, Server(d) as s:
        s.chat("hello", "p")
        text = scrape(s)
        parse(text)
        if not tool:
            return "no promtool here: our own reading only"
        done = subprocess.run([tool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
        expect(done.returncode == 0, done.stdout + done.stderr)
        rules = os.path.join(TOP, "docs", "observability", "alerts.yml")
        done = subprocess.run([tool, "check", "rules", rules], capture_output=True, text=True, check=False)
        expect(done.returncode == 0, done.stdout + done.stderr)
        return "promtool check metrics, check rules"


def test_dashboard_and_alerts_use_metrics_that_are():
    folder = os.path.join(TOP, "docs", "observability")
    with open(os.path.join(folder, "dashboard.json"), encoding="utf-8") as f:
        board = json.load(f)
    with open(os.path.join(folder, "alerts.yml"), encoding="utf-8") as f:
        alerts = "\n".join(re.findall(r"expr: (.*)", f.read()))
    exprs = [t["expr"] for p in board["panels"] for t in p.get("targets", [])] + [v["query"]["query"] for v in board["templating"]["list"] if isinstance(v["query"], dict)]
    used = set(re.findall(r"\b(?:agent_memory|process)_[a-z0-9_]+", "\n".join(exprs) + alerts))
    expect(len(used) > 30, f"only {used}")
    with temp_dir() as d, Server(d) as s:
        s.chat("hello", "d")
        samples, types = parse(scrape(s))
    for name in used:
        expect(name in samples or name in types, f"{name} is used in docs/observability and not in /metrics")
    tiers = set(re.findall(r'(tier|reason|finish)="([a-z_]+)"', alerts))
    shown = {(k, v) for labels in samples.values() for text in labels for k, v in re.findall(r'(\w+)="([^"]*)"', text)}
    expect(tiers <= shown, f"{tiers - shown} are in no series")
    return f"{len(used)} names"


def test_metrics_while_loading_and_with_keys():
    with temp_dir() as d, Server(d, env={"AGENT_MEMORY_API_KEY": "k", "AGENT_MEMORY_ADMIN_KEY": "a"}) as s:
        parse(scrape(s))  # this machine
        far = {"x-forwarded-for": "192.0.2.1"}
        expect(s.request("GET", "/metrics", headers=far).status == 401, "a proxied stranger")
        expect(s.request("GET", "/metrics", headers={**far, "authorization": "Bearer k"}).status == 403, "a tenant from elsewhere")
        expect(s.request("GET", "/metrics", headers={**far, "authorization": "Bearer a"}).status == 200, "the admin from elsewhere")


def test_trace_ids_reach_the_log():
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    with temp_dir() as d, Server(d) as s:
        s.request("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2},
                  {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"})
        for bad in (f"00-{trace}-00f067aa0ba902b7", f"00-{'0' * 32}-00f067aa0ba902b7-01", f"ff-{trace}-00f067aa0ba902b7-01",
                    f"00-{trace.upper()}-00f067aa0ba902b7-01", f"00-{trace}-00f067aa0ba902b7-01-x", "x", f"00_{trace}_00f067aa0ba902b7_01"):
            expect(s.request("GET", "/v1/models", headers={"traceparent": bad}).status == 200, bad)
        s.stop()
        with_trace = [line for line in s.log if trace in line]
        events = {word for line in with_trace for word in ("http_request", "turn ") if word in line}
        expect(len(with_trace) == 2 and len(events) == 2, "\n".join(with_trace))
