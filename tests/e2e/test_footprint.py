"""GET /debug/memory and ps --memory: the parts explain the resident memory, also under load, with two models and after swaps; only the admin may ask."""
import contextlib
import json
import os
import threading
import time

from harness import TOP, Server, expect, run, temp_dir, words

MAX_UNEXPLAINED = 0.03


def look(s):
    r = s.request("GET", "/debug/memory")
    expect(r.status == 200, r.body)
    return r.json()


def on_the_move(s):
    return [m["id"] for m in s.request("GET", "/v1/admin/status").json()["models"] if m["state"] in ("loading", "draining")]


def at_rest(s):
    for _ in range(200):  # what a model that is being loaded has is nobody's yet
        moving, found, after = on_the_move(s), look(s), on_the_move(s)
        if not moving and not after:
            break
        time.sleep(0.02)
    return found


def check(s, when):
    for _ in range(5):  # what one that has left had goes back page by page
        found = at_rest(s)
        off = abs(found["explained"] - 1)
        if off <= MAX_UNEXPLAINED:
            break
        time.sleep(0.2)
    expect(off <= MAX_UNEXPLAINED, f"{when}: the sum explains {found['explained']:.4f} of the RSS: {json.dumps(found['parts'])} of {found['rss_bytes']}")
    expect(found["rss_bytes"] <= found["peak_rss_bytes"], "peak")
    return found


def test_the_sum_explains_the_memory():
    seen = []
    with temp_dir() as d, Server(d, "--parallel", "4") as s:
        seen.append(check(s, "at start"))
        stop = threading.Event()

        def work(i):
            history = []
            while not stop.is_set():
                s.turn(history, words(200, i + len(history)), f"agent{i}", max_tokens=600)
                if len(history) > 8:
                    history.clear()

        threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
        for t in threads:
            t.start()
        for i in range(12):
            stop.wait(0.5)
            seen.append(check(s, f"under load, look {i}"))
        stop.set()
        for t in threads:
            t.join()
        after = check(s, "after load")
        expect(len(after["agents"]) == 6 and all(a["memory_bytes"] > 0 for a in after["agents"]), after["agents"])
        expect(any(f["turns"] for f in seen), "no running turn was seen")
        expect(any(f["pool"]["sealed"]["reserved_bytes"] for f in seen), "no reservation was seen")
        expect(after["locked_bytes"] == 0 and not after["turns"], after)
        code, out, err = run("ps", "--memory", "--port", str(s.live_port))
        expect(code == 0 and "weights_packed" in out and "agent0" in out, out + err)
    return f"explained {min(f['explained'] for f in seen):.3f} to {max(f['explained'] for f in seen):.3f}"


def test_what_was_never_touched_is_not_counted():
    with temp_dir() as d, Server(d, "--parallel", "400") as s:
        s.chat("hello", "a")
        found = check(s, "with rows of logits for 400 requests, of which one ran")
        return f"explained {found['explained']:.3f}, workspace {found['parts']['workspace'] / 2**20:.1f} MiB of {found['rss_bytes'] / 2**20:.1f}"


def test_two_models_and_swaps():
    seen = []
    with temp_dir() as d:
        other = os.path.join(d, "other")
        code, out, err = run("convert", os.path.join(TOP, "models", "memo-28m"), other, "--to", "mlx-8", timeout=120)
        expect(code == 0, out + err)
        flags = ["--model", f"memo={TOP}/models/memo-28m", "--model", f"other={other}", "--ctx", "2048", "--kv-memory", "48M", "--parallel", "4"]
        with Server(os.path.join(d, "data"), *flags) as s:
            s.chat("hello", "x", model="other")
            seen.append(check(s, "two models"))
            stop = threading.Event()

            def work(i):
                n = 0
                while not stop.is_set():
                    n += 1
                    with contextlib.suppress(AssertionError):  # cancelled by a swap
                        s.chat(words(200, i + n), f"agent{i}", model=("memo", "other")[i % 2], max_tokens=64)

            threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
            for t in threads:
                t.start()
            try:
                for i in range(6):
                    stop.wait(0.5)
                    seen.append(check(s, f"two models under load, look {i}"))
                for i in range(6):
                    r = s.request("POST", "/v1/admin/models/swap", {"model": ("memo", "other")[i % 2], "timeout_seconds": 1})
                    expect(r.status == 200, r.body)
                    seen.append(check(s, f"after swap {i}"))
            finally:
                stop.set()
                for t in threads:
                    t.join()
            seen.append(check(s, "at the end"))
            expect(s.stop() == 0, "exit code")
    return f"explained {min(f['explained'] for f in seen):.3f} to {max(f['explained'] for f in seen):.3f}"


def test_only_the_admin_may_ask():
    with temp_dir() as d, Server(d, "--admin-key", "k" * 40) as s:
        expect(s.request("GET", "/debug/memory").status == 401, "without a key")
        expect(s.request("GET", "/debug/memory", headers={"authorization": "Bearer " + "k" * 40}).status == 200, "with the key")
        expect(s.request("GET", "/debug/memory", headers={"origin": "https://evil.example"}).status == 403, "from a page elsewhere")
