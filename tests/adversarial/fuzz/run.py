"""The fuzz tests again and again, with fresh random seeds, until the time is up.

    python tests/adversarial/fuzz/run.py --minutes 20

One process. Prints what each round did, and at the end how many calls each entry point has had and what came of
them. Exit status 1, with the falsifying example, at the first failure, or when a test hangs for ten minutes.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import os
import secrets
import sys
import time
import traceback
import warnings
from pathlib import Path

from hypothesis import seed, settings

HANGS_AFTER = 600  # seconds; the stack is then printed, and the process ends


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--examples", type=int, default=100, help="of each test in a round")
    parser.add_argument("--only", default="", help="tests whose name contains this")
    arguments = parser.parse_args()
    warnings.simplefilter("error")
    here, tests = Path(__file__).parent, Path(__file__).parents[2]
    sys.path[:0] = [str(here), str(tests / "helpers"), str(tests)]
    os.environ["HYPOTHESIS_PROFILE"] = "fuzz"
    import conftest  # noqa: F401  (it loads the profile)

    settings.register_profile("round", settings(max_examples=arguments.examples, database=None))
    settings.load_profile("round")  # before the tests are defined, which take what is there then
    from hostile import TALLY

    modules = [importlib.import_module(path.stem) for path in sorted(here.glob("test_fuzz*.py"))]
    found = {name: x for module in modules for name, x in vars(module).items() if name.startswith("test_")}
    tests = [test for name, test in found.items() if callable(test) and arguments.only in name]
    began, n_rounds = time.monotonic(), 0
    while time.monotonic() - began < 60 * arguments.minutes:
        for test in tests:
            faulthandler.dump_traceback_later(HANGS_AFTER, exit=True)
            number = secrets.randbits(64)
            try:
                seed(number)(test)()
            except BaseException:
                traceback.print_exc()
                print(f"\nFAILED: {test.__name__}, seed {number}, after {n_rounds} rounds")
                return 1
        n_rounds += 1
        calls = sum(sum(answers.values()) for answers in TALLY.values())
        print(f"round {n_rounds}: {calls:,} calls in {time.monotonic() - began:.0f} s", flush=True)
    print(f"\n{'entry point':<40}{'calls':>10}  what came of them")
    for entry, answers in TALLY.items():
        outcomes = ", ".join(f"{name} {n:,}" for name, n in answers.most_common())
        print(f"{entry:<40}{sum(answers.values()):>10,}  {outcomes}")
    print(f"\nno failure in {n_rounds} rounds of {len(tests)} tests")
    return 0


if __name__ == "__main__":
    sys.exit(main())
