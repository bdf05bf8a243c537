"""Mutation testing: does every small change of the code make a test fail?

    pip install mutmut==3.8.1
    python tests/adversarial/mutation/run.py                             # the mathematics: half an hour
    python tests/adversarial/mutation/run.py --tools                     # gradient checker, replicas, runs
    python tests/adversarial/mutation/run.py --folder FOLDER             # the same, in a folder that is kept
    python tests/adversarial/mutation/run.py --folder FOLDER --survivors # what survived there, once more
    python tests/adversarial/mutation/run.py --folder FOLDER '*loss*'    # mutants by name (quick with a kept folder)

mutmut makes the mutants (`a + b` becomes `a - b`, an argument is left out, a message changes, ...) and runs the
tests that reach each of them. What is mutated and which tests run stands in setup.cfg and tools.cfg beside this
file. The working tree stays clean: all happens in a copy. Prints the figures, and the survivors as diffs; exits with
1 if less than 95 % are killed.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
MUTMUT = [sys.executable, "-c", "from mutmut.__main__ import cli; cli()"]
KILLED, SURVIVED, UNREACHED = {1, 3}, {0}, {5, 33}  # mutmut's exit codes
TIMED_OUT = {36, -24, 24, 152, 255}


def copy_tree(folder: Path, setup: str = "setup.cfg") -> None:
    for name in ("minitransformer", "tests"):
        shutil.copytree(ROOT / name, folder / name, dirs_exist_ok=True,
                        ignore=shutil.ignore_patterns("__pycache__"))  # fmt: skip
    for path in (folder / "minitransformer").rglob("*.py"):
        path.write_text(undecorated(path.read_text()))
    shutil.copy2(ROOT / "pyproject.toml", folder)
    shutil.copy2(HERE / setup, folder / "setup.cfg")


def undecorated(source: str) -> str:
    """The same program with `f = d(f)` below each f that has a decorator d: mutmut leaves decorated functions out."""
    lines = source.split("\n")
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    for f in sorted(functions, key=lambda f: -f.lineno):  # from below, so that numbers of lines stay right
        decorators = [ast.unparse(d) for d in f.decorator_list]
        if decorators in ([], ["classmethod"], ["staticmethod"]) or f"@{f.name}.setter" in source:
            continue  # mutmut knows the first three; a property with a setter stays out
        call = f.name
        for decorator in reversed(decorators):
            call = f"{decorator}({call})"
        lines.insert(f.end_lineno or 0, f"{' ' * f.col_offset}{f.name} = {call}")
        first = f.decorator_list[0].lineno - 1
        lines[first : f.lineno - 1] = [""] * (f.lineno - 1 - first)
    return "\n".join(lines)


def mutmut(folder: Path, *arguments: str, quiet: bool = False) -> str:
    environment = {**os.environ, "HYPOTHESIS_PROFILE": "mutation", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [*MUTMUT, *arguments],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE if quiet else None,
    )
    if done.returncode:
        sys.exit(f"mutmut failed ({done.returncode})")
    return done.stdout or ""


def results(folder: Path) -> dict[str, int | None]:
    """Mutant -> exit code of the tests."""
    found: dict[str, int | None] = {}
    for meta in sorted((folder / "mutants").rglob("*.meta")):
        found |= json.loads(meta.read_text())["exit_code_by_key"]
    return found


def verdict(code: int | None) -> str:
    for name, codes in {
        "killed": KILLED, "survived": SURVIVED, "timed out": TIMED_OUT, "reached by no test": UNREACHED,
    }.items():  # fmt: skip
        if code in codes:
            return name
    return "not run" if code is None else "crashed"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("mutants", nargs="*", help="names or patterns of mutants; all by default")
    parser.add_argument("--tools", action="store_true", help="mutate what stands in tools.cfg")
    parser.add_argument("--folder", type=Path, help="work here, and continue with what is here")
    parser.add_argument("--survivors", action="store_true", help="run again what was not killed in --folder")
    parser.add_argument("--children", type=int, default=2, help="tests run in so many processes")
    options = parser.parse_args()
    if options.survivors and not options.folder:
        parser.error("--survivors: of which run? Give its --folder.")

    start = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        copy_tree(folder, "tools.cfg" if options.tools else "setup.cfg")
        names = options.mutants
        if options.survivors:
            names += [name for name, code in results(folder).items() if verdict(code) != "killed"]
            if not names:
                sys.exit(f"nothing survived in {folder}")
        mutmut(folder, "run", "--max-children", str(options.children), *names)
        verdicts = {name: verdict(code) for name, code in results(folder).items()}
        left = [name for name, v in verdicts.items() if v not in ("killed", "timed out", "not run")]
        for name in left:
            print(f"\n{verdicts[name].upper()}", mutmut(folder, "show", name, quiet=True))
    counts = Counter(verdicts.values())
    n_run = len(verdicts) - counts["not run"]
    rate = (counts["killed"] + counts["timed out"]) / n_run
    print(f"\n{len(verdicts)} mutants: " + ", ".join(f"{n} {v}" for v, n in counts.most_common()))
    print(f"killed (time-outs included): {rate:.1%}, in {(time.monotonic() - start) / 60:.0f} min")
    return rate < 0.95


if __name__ == "__main__":
    sys.exit(main())
