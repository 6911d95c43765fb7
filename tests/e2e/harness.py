"""A real server under test: started on a free port of 127.0.0.1 with a data folder of its own, driven and watched from outside.

Standard library only, so that these tests run where PyPI cannot be reached."""
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

TOP = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
BINARY = os.environ.get("AM_BINARY", os.path.join(TOP, "build", "agent-memory"))
SHARED = os.environ.get("AM_SHARED", os.path.join(TOP, "..", "shared"))
TORTURE = os.environ.get("AM_TORTURE") == "1"


class Skip(Exception):
    """Raised by a test that cannot run here; its text says why."""


def need(module):
    try:
        return __import__(module)
    except ImportError as e:
        raise Skip(f"no Python package {module}") from e


def sanitized():
    """A build with a sanitizer: it reports crashes its own way, and wants address space without end."""
    return re.search("lib(asan|tsan)", subprocess.run(["ldd", BINARY], capture_output=True, text=True, check=False).stdout)


def expect(condition, text):
    if not condition:
        raise AssertionError(text() if callable(text) else text)


@contextlib.contextmanager
def temp_dir():
    path = tempfile.mkdtemp(prefix="am-e2e-")
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def run(*args, timeout=60, stdin=None, env=None):
    """A command of the program that ends by itself: (exit code, stdout, stderr)."""
    done = subprocess.run([BINARY, *args], input=stdin, capture_output=True, text=True, timeout=timeout,
                          env={**os.environ, **(env or {})})
    return done.returncode, done.stdout, done.stderr


class Reply:
    """One HTTP answer: status, headers, body; json() of it."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)


class Server:
    """with Server(data_dir) as s: ...  Leaves nothing running."""

    def __init__(self, data_dir, *args, port=0, ready_s=60, wait=True, env=None, daemon=False):
        self.data_dir, self.caches = data_dir, os.path.join(data_dir, "caches")
        self.args, self.port, self.ready_s, self.wait = list(args), port, ready_s, wait
        self.env = {**os.environ, **(env or {})}
        self.daemon = daemon  # without a controlling terminal: SIGHUP reloads
        self.process, self.out, self.log = None, [], []

    def start(self):
        self.out, self.log = [], []
        command = [BINARY, "serve", "--port", str(self.port), "--data-dir", self.data_dir, *self.args]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True, env=self.env, start_new_session=self.daemon)
        self.pumps = [threading.Thread(target=self._pump, args=a, daemon=True)
                      for a in ((self.process.stdout, self.out), (self.process.stderr, self.log))]
        for pump in self.pumps:
            pump.start()
        if self.wait:
            self.wait_ready()
        return self

    @staticmethod
    def _pump(stream, lines):
        for line in stream:
            lines.append(line.rstrip("\n"))

    def wait_ready(self):
        end = time.monotonic() + self.ready_s
        while time.monotonic() < end:
            if self.process.poll() is not None:
                for pump in self.pumps:
                    pump.join(5)
                raise AssertionError(f"server ended with {self.process.returncode}: " + "\n".join(self.log[-10:]))
            m = re.search(r"^ *address +http://[^ ]*:(\d+)", "\n".join(self.out), re.M)
            if m:
                self.live_port = int(m[1])
                return
            time.sleep(0.005)
        raise AssertionError("server not ready: " + "\n".join(self.log[-10:]))

    def __enter__(self):
        return self.start()

    def __exit__(self, *exc):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def stop(self, sig=signal.SIGTERM, timeout=60):
        """Ends it with a signal; its exit code."""
        self.process.send_signal(sig)
        code = self.process.wait(timeout)
        for pump in self.pumps:
            pump.join(5)
        return code

    def kill(self):
        self.process.kill()
        self.process.wait()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.live_port}"

    def request(self, method, path, body=None, headers=None, timeout=120):
        """body: bytes, or something that becomes JSON."""
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        c = http.client.HTTPConnection("127.0.0.1", self.live_port, timeout=timeout)
        try:
            c.request(method, path, body, {"content-type": "application/json", **(headers or {})})
            r = c.getresponse()
            return Reply(r.status, {k.lower(): v for k, v in r.getheaders()}, r.read())
        finally:
            c.close()

    def chat(self, messages, agent=None, timeout=120, **more):
        """One turn, greedy unless told; the answer as JSON. AssertionError when it is not 200."""
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        body = {"messages": messages, "temperature": 0, "max_tokens": 32, **more}
        r = self.request("POST", "/v1/chat/completions", body, {"x-agent-id": agent.encode()} if agent else None, timeout)
        expect(r.status == 200, lambda: f"chat answered {r.status}: {r.body[:300]!r}")
        return r.json()

    def turn(self, history, text, agent=None, **more):
        """Adds a user message and the answer to history (a list); the whole reply."""
        history.append({"role": "user", "content": text})
        reply = self.chat(history, agent, **more)
        history.append({"role": "assistant", "content": reply["choices"][0]["message"]["content"]})
        return reply

    def stream(self, messages, agent=None, timeout=120, **more):
        """Generator of the JSON chunks of a streamed turn. The connection closes when it is closed."""
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        body = {"messages": messages, "temperature": 0, "max_tokens": 32, "stream": True, **more}
        c = http.client.HTTPConnection("127.0.0.1", self.live_port, timeout=timeout)
        try:
            c.request("POST", "/v1/chat/completions", json.dumps(body).encode(),
                      {"content-type": "application/json", **({"x-agent-id": agent.encode()} if agent else {})})
            r = c.getresponse()
            expect(r.status == 200, lambda: f"stream answered {r.status}: {r.read()[:300]!r}")
            for line in r:
                if line.startswith(b"data: ") and line.strip() != b"data: [DONE]":
                    yield json.loads(line[6:])
        finally:
            c.close()

    def agents(self):
        return {a.get("agent") or a["id"]: a for a in self.request("GET", "/v1/agents").json()["data"]}

    def rss_bytes(self):
        """Resident or in swap: what was swapped out is memory all the same."""
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as f:
            status = f.read()
        return sum(int(re.search(key + r":\s+(\d+) kB", status)[1]) for key in ("VmRSS", "VmSwap")) * 1024

    def cache_files(self):
        """Files of heads and blocks, with their size."""
        found = {}
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self.caches):
                path = os.path.join(self.caches, name)
                if name.endswith(".safetensors") and os.path.isfile(path):
                    found[name] = os.path.getsize(path)
        return found

    def wait_event(self, name, n=1, timeout=10):
        """The nth log line of an event, when it has come."""
        end = time.monotonic() + timeout
        while len(self.events(name)) < n:
            expect(time.monotonic() < end, lambda: f"no {name} in the log: " + "\n".join(self.log[-10:]))
            time.sleep(0.02)
        return self.events(name)[n - 1]

    def events(self, name):
        """Log lines of one event."""
        return [line for line in self.log if re.search(rf"\b{name}\b", line)]


def text_of(reply):
    return reply["choices"][0]["message"]["content"]


def tier_of(reply):
    return reply["agent_memory"]["tier"]


def cached_of(reply):
    return reply["usage"]["prompt_tokens_details"]["cached_tokens"]


def words(n, seed=0):
    """n words of harmless text, the same for the same seed; about 1.3 tokens a word."""
    stock = ("the river ran past the old mill and on to the town where people sold bread apples cloth and tea every "
             "morning before the bells of the church rang over the roofs").split()
    x = seed * 2654435761 % 2**32 or 1
    out = []
    for _ in range(n):
        x = (1103515245 * x + 12345) % 2**31
        out.append(stock[(x >> 8) % len(stock)])
    return " ".join(out)
