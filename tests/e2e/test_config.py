"""Settings as text, their reload by SIGHUP, the service manager's protocol, and the manual and completion that come from the same tables."""
import fcntl
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import termios
import time

from harness import BINARY, TOP, Server, Skip, expect, run, temp_dir


def write(d, text, name="config.yaml"):
    path = os.path.join(d, name)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    return path


def test_config_default_and_show_read_back():
    with temp_dir() as d:
        code, text, err = run("config", "default", "--data-dir", d)
        expect(code == 0 and "#port: 8000" in text and "(reload)" in text, text + err)
        live = "\n".join(line[1:] if re.match(r"#[a-z-]+: ", line) else line for line in text.splitlines())
        write(d, live)
        code, out, err = run("config", "check", "--data-dir", d)
        expect(code == 0 and "nothing is wrong" in out, out + err)
        names = set(re.findall(r"^#([a-z-]+): ", text, re.M))
        expect(f"{len(names)} from the config file" in out, out)
        shown = run("config", "show", "--data-dir", d)[1]
        expect(shown.count("# config file") == len(names), "show")
        write(d, "parallel: 3\ncors_origin:\n  - https://a.example\n  - http://b.example:80\nsystem_prompt: x\n")
        code, _, err = run("config", "check", "--data-dir", d)
        expect(code == 2 and "config.yaml:5: 'system_prompt' is not a setting" in err, err)
        write(d, "parallel: 3\ncors-origin: [https://a.example, 'http://b.example:80']\n")
        env = {"AGENT_MEMORY_API_KEY": "very secret", "AGENT_MEMORY_QUEUE": "5"}
        code, shown, err = run("config", "show", "--data-dir", d, "--drain", "3s", env=env)
        for wanted in ("parallel: 3  # config file", "queue: 5  # environment", "drain: 3s  # command line", "port: 8000  # default",
                       'cors-origin: ["https://a.example", "http://b.example:80"]  # config file', '# api-key: "(set)"  # environment'):
            expect(wanted in shown, f"{wanted!r} is not in {shown}")
        expect("very secret" not in shown, "a secret is shown")
        write(d, shown)  # what show prints is a config file again
        code, again, err = run("config", "show", "--data-dir", d)
        expect(code == 0 and [line.split("  # ")[0] for line in again.splitlines() if "api-key" not in line] ==
               [line.split("  # ")[0] for line in shown.splitlines() if "api-key" not in line], again + err)


def test_compute_threads_stay_on_their_processors():
    """A thread's own list is in /proc; those of the network and the disk keep all."""
    all_of_them = sorted(os.sched_getaffinity(0))
    chosen = all_of_them[-2:]
    with temp_dir() as d, Server(d, "--cpus", ",".join(map(str, chosen))) as server:
        server.chat([{"role": "user", "content": "hello"}], max_tokens=4)
        seen = {}
        for task in os.listdir(f"/proc/{server.process.pid}/task"):
            with open(f"/proc/{server.process.pid}/task/{task}/comm", encoding="utf-8") as f:
                seen.setdefault(f.read().strip(), []).append(sorted(os.sched_getaffinity(int(task))))
        expect(seen["am-engine"] == [chosen[:1]], seen)
        expect(seen.get("am-worker", []) == [[cpu] for cpu in chosen[1:]], seen)
        expect(seen["am-network"] == [all_of_them] and all(cpus == all_of_them for cpus in seen["am-io"]), seen)


def test_config_check_says_what_serve_would():
    with temp_dir() as d:
        for text, says, code in (("prot: 1\n", "did you mean 'port'", 2), ("port: [1, 2]\n", "must be one value", 2), ("cors-origin: {a: b}\n", "must be one value", 2),
                                 ("cors-origin: ['*']\n", "every page", 1), ("cors-origin: [[a]]\n", "list of words", 2), ("host: 0.0.0.0\n", "no keys", 1),
                                 ("model: /nowhere/at/all\n", "cannot be read", 1), ("cpus: 0-\n", "cpus: '0-' is no list of processors", 1),
                                 ("cpus: 999999\n", "none that this process may use", 1), ("cpus: 0\nthreads: 2\n", "cpus: '0' are 1 processors, for 2 threads", 1), ("- a\n", "lines of 'name: value'", 2), ("log-level: loud\n", "must be one of", 2)):
            write(d, text)
            got, out, err = run("config", "check", "--data-dir", d)
            expect(got == code and says in err, f"{text!r}: {got} {out}{err}")
        path = write(d, "api-key: k\n")
        os.chmod(path, 0o644)
        code, out, _ = run("config", "check", "--data-dir", d)
        expect(code == 0 and "chmod 600" in out, out)
        os.chmod(path, 0o600)
        expect("chmod" not in run("config", "check", "--data-dir", d)[1], "said of a closed file")
        code, _, err = run("config", "chek")
        expect(code == 2 and "did you mean 'check'" in err, err)


def test_sighup_reloads_a_daemon():
    with temp_dir() as d:
        write(d, "max-body: 1M\nparallel: 4\nlog-level: info\n")
        with Server(d, "--drain", "7s", daemon=True, env={"AGENT_MEMORY_ADMIN_KEY": "a"}) as s:
            big = {"messages": [{"role": "user", "content": "x" * 5000}], "max_tokens": 1}
            expect(s.request("POST", "/v1/chat/completions", big).status == 200, "before")
            write(d, "max-body: 2K\nparallel: 8\nlog-level: debug\ndrain: 9s\ncors-origin: https://app.example\napi-key: new\n")
            s.process.send_signal(signal.SIGHUP)
            line = s.wait_event("settings_reloaded")
            changed = re.search(r'changed="?([^"]*)"? wait_for_restart="?([^" ]*)', line)
            expect(set(changed[1].split()) == {"max-body", "log-level", "api-key", "cors-origin"}, line)
            expect(changed[2] == "parallel", line)
            key = {"authorization": "Bearer new", "origin": "https://app.example"}
            expect(s.request("POST", "/v1/chat/completions", big, key).status == 413, "max-body")
            expect(s.request("GET", "/v1/models").status == 401, "api-key")
            r = s.request("GET", "/v1/models", headers=key)
            expect(r.status == 200 and r.headers["access-control-allow-origin"] == "https://app.example", "cors-origin")
            expect(s.events("request_admitted") == [], "log-level")
            s.request("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}, key)
            expect(s.wait_event("request_admitted"), "log-level")
            write(d, "max-body: nonsense\n")
            s.process.send_signal(signal.SIGHUP)
            expect("max-body" in s.wait_event("reload_refused"), "no reason")
            expect(s.request("POST", "/v1/chat/completions", big, key).status == 413, "a refused reload changed something")
            write(d, "host: 0.0.0.0\napi-key: new\n")
            s.process.send_signal(signal.SIGHUP)
            line = s.wait_event("settings_reloaded", 2)
            expect(re.search(r'wait_for_restart="?[^"]*host', line), line)
            expect(s.request("POST", "/v1/chat/completions", big, key).status == 403, "cors-origin went away")
            expect(s.request("POST", "/v1/chat/completions", big, {"authorization": "Bearer new"}).status == 200, "max-body is the default again")
            write(d, "api-key: new\nparallel: 4\nmodels:\n  - name: memo-28m\n    aliases: [gpt-*]\n")
            s.process.send_signal(signal.SIGHUP)
            line = s.wait_event("settings_reloaded", 3)
            expect(re.search(r'wait_for_restart="?models"?( |$)', line), line)
            write(d, "host: 0.0.0.0\napi-key: new\n")
            for _ in range(20):
                s.process.send_signal(signal.SIGHUP)
            expect(s.stop() == 0 and s.events("server_shutdown_complete"), "the end after reloads")
            expect("new" not in " ".join(s.events("settings")), "the key is in the log")


def test_a_secret_flag_survives_reloads():
    with temp_dir() as d, Server(d, "--api-key", "from the line", daemon=True) as s:
        for n in (1, 2, 3):
            s.process.send_signal(signal.SIGHUP)
            s.wait_event("settings_reloaded", n)
            expect(s.request("GET", "/v1/models", headers={"x-api-key": "from the line"}).status == 200, f"reload {n}")


def test_a_terminal_that_closes_ends_it():
    with temp_dir() as d:
        master, slave = pty.openpty()

        def on_terminal():
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run under nohup themselves
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

        p = subprocess.Popen([BINARY, "serve", "--port", "0", "--data-dir", d], stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=on_terminal)
        os.close(slave)
        while b"stop" not in p.stdout.readline():
            expect(p.poll() is None, "it ended at once")
        os.close(master)
        try:
            err = p.communicate(timeout=20)[1]
        finally:
            p.kill()
        expect(p.returncode == 0 and b"server_shutdown_complete" in err, f"{p.returncode} {err[-300:]}")


def test_under_nohup_a_closed_terminal_does_not_end_it():
    with temp_dir() as d:
        master, slave = pty.openpty()

        def on_terminal():
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

        p = subprocess.Popen([BINARY, "serve", "--port", "0", "--data-dir", d], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=on_terminal)
        os.close(slave)
        while b"stop" not in p.stdout.readline():
            expect(p.poll() is None, "it ended at once")
        os.close(master)
        time.sleep(0.5)
        try:
            expect(p.poll() is None, "it ended with its terminal")
            p.send_signal(signal.SIGTERM)
            err = p.communicate(timeout=20)[1]
        finally:
            p.kill()
        expect(p.returncode == 0 and b"server_shutdown_complete" in err, f"{p.returncode} {err[-300:]}")


def test_the_service_manager_is_told():
    with temp_dir() as d, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        path = os.path.join(d, "notify")
        manager.bind(path)
        manager.settimeout(20)

        def told(wanted):
            while True:
                text = manager.recv(4096).decode()
                if wanted in text:
                    return text

        with Server(os.path.join(d, "data"), daemon=True, env={"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "600000"}) as s:
            expect(f"MAINPID={s.process.pid}" in told("READY=1"), "MAINPID")
            start = time.monotonic()
            for _ in range(5):
                told("WATCHDOG=1")
            expect(time.monotonic() - start < 3, "the watchdog hears too little")
            s.process.send_signal(signal.SIGHUP)
            expect("MONOTONIC_USEC=" in told("RELOADING=1"), "reloading")
            told("READY=1")
            s.process.send_signal(signal.SIGSTOP)
            while True:
                manager.settimeout(1)
                try:
                    manager.recv(4096)
                except TimeoutError:
                    break  # a process that stands still says nothing: the manager would end it
            manager.settimeout(20)
            s.process.send_signal(signal.SIGCONT)
            told("WATCHDOG=1")
            s.process.send_signal(signal.SIGTERM)
            told("STOPPING=1")
            expect(s.process.wait(20) == 0, "exit code")
        address = "\0am-e2e-" + str(os.getpid())
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as abstract:
            abstract.bind(address)
            abstract.settimeout(20)
            with Server(os.path.join(d, "data"), daemon=True, env={"NOTIFY_SOCKET": "@" + address[1:]}):
                expect("READY=1" in abstract.recv(4096).decode(), "abstract socket")


def test_the_manual_and_the_help_agree():
    code, page, err = run("help", "--man")
    expect(code == 0 and page.startswith(".TH AGENT\\-MEMORY 1"), page[:100] + err)
    plain = page.replace("\\-", "-")
    for command in re.findall(r"^  ([a-z]+) ", run("help")[1], re.M):
        expect(f".B {command}" in plain, f"{command} is not in the manual")
        for option in re.findall(r"^  --([a-z-]+)", run("help", command)[1], re.M):
            expect(f".B --{option}" in plain, f"--{option} is not in the manual")
    if not shutil.which("groff"):
        return "no groff here: not set"
    done = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-z"], input=page, capture_output=True, text=True, check=False)
    expect(done.returncode == 0 and not done.stderr, done.stderr[:500])


def complete(script, *words):
    command = f"source {script}; COMP_WORDS=({' '.join(words[:-1])} {words[-1] or chr(34) * 2}); COMP_CWORD={len(words) - 1}; _agent_memory; echo ${{COMPREPLY[@]}}"
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True).stdout.split()


def test_completion():
    with temp_dir() as d:
        script = write(d, run("help", "--completion", "bash")[1], "c.bash")
        expect("serve" in complete(script, "agent-memory", "s"), "commands")
        expect(complete(script, "agent-memory", "serve", "--log-l") == ["--log-level"], "options")
        expect(complete(script, "agent-memory", "serve", "--log-level", "w") == ["warn"], "choices")
        expect(set(complete(script, "agent-memory", "agents", "")) >= {"list", "show", "rm", "fork"}, "verbs")
        expect("--max-body" not in complete(script, "agent-memory", "chat", "--max"), "options of another command")
        expect("agent-memory" in run("help", "--completion", "fish")[1], "fish")
        expect(run("help", "--completion", "zsh")[1].startswith("#compdef"), "zsh")
        expect(run("help", "--completion", "csh")[0] == 2, "csh")


def test_the_unit_is_in_order():
    unit = os.path.join(TOP, "packaging", "agent-memory.service")
    with open(unit, encoding="utf-8") as f:
        text = f.read()
    for wanted in ("Type=notify", "WatchdogSec=", "ExecReload=/bin/kill -HUP $MAINPID", "NoNewPrivileges=yes", "ProtectSystem=strict", "StateDirectory="):
        expect(wanted in text, f"no {wanted}")
    if not shutil.which("systemd-analyze"):
        raise Skip("no systemd-analyze")
    with temp_dir() as d:
        copy = write(d, text.replace("/usr/bin/agent-memory", BINARY), "agent-memory.service")
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True, check=False)
        said = [line for line in (done.stdout + done.stderr).splitlines() if "agent-memory" in line]
        expect(done.returncode == 0 and not said, "\n".join(said) or done.stderr)
        done = subprocess.run(["systemd-analyze", "security", "--offline=yes", "--no-pager", copy], capture_output=True, text=True, check=False)
        m = re.search(r"Overall exposure level.*?([0-9]+\.[0-9]+)", done.stdout)
        return f"exposure {m[1]}" if m else done.stderr[:80]
