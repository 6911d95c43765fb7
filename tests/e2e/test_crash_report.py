"""--crash-test: what a crash of each kind says, on standard error and in the data folder, and how the process ends."""
import contextlib
import glob
import os
import re
import shutil
import signal
import subprocess

from harness import TOP, Server, Skip, expect, run, sanitized, temp_dir, words

KINDS = {"segv": signal.SIGSEGV, "abort": signal.SIGABRT, "bus": signal.SIGBUS, "fpe": signal.SIGFPE, "ill": signal.SIGILL,
         "jump": signal.SIGSEGV, "stack": signal.SIGSEGV}


def need_reports():
    if sanitized():
        raise Skip("a build with a sanitizer")


def crash(d, kind):
    """The report of a server that crashes in its first request."""
    with Server(d, "--crash-test", kind) as s:
        with contextlib.suppress(Exception):
            s.chat("Who are you?", "hans")
        code = s.process.wait(30)
        for pump in s.pumps:
            pump.join(5)
        said = "\n".join(s.log)
    expect(code == -KINDS[kind], f"{kind}: ended with {code}")
    files = glob.glob(os.path.join(d, "crash", "*.txt"))
    expect(len(files) == 1 and os.stat(files[0]).st_mode & 0o777 == 0o600, f"{kind}: {files}")
    report = open(files[0], encoding="utf-8").read()
    expect(report.strip() in said, f"{kind}: standard error says something else:\n{said}")
    return report


def test_each_kind():
    need_reports()
    for kind, number in KINDS.items():
        with temp_dir() as d:
            report = crash(d, kind)
            for wanted in (f"crashed: {number.name}", r"model +memo-28m, kernels \w+", r"in hand +request req_\w+, agent hans\n", r"\(am-engine\)",
                           r"registers\n  (r8|x0) ", r"backtrace.*\n  #0 "):
                expect(re.search(wanted, report), f"{kind}: no {wanted!r} in\n{report}")
            frames = re.findall(r"^  #\d+ +0x[0-9a-f]+ (.*)$", report, re.M)
            if kind not in ("jump", "abort"):
                expect(re.match(r"(crash_now|recurse|touch_truncated)", frames[0]), f"{kind}: {frames[:3]}")
            if kind == "jump":
                expect("in no program" in frames[0] and re.match("am_|crash_now", frames[1]), f"{kind}: {frames[:3]}")
            elif kind != "stack":
                expect(any(f.startswith("am_schedule_step") for f in frames), f"{kind}: {frames}")
            with Server(d) as s:  # and the next start knows nothing of it
                s.chat("Who are you?", "hans")
                expect(s.stop() == 0, "exit code")


def test_a_truncated_file_is_named():
    need_reports()
    with temp_dir() as d:
        report = crash(d, "bus")
        expect(f"of the mapped file {d}/crash/truncated" in report and "it has 4096 bytes now" in report, report)


def test_finished_turns_survive_a_crash():
    need_reports()
    with temp_dir() as d:
        history = []
        with Server(d) as s:
            s.turn(history, "My number is 4711. " + words(400), "a")
            s.process.send_signal(signal.SIGSEGV)
            expect(s.process.wait(30) == -signal.SIGSEGV, "exit code")
        report = open(glob.glob(os.path.join(d, "crash", "*.txt"))[0], encoding="utf-8").read()
        expect(f"sent by process {os.getpid()}" in report and "nothing: between two passes" in report, report)
        with Server(d) as s:
            reply = s.turn(history, "What is my number?", "a")
            expect(reply["agent_memory"]["tier"] == "warm", reply["agent_memory"])


def test_unknown_kinds_are_refused():
    code, _, err = run("serve", "--port", "0", "--crash-test", "bang")
    expect(code == 2 and "segv" in err, err)


def truncate_while_loading(model, d):
    """The report of a server whose weights file loses its end while it is mapped; None when it was loaded before that."""
    weights = os.path.join(model, "model.safetensors")
    with Server(d, "--model", model, wait=False) as s:
        maps = f"/proc/{s.process.pid}/maps"
        while s.process.poll() is None and not s.out:
            with open(maps, encoding="ascii") as f:
                if weights in f.read():
                    s.process.send_signal(signal.SIGSTOP)
                    os.truncate(weights, 8192)
                    s.process.send_signal(signal.SIGCONT)
                    break
        with contextlib.suppress(subprocess.TimeoutExpired):
            s.process.wait(5)
        files = glob.glob(os.path.join(d, "crash", "*.txt"))
        return open(files[0], encoding="utf-8").read() if files else None


def test_truncated_weights_are_told_as_that():
    need_reports()
    source = os.path.join(TOP, "models", "memo-28m")
    for _ in range(20):
        with temp_dir() as d:
            model = os.path.join(d, "model")
            shutil.copytree(source, model)
            report = truncate_while_loading(model, os.path.join(d, "data"))
        if report:
            for wanted in ("SIGBUS", f"of the mapped file {model}/model.safetensors", "truncated while it was in use: it has 8192 bytes now", "Put the file back"):
                expect(wanted in report, f"no {wanted!r} in\n{report}")
            return
    raise Skip("the weights were always read before the file could be cut")
