"""The program from a shell: commands, settings and where they come from, and what it says to mistakes."""
import os
import signal
import socket
import subprocess

from harness import BINARY, Server, expect, free_port, run, temp_dir, text_of


def refused(*args, says, code=2, env=None):
    got, out, err = run(*args, env=env)
    expect(got == code, f"{args}: exit {got}, wanted {code}: {out}{err}")
    expect(says in err, f"{args}: {says!r} is not in {err!r}")


def test_version_and_help():
    code, out, _ = run("version")
    expect(code == 0 and out.startswith("agent-memory "), out)
    code, out, _ = run("help")
    expect(code == 0 and all(c in out for c in ("serve", "chat", "agents", "pull", "list")), out)
    code, out, _ = run("serve", "--help")
    expect(code == 0 and "--kv-memory" in out and "AGENT_MEMORY_" in out, out)


def test_mistakes_get_a_suggestion_and_exit_2():
    refused("serv", says="did you mean 'serve'")
    refused("serve", "--prot", "80", says="did you mean '--port'")
    refused("serve", "--port", "80000", says="must be 0 to 65535")
    refused("serve", "--kv-bits", "6", says="must be K,V")
    refused("serve", "--kv-memory", "4X", says="like 512M or 4G")
    refused("serve", "--port", says="wants a value")
    refused("serve", "extra", says="does not take 'extra'")
    refused("chat", "--max-body", "1M", says="not an option of this command")
    refused("agents", "lst", says="did you mean 'list'")
    refused("serve", says="AGENT_MEMORY_PORT: must be", env={"AGENT_MEMORY_PORT": "x"})


def test_config_file():
    with temp_dir() as d:
        path = os.path.join(d, "config.yaml")

        def write(text):
            with open(path, "w", encoding="utf-8") as f:
                f.write(text)

        write("kv_membory: 4G\n")
        refused("serve", "--data-dir", d, says="did you mean 'kv-memory'")
        write("port: [1\n")
        refused("serve", "--data-dir", d, says="not YAML")
        write("log-level: loud\n")
        refused("serve", "--data-dir", d, says="config.yaml:1: log-level: must be one of")
        write("# comment\nparallel: 3\nkv_bits: 8,4\nkeep-alive: 250ms\nqueue: 7\n")
        with Server(d, "--queue", "9", env={"AGENT_MEMORY_PARALLEL": "5"}) as s:
            line = s.events("settings")[0]
            for wanted in ('parallel="5 (environment)"', 'kv-bits="8,4 (config file)"', 'queue="9 (flag)"', 'keep-alive="250ms (config file)"'):
                expect(wanted in line, f"{wanted} not in {line}")


def test_eval_compares_forms_of_the_cache():
    refused("eval", "5:4", says="is not a form of cache", code=1)
    refused("eval", "6,4", says="bits must be", code=1)
    refused("eval", "--text", "/nowhere/at.all", says="/nowhere/at.all", code=1)
    text = os.path.join(os.environ.get("AM_SHARED", "../shared"), "testdata/text/wikitext-2/valid.txt")
    args = ["--text", text] if os.path.exists(text) else []
    code, out, err = run("eval", "5,4", "4,4:64:plain", "--windows", "1", "--window-tokens", "1024", *args)
    expect(code == 0, err)
    rows = {line.split()[0]: line.split() for line in out.splitlines()[1:] if line}
    bits, kld, same = (float(rows["5,4"][i]) for i in (1, 4, 5))
    expect(bits == 4.75 and float(rows["4,4:64:plain"][1]) == 4.5, out)
    if args:  # what the default form promises, beside what inputs of 8 bits add where the machine's table takes them
        expect(kld < 0.004 and same > 95, out)


def test_models_describes_the_embedded_model():
    code, out, err = run("show", "--load")
    expect(code == 0 and "memo-28m" in out and "29.4 M parameters" in out, out + err)


def test_a_missing_model_is_named():
    with temp_dir() as d:
        code, _, err = run("serve", "--port", "0", "--data-dir", d, "--model", d + "/none")
        expect(code == 1 and "none" in err, err)


def test_port_in_use_changes_nothing():
    with temp_dir() as d, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        data = os.path.join(d, "data")
        code, out, err = run("serve", "--port", str(port), "--data-dir", data)
        expect(code == 1, f"exit {code}")
        lines = [line for line in err.splitlines() if line]
        expect(len(lines) == 1 and str(port) in lines[0] and "--port" in lines[0], err + out)
        expect(not os.path.exists(data), "the data folder was made")


def test_second_server_on_one_folder_names_the_holder():
    with temp_dir() as d, Server(d) as s:
        code, _, err = run("serve", "--port", "0", "--data-dir", d)
        expect(code == 1 and str(s.process.pid) in err and "serve" in err, err)
        expect(s.request("GET", "/health").status == 200, "the first one suffered")


def test_the_runbook_finds_the_server():
    with temp_dir() as d, Server(d) as s:
        pid = str(s.process.pid)
        listing = subprocess.run(["ps", "aux"], capture_output=True, text=True, check=True).stdout
        expect(any(pid in line.split()[1:2] and "agent_memory" in line for line in listing.splitlines()), "ps aux has no agent_memory")
        found = subprocess.run(["pgrep", "-f", "agent_memory"], capture_output=True, text=True, check=False).stdout.split()
        expect(pid in found, "pgrep -f agent_memory does not find it")
        listens = subprocess.run(["lsof", f"-ti:{s.live_port}"], capture_output=True, text=True, check=False).stdout.split()
        expect(pid in listens, f"lsof -ti finds {listens}, not {pid}")
        expect(s.stop() == 0, "exit code")
        listens = subprocess.run(["lsof", f"-ti:{s.live_port}"], capture_output=True, text=True, check=False).stdout.split()
        expect(not listens, "the port is not free")


def test_start_up_print():
    with temp_dir() as d, Server(d) as s:
        shown = "\n".join(s.out)
        while "stop " not in shown:
            shown = "\n".join(s.out)
        for word in ("memo-28m", f":{s.live_port}", os.path.join(d, "caches"), "curl "):
            expect(word in shown, f"{word} not in {shown}")
        command = next(line.split("try", 1)[1].strip() for line in s.out if line.strip().startswith("try"))
        reply = subprocess.run(["bash", "-c", command.replace("curl", "curl -s")], capture_output=True, text=True, timeout=60, check=False)
        if reply.returncode == 127:
            return "no curl here, the line was not tried"
        expect("Memo" in reply.stdout, reply.stdout + reply.stderr)


def test_chat_with_a_server_and_alone():
    with temp_dir() as d:
        with Server(d) as s:
            where = ["--port", str(s.live_port), "--data-dir", d, "--temperature", "0"]
            code, out, err = run("chat", *where, "--agent", "bob", stdin="My code is QX-1185.\nWhat is my code?\n/stats\n")
            expect(code == 0 and "QX-1185" in out and "agent bob" in out, out + err)
            expect("bob" in s.agents(), "the server does not know bob")
            code, out, err = run("agents", "fork", "bob", "eve", *where[:4])
            expect(code == 0, out + err)
            code, out, err = run("agents", "list", *where[:4])
            expect(code == 0 and "bob" in out and "eve" in out, out + err)
            code, out, err = run("agents", "rm", "eve", *where[:4])
            expect(code == 0 and "eve" not in s.agents(), out + err)
            expect(s.stop() == 0, "exit code")
        where = ["--port", str(free_port()), "--data-dir", d]
        code, out, err = run("agents", "show", "bob", *where)
        expect(code == 0 and "bob" in out and "warm" in out, out + err)
        code, out, err = run("chat", *where, "--temperature", "0", "--agent", "bob", stdin="What is my code?\n/stats\n/nonsense\n")
        expect(code == 0 and "QX-1185" in out and "warm" in out and "/help" in err, out + err)
        code, out, err = run("agents", "rm", "nobody", *where)
        expect(code == 1 and "nobody" in err, out + err)


def test_chat_on_a_terminal():
    """History, editing and Ctrl-C need a terminal: one is made."""
    import pty
    import time
    with temp_dir() as d:
        pid, fd = pty.fork()
        if pid == 0:
            os.environ["TERM"] = "xterm"
            os.execv(BINARY, [BINARY, "chat", "--local", "--data-dir", d, "--temperature", "0"])
        seen = b""

        def wait_for(word, seconds=30):
            nonlocal seen
            end = time.monotonic() + seconds
            while word not in seen:
                expect(time.monotonic() < end, lambda: f"no {word!r} in {seen!r}")
                import select
                if select.select([fd], [], [], 0.2)[0]:
                    try:
                        seen += os.read(fd, 4096)
                    except OSError:
                        break
            expect(word in seen, lambda: f"no {word!r} in {seen!r}")
            seen = seen[seen.index(word) + len(word):]

        try:
            wait_for(b"Ctrl-D leaves")
            wait_for(b"> ")
            os.write(fd, b"half a line\x03")
            wait_for(b"> ")
            os.write(fd, b"Who are yoo\x7fu?\n")
            wait_for(b"Memo")
            wait_for(b"> ")
            os.write(fd, b"\x1b[A\n")  # up: the last line again
            wait_for(b"Who are you?")
            wait_for(b"Memo")
            wait_for(b"> ")
            os.write(fd, b"\x04")
            end = time.monotonic() + 20
            while time.monotonic() < end:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    expect(os.waitstatus_to_exitcode(status) == 0, f"exit {status}")
                    return
                time.sleep(0.05)
            raise AssertionError("Ctrl-D did not end it")
        finally:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass
            os.close(fd)


def test_shutdown_in_six_stages():
    import time
    with temp_dir() as d, Server(d) as s:
        s.chat("Who are you?", "a")
        start = time.monotonic()
        expect(s.stop() == 0, "exit code")
        took = time.monotonic() - start
        stages = [line for line in s.events("shutdown_stage")]
        expect([f"stage={n}" in stages[n - 1] for n in range(1, 7)] == [True] * 6 and len(stages) == 6, "\n".join(stages))
        expect(s.events("server_shutdown_complete"), "no server_shutdown_complete")
        expect(took < 5, f"idle shutdown took {took:.2f} s")
        return f"{took * 1000:.0f} ms"


def test_shutdown_drains_and_a_second_signal_hurries():
    import threading
    import time
    with temp_dir() as d, Server(d) as s:
        end = []

        def long_answer():
            for chunk in s.stream("Tell me a story.", "drained", max_tokens=400, ignore_eos=True):
                end.append(chunk)

        t = threading.Thread(target=long_answer)
        t.start()
        while not end:
            time.sleep(0.01)
        s.process.send_signal(signal.SIGTERM)
        t.join(60)
        expect(s.process.wait(30) == 0, "exit code")
        finish = [c["choices"][0].get("finish_reason") for c in end if c.get("choices")]
        expect(finish[-1] in ("stop", "length"), f"the answer was cut: {finish[-1]}")
    with temp_dir() as d, Server(d) as s:
        begun = threading.Event()

        def endless():
            try:
                for _ in s.stream("Tell me a story.", "hurried", max_tokens=7000, ignore_eos=True):
                    begun.set()
            except Exception:
                pass

        t = threading.Thread(target=endless, daemon=True)
        t.start()
        begun.wait(30)
        s.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        start = time.monotonic()
        s.process.send_signal(signal.SIGTERM)
        expect(s.process.wait(20) == 0, "exit code")
        return f"second signal: {time.monotonic() - start:.2f} s"


def test_json_log_is_json():
    import json
    with temp_dir() as d, Server(d, "--log-format", "json") as s:
        secret = "the password is swordfish"
        text_of(s.chat(secret, "a"))
        s.stop()
        for line in s.log:
            json.loads(line)
        expect("swordfish" not in "\n".join(s.log), "message content is in the log")
