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
