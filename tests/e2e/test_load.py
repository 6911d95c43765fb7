"""Many clients, bad clients, big and deep bodies, and memory that does not grow."""
import json
import socket
import threading
import time

from harness import TORTURE, Server, expect, temp_dir, text_of, words


def test_200_parallel_streams():
    with temp_dir() as d, Server(d, "--queue", "300") as s:
        texts, errors = [None] * 200, []

        def one(i):
            try:
                pieces = [c["choices"][0]["delta"].get("content") or "" for c in s.stream("Who are you?", f"agent{i}", timeout=300) if c["choices"]]
                texts[i] = "".join(pieces)
            except Exception as e:
                errors.append(repr(e))

        threads = [threading.Thread(target=one, args=(i,)) for i in range(200)]
        start = time.monotonic()
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        expect(not errors, errors[:3])
        expect(len(set(texts)) == 1 and "Memo" in texts[0], set(texts))
        return f"{time.monotonic() - start:.1f} s"


def test_full_queue_says_429():
    with temp_dir() as d, Server(d, "--parallel", "1", "--queue", "2") as s:
        statuses = []

        def one():
            body = {"messages": [{"role": "user", "content": "Tell me a story."}], "max_tokens": 200, "ignore_eos": True}
            r = s.request("POST", "/v1/chat/completions", body)
            statuses.append((r.status, r.headers.get("retry-after")))

        threads = [threading.Thread(target=one) for _ in range(10)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        expect({code for code, _ in statuses} == {200, 429}, statuses)
        expect(all(retry for code, retry in statuses if code == 429), "429 without retry-after")


def raw(s, data, read=True, timeout=30):
    with socket.create_connection(("127.0.0.1", s.live_port), timeout=timeout) as c:
        c.sendall(data)
        got = b""
        while read:
            try:
                piece = c.recv(65536)
            except ConnectionResetError:
                break
            if not piece:
                break
            got += piece
        return got


def post(body, close=True):
    return (b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + (b"Connection: close\r\n" if close else b"") +
            f"Content-Length: {len(body)}\r\n\r\n".encode() + body)


def running(s):
    return s.request("GET", "/health").json()["requests"]["running"]


def wait_idle(s, seconds):
    end = time.monotonic() + seconds
    while running(s):
        expect(time.monotonic() < end, "a request still runs")
        time.sleep(0.02)


def test_hang_up_frees_the_request():
    with temp_dir() as d, Server(d) as s:
        stream = s.stream("Tell me a story.", "a", max_tokens=7000, ignore_eos=True)
        next(stream)
        end = time.monotonic() + 10
        while running(s) != 1:  # the figures are those of the last step
            expect(time.monotonic() < end, "it does not run")
        stream.close()
        start = time.monotonic()
        wait_idle(s, 5)
        took = time.monotonic() - start
        reply = s.chat("Who are you?", "a")
        expect("Memo" in text_of(reply), reply)
        return f"free after {took * 1000:.0f} ms"


def test_slow_reader_stalls_nobody():
    with temp_dir() as d, Server(d, "--max-outbox", "64K") as s:
        body = json.dumps({"messages": [{"role": "user", "content": "Tell me a story."}], "stream": True, "max_tokens": 7000, "ignore_eos": True}).encode()
        with socket.socket() as c:
            c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            c.connect(("127.0.0.1", s.live_port))
            c.sendall(post(body))
            time.sleep(0.3)
            for _ in range(5):
                start = time.monotonic()
                reply = s.chat("Who are you?")
                expect("Memo" in text_of(reply) and time.monotonic() - start < 10, "others were stalled")
        wait_idle(s, 60)


def test_big_body():
    big = json.dumps({"messages": [{"role": "user", "content": "x " * (5 << 20)}]}).encode()
    with temp_dir() as d, Server(d) as s:
        r = s.request("POST", "/v1/chat/completions", big)
        expect(r.status == 400 and r.json()["error"]["code"] == "context_length_exceeded", (r.status, r.body[:300]))
        expect("Memo" in text_of(s.chat("Who are you?")), "the server suffered")
    with temp_dir() as d, Server(d, "--max-body", "1M") as s:
        try:
            status = s.request("POST", "/v1/chat/completions", big).status
        except (ConnectionResetError, BrokenPipeError):
            status = 413  # refused while it was still being sent
        expect(status == 413, status)
        expect("Memo" in text_of(s.chat("Who are you?")), "the server suffered")


def test_deep_json():
    deep = b'{"messages":' + b"[" * 100000 + b"]" * 100000 + b"}"
    with temp_dir() as d, Server(d) as s:
        r = s.request("POST", "/v1/chat/completions", deep)
        expect(r.status == 400 and "error" in r.json(), (r.status, r.body[:200]))
        for junk in (b"", b"null", b"[]", b"{", b'{"messages":{}}', b'{"messages":[1]}', b"\xff\xfe", b'{"messages":[{"role":"user","content":"\\ud800"}]}'):
            r = s.request("POST", "/v1/chat/completions", junk)
            expect(r.status in (200, 400) and "x-request-id" in r.headers, (junk, r.status, r.body[:200]))
        expect("Memo" in text_of(s.chat("Who are you?")), "the server suffered")


def test_odd_http():
    with temp_dir() as d, Server(d) as s:
        expect(s.request("GET", "/nowhere").status == 404 and "error" in s.request("GET", "/nowhere").json(), "404")
        expect(s.request("PUT", "/v1/chat/completions", b"{}").status == 405, "405")
        for junk in (b"\0\0\0\0", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b"A" * 100000):
            answer = raw(s, junk + b"\r\n\r\n")
            expect(not answer or answer.startswith(b"HTTP/1.1 4") or answer.startswith(b"HTTP/1.1 5"), (junk[:40], answer[:80]))
        raw(s, post(b'{"messages": [{"role"')[:-5], read=False)
        expect("Memo" in text_of(s.chat("Who are you?")), "the server suffered")


def test_memory_does_not_grow():
    """Turns over 50 agents with a small pool; the slope of RSS after warm-up."""
    n_turns = 2000 if TORTURE else 300
    with temp_dir() as d, Server(d, "--ctx", "1024", "--parallel", "4", "--kv-memory", "12M", "--durability", "no", "--log-level", "warn") as s:
        histories, samples = {}, []
        for turn in range(n_turns):
            name = f"agent{turn * 7 % 50}"
            history = histories.setdefault(name, [])
            if len(history) > 8:
                history.clear()
            s.turn(history, f"My number is {turn}. " + words(60, turn) if not history else "What is my number?", name, max_tokens=8)
            if turn >= n_turns // 2:
                samples.append((turn, s.rss_bytes()))
        n = len(samples)
        mean_x, mean_y = sum(x for x, _ in samples) / n, sum(y for _, y in samples) / n
        slope = sum((x - mean_x) * (y - mean_y) for x, y in samples) / sum((x - mean_x) ** 2 for x, _ in samples)
        growth = slope * n
        expect(growth < (8 << 20), f"RSS grows {slope:.0f} bytes a turn")
        return f"{n_turns} turns, {slope:.0f} bytes a turn, RSS {mean_y / 2**20:.0f} MiB"
