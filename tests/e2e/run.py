#!/usr/bin/env python3
"""Runs the tests of this folder against the built program: every test_* function of every test_*.py, one line each, then the totals.

    run.py [WORD...]      only tests whose file:name contains one of the words
    AM_TORTURE=1 run.py   the long forms (make torture)"""
import glob
import importlib
import os
import sys
import time
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import BINARY, Skip  # noqa: E402


def tests():
    for path in sorted(glob.glob(os.path.join(os.path.dirname(os.path.abspath(__file__)), "test_*.py"))):
        module = importlib.import_module(os.path.basename(path)[:-3])
        for name, value in list(vars(module).items()):
            if name.startswith("test_") and getattr(value, "__module__", "") == module.__name__:
                yield f"{module.__name__[5:]}: {name[5:]}", value


def main():
    wanted = sys.argv[1:]
    passed = failed = skipped = 0
    if not os.path.exists(BINARY):
        print(f"no {BINARY}: run make first")
        sys.exit(2)
    for name, test in tests():
        if wanted and not any(w in name for w in wanted):
            continue
        start = time.monotonic()
        try:
            note = test()
            passed += 1
            print(f"ok       {name} ({time.monotonic() - start:.1f} s){': ' + note if note else ''}", flush=True)
        except Skip as e:
            skipped += 1
            print(f"skipped  {name}: {e}", flush=True)
        except Exception:
            failed += 1
            print(f"FAILED   {name} ({time.monotonic() - start:.1f} s)\n    " +
                  traceback.format_exc().strip().replace("\n", "\n    "), flush=True)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(1 if failed else 0)


main()
