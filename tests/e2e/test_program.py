"""The program from a shell: version, help, and what it says to mistakes."""
from harness import expect, run


def test_version():
    code, out, _ = run("version")
    expect(code == 0 and out.startswith("agent-memory "), out)
