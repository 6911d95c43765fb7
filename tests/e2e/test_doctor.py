"""doctor and stop: each thing that can be wrong is made wrong, found, and mended where that is safe."""
import json
import os
import signal
import socket
import subprocess
import time

from harness import Server, expect, free_port, run, temp_dir


def doctor(d, port, *flags, code=None):
    """{check: [(level, text, todo)]}"""
    got, out, err = run("doctor", "--json", "--data-dir", d, "--port", str(port), *flags)
    expect(code is None or got == code, f"exit {got} instead of {code}: {out}{err}")
    found = {}
    for f in json.loads(out)["findings"]:
        found.setdefault(f["check"], []).append((f["level"], f["text"], f["todo"]))
        expect(f["level"] in ("ok", "note", "fixed") or f["todo"], f"nothing to do about {f}")
    return found


def has(found, check, level, word):
    expect(any(f[0] == level and word in f[1] for f in found.get(check, [])), f"no {level} finding of {check} with '{word}': {found.get(check)}")


def test_a_healthy_server():
    with temp_dir() as d, Server(d) as s:
        s.chat("Who are you?", "a")
        found = doctor(d, s.live_port, code=0)
        has(found, "port", "ok", f"pid {s.process.pid}")
        has(found, "processes", "ok", "in use by")
        has(found, "folder", "ok", d)
        has(found, "files", "ok", "1 agents")
        has(found, "cpu", "ok", "kernel table")
        for check in ("memory", "shared", "clock", "disk"):
            expect(check in found, f"nothing about {check}")
        code, out, _ = run("doctor", "--data-dir", d, "--port", str(s.live_port))
        expect(code == 0 and out.strip().endswith("fixed"), out)


def test_port_of_a_stranger():
    with temp_dir() as d, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        has(doctor(d, port, code=3), "port", "bad", f"pid {os.getpid()}")
        code, _, err = run("stop", "--port", str(port))
        expect(code == 1 and str(os.getpid()) in err and "left alone" in err, err)


def test_a_server_that_hangs():
    with temp_dir() as d, Server(d) as s:
        s.process.send_signal(signal.SIGSTOP)
        time.sleep(0.1)
        found = doctor(d, s.live_port, code=3)
        has(found, "port", "bad", "does not answer")
        has(found, "processes", "bad", "stopped by a signal")
        code, _, err = run("stop", "--port", str(s.live_port), "--wait", "300ms")
        expect(code == 1 and "--force" in err, err)
        code, out, _ = run("stop", "--port", str(s.live_port), "--wait", "300ms", "--force")
        expect(code == 3 and "SIGKILL" in out, out)
        expect(s.process.wait(5) == -signal.SIGKILL, "exit code")
        code, out, _ = run("stop", "--port", str(s.live_port))
        expect(code == 0 and "nobody" in out, out)


def test_stop():
    with temp_dir() as d, Server(d) as s:
        s.chat("Who are you?", "a")
        code, out, err = run("stop", "--port", str(s.live_port))
        expect(code == 0 and f"pid {s.process.pid}" in out and "gone after" in out, out + err)
        expect(s.process.wait(5) == 0, "exit code")
        for pump in s.pumps:
            pump.join(5)
        expect(s.events("server_shutdown_complete"), "no server_shutdown_complete")


def test_a_zombie():
    with temp_dir() as d:
        s = Server(d).start()
        os.kill(s.process.pid, signal.SIGKILL)
        time.sleep(0.2)  # it has ended, and nobody has waited for it
        try:
            has(doctor(d, free_port(), code=0), "processes", "warning", f"pid {s.process.pid} has ended")
        finally:
            s.process.wait()


def test_what_a_crash_leaves():
    with temp_dir() as d:
        with Server(d) as s:
            s.chat("Who are you?", "a")
            s.stop()
        caches = os.path.join(d, "caches")
        open(os.path.join(caches, "x.tmp.safetensors"), "w", encoding="ascii").close()
        os.makedirs(os.path.join(caches, "refused"))
        open(os.path.join(caches, "refused", "1-x"), "w", encoding="ascii").close()
        os.makedirs(os.path.join(d, "crash"))
        open(os.path.join(d, "crash", f"{int(time.time())}-1.txt"), "w", encoding="ascii").close()
        head = os.path.join(caches, next(n for n in os.listdir(caches) if n.startswith("a~")))
        os.chmod(head, 0o644)
        os.chmod(d, 0o755)
        found = doctor(d, free_port(), code=0)
        has(found, "files", "note", "temporary")
        has(found, "files", "warning", "read by other users")
        has(found, "files", "warning", "refused")
        has(found, "crashes", "warning", "1 crash reports")
        has(found, "folder", "warning", "opened by other users")
        fixed = doctor(d, free_port(), "--fix", code=0)
        has(fixed, "files", "fixed", "temporary")
        has(fixed, "files", "fixed", "read by other users")
        has(fixed, "folder", "fixed", "opened by other users")
        expect(os.stat(d).st_mode & 0o777 == 0o700 and os.stat(head).st_mode & 0o777 == 0o600, "modes")
        expect(not [n for n in os.listdir(caches) if ".tmp" in n] and os.path.exists(head), "files")
        again = doctor(d, free_port(), code=0)
        expect([f for f in again["files"] if "temporary" in f[1] or "other users" in f[1]] == [], again)


def test_fix_leaves_what_a_server_writes():
    with temp_dir() as d, Server(d) as s:
        path = os.path.join(s.caches, "x.tmp.safetensors")
        open(path, "w", encoding="ascii").close()
        has(doctor(d, s.live_port, "--fix", code=0), "files", "ok", "being written")
        expect(os.path.exists(path), "a file of a running server was removed")


def test_a_small_disk():
    with temp_dir() as d:
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", d], capture_output=True, check=False).returncode:
            return "mount is not allowed here"
        try:
            os.mkdir(os.path.join(d, "caches"), 0o700)
            has(doctor(d, free_port(), code=3), "disk", "bad", "free")
        finally:
            subprocess.run(["umount", "-l", d], check=False)
    return None
