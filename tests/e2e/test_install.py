"""What `make install` puts down works away from the source tree: the one binary chats, the library's ten-line example compiles and runs."""
import os
import re
import shutil
import subprocess

from harness import TOP, Skip, expect, temp_dir


def installed(d):
    done = subprocess.run(["make", "-s", "install", f"PREFIX={d}/usr"], cwd=TOP, capture_output=True, text=True, timeout=300, check=False)
    expect(done.returncode == 0, done.stdout + done.stderr)
    return f"{d}/usr"


def lacking(d, *commands, pkg_config=None):
    """The environment of a machine without these commands (and without this library, as pkg-config sees it)."""
    for folder in ("/usr/sbin", "/usr/bin"):
        for name in os.listdir(folder):
            if name not in commands and not os.path.lexists(f"{d}/{name}"):
                os.symlink(f"{folder}/{name}", f"{d}/{name}")
    if pkg_config:
        os.remove(d + "/pkg-config")
        with open(d + "/pkg-config", "w", encoding="ascii") as f:
            f.write(f'#!/bin/sh\ncase "$*" in *{pkg_config}*) exit 1 ;; esac\nexec /usr/bin/pkg-config "$@"\n')
        os.chmod(d + "/pkg-config", 0o755)
    return {**os.environ, "PATH": d}


def make(env, *args):
    return subprocess.run(["make", *args], cwd=TOP, env=env, capture_output=True, text=True, timeout=300, check=False)


def test_what_setup_installs_is_enough():
    with temp_dir() as d:
        done = make(lacking(d, *(name for name in os.listdir("/usr/bin") if name.startswith("python"))), "-n")
        expect(done.returncode == 0 and "compile-commands" not in done.stdout, done.stdout[-500:] + done.stderr)
    with temp_dir() as d:
        done = make(lacking(d, pkg_config="cmocka"), "-s", "cmocka")
        expect(done.returncode != 0 and "tools/setup --test" in done.stderr, done.stderr)
    with temp_dir() as d:
        done = subprocess.run(["tools/deb", d, "0"], cwd=TOP, env=lacking(d, "dpkg-shlibdeps"), capture_output=True, text=True, check=False)
        expect(done.returncode == 1 and "apt install dpkg-dev" in done.stderr, done.stderr)


def test_the_binary_alone_chats():
    with temp_dir() as d:
        binary = shutil.copy(installed(d) + "/bin/agent-memory", d + "/chatter")
        done = subprocess.run([binary, "chat", "--local", "--temperature", "0"], cwd=d, input="Who are you?\n", capture_output=True, text=True,
                              timeout=60, env={"HOME": d, "PATH": "/nowhere"}, check=False)
        expect(done.returncode == 0 and "Memo" in done.stdout, done.stdout + done.stderr)
        expect(os.path.isdir(d + "/.agent_memory/caches"), "no ~/.agent_memory/caches")


def test_the_library_example():
    if not shutil.which("gcc"):
        raise Skip("no gcc")
    with temp_dir() as d:
        prefix = installed(d)
        with open(prefix + "/include/agent_memory.h", encoding="utf-8") as f:
            example = re.search(r"( \*     am_runtime \*rt;.*?)\n \*\n", f.read(), re.S)[1].replace("\n *", "\n")[2:]
        with open(d + "/example.c", "w", encoding="utf-8") as f:
            f.write("#include <agent_memory.h>\n#include <stdio.h>\nint main(void) {\n" + example + "\nreturn 0;\n}\n")
        libs = subprocess.run(["make", "-s", "libs"], cwd=TOP, capture_output=True, text=True, check=True).stdout.split()
        done = subprocess.run(["gcc", "-Wall", "-Werror", f"-I{prefix}/include", "-o", d + "/example", d + "/example.c", f"-L{prefix}/lib", "-lagent-memory", *libs],
                              capture_output=True, text=True, check=False)
        expect(done.returncode == 0, done.stderr)
        done = subprocess.run([d + "/example"], capture_output=True, text=True, timeout=60, env={**os.environ, "HOME": d}, check=False)
        expect(done.returncode == 0 and done.stdout.strip(), done.stdout + done.stderr)
        return done.stdout.strip()[:60]
