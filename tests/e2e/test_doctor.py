"""doctor and stop: each thing that can be wrong is made wrong, found, and mended where that is safe."""
import ctypes
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time

from harness import BINARY, Server, Skip, expect, free_port, run, sanitized, temp_dir


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


def in_a_made_up_machine(d, port, script, *flags, code=None):
    """doctor in a mount namespace of its own where a script has put other files in the place of the system's; $W is a folder for them."""
    with temp_dir() as w:
        command = ["unshare", "--mount", "bash", "-ec", script + '\nexec "$@"', "-", BINARY, "doctor", "--json", "--data-dir", d, "--port", str(port), *flags]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "W": w})
        if "Operation not permitted" in done.stderr or "permission denied" in done.stderr:
            raise Skip("no mount namespaces here")
        expect(done.stdout and (code is None or done.returncode == code), f"{done.returncode}: {done.stdout}{done.stderr}")
    found = {}
    for f in json.loads(done.stdout)["findings"]:
        found.setdefault(f["check"], []).append((f["level"], f["text"], f["todo"]))
        expect(f["level"] in ("ok", "note", "fixed") or f["todo"], f"nothing to do about {f}")
    return found


FAKE_MEMINFO = """
sed -E 's/^(MemAvailable:) .*/\\1 204800 kB/; s/^(Mlocked:) .*/\\1 999999999 kB/; s/^(SwapTotal:) .*/\\1 4096000 kB/; s/^(SwapFree:) .*/\\1 1024000 kB/;
        s/^(HugePages_Total:) .*/\\1 99999/; s/^(HugePages_Free:) .*/\\1 99999/' /proc/meminfo > $W/meminfo
grep -q HugePages_Total $W/meminfo || printf 'HugePages_Total: 99999\nHugePages_Free: 99999\nHugepagesize: 2048 kB\n' >> $W/meminfo
mount --bind $W/meminfo /proc/meminfo
"""


def test_memory_of_the_machine():
    with temp_dir() as d:
        found = in_a_made_up_machine(d, free_port(), FAKE_MEMINFO, code=3)
        has(found, "memory", "bad", "200 of ")
        has(found, "memory", "bad", "3000 of 4000 MiB of swap are used")
        has(found, "memory", "warning", "more than 70 % of memory is locked")
        has(found, "memory", "warning", "99999 huge pages of 2048 KiB are set aside, 99999 of them free")


FAKE_CGROUP = """
mkdir $W/cg
for f in cgroup.controllers:memory memory.max:104857600 memory.current:90000000 memory.events:'oom_kill 3' cpu.max:'50000 100000' cpu.stat:'nr_throttled 7'; do
    echo "${f#*:}" > $W/cg/${f%%:*}
done
mount --bind $W/cg /sys/fs/cgroup
"""


def test_limits_of_a_cgroup():
    with temp_dir() as d:
        found = in_a_made_up_machine(d, free_port(), FAKE_CGROUP)
        has(found, "memory", "warning", "this cgroup may have 100 MiB and has 86")
        has(found, "memory", "warning", "ended 3 processes of this cgroup for want of memory")
        has(found, "clock", "warning", "this cgroup has a quota of 0.5 processors' time and was held up 7 times")
        with Server(d) as s:
            has(in_a_made_up_machine(d, s.live_port, FAKE_CGROUP), "memory", "warning", "the server's cgroup may have 100 MiB")


FAKE_CPU = """
mkdir -p $W/cpu/cpu0/thermal_throttle $W/cpu/cpu0/cpufreq
echo 5 > $W/cpu/cpu0/thermal_throttle/core_throttle_count
echo 2000000 > $W/cpu/cpu0/cpufreq/scaling_max_freq
echo 4000000 > $W/cpu/cpu0/cpufreq/cpuinfo_max_freq
echo powersave > $W/cpu/cpu0/cpufreq/scaling_governor
echo 0 > $W/cpu/online
mount --bind $W/cpu /sys/devices/system/cpu
"""


def test_what_slows_the_clock():
    with temp_dir() as d:
        found = in_a_made_up_machine(d, free_port(), FAKE_CPU)
        has(found, "clock", "warning", "slowed down for heat 5 times")
        has(found, "clock", "warning", "limited to 50 %")
        has(found, "clock", "note", "governor is powersave")


def test_instructions():
    with temp_dir() as d:
        has(doctor(d, free_port(), "--isa", "scalar", code=0), "cpu", "warning", "kernel table scalar")
        other = "neon" if os.uname().machine == "x86_64" else "avx2"
        has(doctor(d, free_port(), "--isa", other, code=3), "cpu", "bad", other)


def test_limits_of_the_process():
    if sanitized():
        raise Skip("a build with a sanitizer")

    def few():
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
        resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    with temp_dir() as d:
        done = subprocess.run([BINARY, "doctor", "--data-dir", d, "--port", str(free_port())], preexec_fn=few, capture_output=True, text=True, check=False)
        for wanted in ("only 200 files may be open at once", "the address space is limited to 3072 MiB", "no core files"):
            expect(wanted in done.stdout, f"no {wanted!r} in {done.stdout}")
        with Server(d) as s:  # of the server, not of whoever asks
            resource.prlimit(s.process.pid, resource.RLIMIT_NOFILE, (300, 300))
            has(doctor(d, s.live_port), "limits", "warning", "only 300 files")


def test_shared_memory_without_an_owner():
    libc = ctypes.CDLL(None, use_errno=True)
    segment = libc.shmget(0, 5 << 20, 0o1600)  # IPC_PRIVATE, IPC_CREAT
    if segment < 0:
        raise Skip("no System V shared memory here")
    path = f"/dev/shm/agent-memory-doctor-{os.getpid()}"
    try:
        with open(path, "w", encoding="ascii"):
            pass
        with temp_dir() as d:
            found = doctor(d, free_port(), code=0)
            has(found, "shared", "note", "no process any more")
            has(found, "shared", "warning", "under our name")
    finally:
        libc.shmctl(segment, 0, None)  # IPC_RMID
        os.remove(path)


def test_folders():
    def stranger():
        os.setgid(65534)
        os.setuid(65534)

    with temp_dir() as d:
        done = subprocess.run([BINARY, "doctor", "--json", "--port", str(free_port())], capture_output=True, text=True, check=False,
                              env={k: v for k, v in os.environ.items() if k not in ("HOME", "AGENT_MEMORY_DATA_DIR")})
        expect(done.returncode == 3 and "$HOME is not set" in done.stdout, done.stdout)
        data = os.path.join(d, "data")
        has(doctor(data, free_port(), code=0), "folder", "ok", "is not there yet")
        os.makedirs(os.path.join(data, "caches"), 0o700)
        os.chmod(os.path.join(data, "caches"), 0o500)
        has(doctor(data, free_port(), code=3), "folder", "bad", "cannot be used by its owner (mode 500)")
        has(doctor(data, free_port(), "--fix"), "folder", "fixed", "could not be used by its owner")
        expect(os.stat(os.path.join(data, "caches")).st_mode & 0o777 == 0o700, "mode after --fix")
        if os.geteuid() != 0:
            return "not root: without the folder of another user"
        for path in (d, data, os.path.join(data, "caches")):
            os.chmod(path, 0o755)
        done = subprocess.run([BINARY, "doctor", "--json", "--data-dir", data, "--port", str(free_port())], preexec_fn=stranger, capture_output=True, text=True, check=False)
        if done.returncode == 3 or done.stdout:
            expect("belongs to user 0" in done.stdout and "chown" in done.stdout, done.stdout)
        with Server(data) as s:
            done = subprocess.run([BINARY, "doctor", "--json", "--data-dir", data, "--port", str(s.live_port)], preexec_fn=stranger, capture_output=True, text=True, check=False)
            expect("belongs to another user's process, a server of ours that answers" in done.stdout, done.stdout)
    return None


def test_disks():
    for options, level, says, code in (("size=1g", "warning", "0.9 GiB free|1.0 GiB free", 0), ("size=3g,nr_inodes=500", "warning", "files can still be made", 0), ("size=3g,ro", "bad", "doctor.tmp", 3)):
        with temp_dir() as d:
            script = f"mount -t tmpfs -o {options.replace(',ro', '')} tmpfs {d} && mkdir -m 700 {d}/caches && chmod 700 {d}" + (f" && mount -o remount,ro {d}" if ",ro" in options else "")
            found = in_a_made_up_machine(d, free_port(), script, code=code)
            expect(any(f[0] == level and re.search(says, f[1]) for f in found["disk"]), f"{options}: {found['disk']}")


def test_old_crashes_are_a_note():
    with temp_dir() as d:
        os.makedirs(os.path.join(d, "crash"))
        with open(os.path.join(d, "crash", f"{int(time.time()) - 3 * 86400}-1.txt"), "w", encoding="ascii"):
            pass
        has(doctor(d, free_port(), code=0), "crashes", "note", "the newest 72.0 hours old")


def test_a_server_without_a_port():
    """One that was started long ago and listens nowhere; the clock of the machine is made to say so."""
    code = "import ctypes, time; ctypes.CDLL(None).prctl(15, b'agent_memory'); print('up', flush=True); time.sleep(60)"
    with temp_dir() as d, subprocess.Popen(["agent_memory", "-c", code, "serve"], executable=sys.executable, stdout=subprocess.PIPE) as p:
        p.stdout.readline()
        try:
            later = "awk '{ printf \"%.2f %s\\n\", $1 + 500, $2 }' /proc/uptime > $W/uptime && mount --bind $W/uptime /proc/uptime"
            has(in_a_made_up_machine(d, free_port(), later), "processes", "warning", f"pid {p.pid} (agent_memory -c")
            swapped = f"sed -E 's/^VmSwap:.*/VmSwap: 40960 kB/' /proc/{p.pid}/status > $W/status && mount --bind $W/status /proc/{p.pid}/status"
            has(in_a_made_up_machine(d, free_port(), swapped), "processes", "warning", "partly in swap")
        finally:
            p.kill()
