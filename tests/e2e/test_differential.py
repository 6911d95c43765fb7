"""Our tokenizer beside Hugging Face's `tokenizers` (random strings through vocabularies of every kind) and beside what transformers reads in a folder, our templates
beside jinja2. AM_TORTURE=1: 100,000 and 20,000 of them, and tokenizers put together at random, which their trainer makes anew each time, so that what differs would come and go here."""
import importlib.util
import os
import subprocess
import sys

from harness import Skip

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def test_tokenizers_agree():
    if importlib.util.find_spec("tokenizers") is None:
        raise Skip("the Python package tokenizers is not installed")
    count, at_random = ("100000", "40") if os.environ.get("AM_TORTURE") else ("2500", "0")
    run = subprocess.run([sys.executable, os.path.join(TESTS, "differential_tokenizer.py"), "--strings", count, "--random", at_random], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout.splitlines()[-1]


def test_templates_agree():
    if importlib.util.find_spec("jinja2") is None:
        raise Skip("the Python package jinja2 is not installed")
    count = "20000" if os.environ.get("AM_TORTURE") else "2000"
    run = subprocess.run([sys.executable, os.path.join(TESTS, "differential_template.py"), count, "7"], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return f"{count} templates"


def test_folders_agree():
    if importlib.util.find_spec("transformers") is None:
        raise Skip("the Python package transformers is not installed")
    run = subprocess.run([sys.executable, os.path.join(TESTS, "differential_folders.py")], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout.splitlines()[-1]
