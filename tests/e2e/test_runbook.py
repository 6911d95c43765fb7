"""tests/runbook.sh, the operators' page followed line by line, as one test here."""
import os
import re
import subprocess

from harness import BINARY, TOP, expect


def test_runbook():
    done = subprocess.run([os.path.join(TOP, "tests", "runbook.sh"), BINARY], capture_output=True, text=True, timeout=600, check=False)
    failed = [line for line in done.stdout.split("\n") if line.startswith(("FAILED", "    "))]
    expect(done.returncode == 0, "\n".join(failed) or done.stdout[-2000:] + done.stderr[-2000:])
    return re.findall(r"^\d+ passed.*", done.stdout, re.M)[-1]
