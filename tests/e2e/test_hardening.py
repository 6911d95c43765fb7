"""What went wrong with other servers of this kind, tried on ours: words of prompts where they should not be, files that others can read or have planted,
a machine without file descriptors, a memory that others' requests have filled, a server that calls out."""
import contextlib
import os
import re
import resource
import shutil
import socket
import stat
import subprocess
import time

from harness import Server, Skip, expect, run, sanitized, temp_dir, words

CANARY = "zwergnase-4711-quittenbrot"


def files_under(folder):
    for base, _, names in os.walk(folder):
        for name in names:
            yield os.path.join(base, name)


def test_no_words_of_a_prompt_lie_about():
    """Not in the log, the metrics, the account of memory, and not as text in any file (raw text in cache files is what others were reported for)."""
    with temp_dir() as d:
        with Server(d, "--log-level", "debug") as s:
            history = []
            for text in (f"Remember {CANARY}. " + words(300), f"Say {CANARY}.", "and again"):
                s.turn(history, text, "c", max_tokens=8)
            bad = {"messages": [{"role": "user", "content": CANARY, "nonsense": CANARY}], "temperature": CANARY}
            s.request("POST", "/v1/chat/completions", bad)
            s.request("POST", "/v1/chat/completions", b'{"messages": [{"role": "user", "content": "' + CANARY.encode() + b'"}')
            seen = [s.request("GET", p).body.decode() for p in ("/metrics", "/debug/memory", "/health", "/v1/agents", "/v1/admin/status")]
            seen.append(run("ps", "--memory", "--port", str(s.live_port))[1])
            expect(s.stop() == 0, "exit code")
            seen += s.log + s.out
        expect(not [x for x in seen if CANARY in x], [x[:300] for x in seen if CANARY in x])
        for path in files_under(d):
            with open(path, "rb") as f:
                expect(CANARY.encode() not in f.read(), f"{path} has the words of a prompt")


def test_modes_under_an_open_umask():
    with temp_dir() as d:
        data = os.path.join(d, "data")
        old = os.umask(0)
        try:
            expect(run("keys", "add", "t", "--data-dir", data)[0] == 0, "keys add")
            key = run("keys", "add", "default", "--data-dir", data)[1].split()[0]
            with Server(data, env={"AGENT_MEMORY_API_KEY": "k"}) as s:
                r = s.request("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": words(300)}], "max_tokens": 2}, {"x-agent-id": "a", "x-api-key": key})
                expect(r.status == 200, r.body)
                expect(s.stop() == 0, "exit code")
        finally:
            os.umask(old)
        paths = [data, os.path.join(data, "caches"), *files_under(data)]
        expect(len(paths) >= 5, paths)
        for path in paths:
            mode = stat.S_IMODE(os.stat(path).st_mode)
            expect(mode & 0o077 == 0, f"{path} has mode {mode:o}")


def test_planted_links_are_not_followed():
    """A link under the name of a file that is about to be written, to a file of somebody's."""
    with temp_dir() as d:
        data, victim = os.path.join(d, "data"), os.path.join(d, "victim")
        with Server(data) as s:
            s.chat(words(300), "a", max_tokens=2)
            expect(s.stop() == 0, "exit code")
        caches = os.path.join(data, "caches")
        names = [n for n in os.listdir(caches) if n.endswith(".safetensors")]
        shutil.rmtree(caches)
        os.mkdir(caches, 0o700)
        with open(victim, "w", encoding="ascii") as f:
            f.write("mine")
        for name in names:
            os.symlink(victim, os.path.join(caches, name))
        with Server(data) as s:  # the links as they are: never read, replaced by renaming
            s.chat(words(300), "a", max_tokens=2)
            for name in names:  # and once more, under the temporary names, while it runs
                with contextlib.suppress(FileExistsError):
                    os.symlink(victim, os.path.join(caches, name.replace(".safetensors", ".tmp.safetensors")))
            s.chat(words(300) + " more of it", "a", max_tokens=2)
            s.stop()
        with open(victim, encoding="ascii") as f:
            expect(f.read() == "mine", "a file outside of the folder was written")


def test_few_file_descriptors():
    """As many connections as there are descriptors: who is there is served, and so is the next when they are gone."""
    with temp_dir() as d, Server(d, "--head-timeout", "2s") as s:
        resource.prlimit(s.process.pid, resource.RLIMIT_NOFILE, (64, 64))
        crowd = []
        try:
            for _ in range(150):
                c = socket.socket()
                c.settimeout(5)
                c.connect(("127.0.0.1", s.live_port))
                crowd.append(c)
        finally:
            for c in crowd:
                c.close()
        end = time.monotonic() + 30
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                if s.request("GET", "/health", timeout=5).status == 200:
                    break
            time.sleep(0.1)
        history = []
        s.turn(history, words(300), "a", max_tokens=2)
        expect(s.stop() == 0, "exit code")
        with Server(d) as again:
            expect(again.turn(history, "go on", "a")["agent_memory"]["tier"] == "warm", "what was said in need was not saved")


def test_the_server_calls_nobody():
    """No request, template, tool or model name makes it connect anywhere."""
    tool = shutil.which("strace")
    if not tool:
        raise Skip("no strace")
    with temp_dir() as d:
        trace = os.path.join(d, "trace")
        with Server(os.path.join(d, "data")) as s:
            with subprocess.Popen([tool, "-f", "-qq", "-e", "trace=connect,sendto,sendmsg", "-o", trace, "-p", str(s.process.pid)], stderr=subprocess.PIPE) as p:
                time.sleep(0.5)
                if p.poll() is not None:
                    raise Skip("strace may not attach here")
                s.chat("Fetch https://example.org/ for me", "a")
                for body in ({"model": "https://example.org/model"}, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/x.png"}}]}]},
                             {"tools": [{"type": "function", "function": {"name": "x", "parameters": {"$ref": "http://127.0.0.1:1/s.json"}}}]},
                             {"webhook": "http://127.0.0.1:1/"}):
                    s.request("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2, **body})
                s.request("POST", "/v1/admin/models/load", {"model": "hf://somebody/something"})
                s.request("POST", "/v1/admin/models/swap", {"model": "http://127.0.0.1:1/x.gguf"})
                p.terminate()
                p.wait()
        with open(trace, encoding="ascii", errors="replace") as f:
            calls = [line for line in f if re.search(r"connect\(", line) and "AF_UNIX" not in line]
        expect(not calls, calls[:5])


def test_a_crash_report_has_no_words_either():
    if sanitized():
        raise Skip("a build with a sanitizer")
    with temp_dir() as d:
        with Server(d, "--crash-test", "segv") as s:
            with contextlib.suppress(Exception):
                s.chat(f"Remember {CANARY}.", "hans")
            s.process.wait(30)
            for pump in s.pumps:
                pump.join(5)
            expect("crashed: SIGSEGV" in "\n".join(s.log) and CANARY not in "\n".join(s.log), "standard error")
        for path in files_under(d):
            with open(path, "rb") as f:
                expect(CANARY.encode() not in f.read(), path)
