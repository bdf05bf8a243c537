"""`python -m minitransformer.exercises NAME FILE` grades one file, and prints the verdict as JSON.

The output of the file itself goes to standard error.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
from typing import Any

from minitransformer.checks.own import described, load
from minitransformer.exercises.grading import EXERCISES, Wrong
from minitransformer.system import end_with_parent, single_blas_thread


def grade(name: str, file: str) -> dict[str, Any]:
    """The fields of a Verdict on the file, whatever happens while it runs."""
    exercise = EXERCISES[name]
    try:
        exercise.grade(load(file, f"exercise_{name}"))
    except Wrong as wrong:
        numbers = {"expected": plain(wrong.expected), "got": plain(wrong.got)}
        return {"ok": False, "found": wrong.found, "where": wrong.where, **numbers, "hint": exercise.hint}
    except (Exception, SystemExit) as error:
        return {"ok": False, "found": " ".join(described(error, file).split())}
    return {"ok": True}


def plain(x: Any) -> Any:
    """A number as JSON can hold it: as a string if it is not finite."""
    return str(x) if isinstance(x, float) and not math.isfinite(x) else x


if __name__ == "__main__":
    end_with_parent()
    sys.dont_write_bytecode = True  # leave no __pycache__ beside the reader's files
    answer = sys.stdout
    with contextlib.redirect_stdout(sys.stderr), contextlib.suppress(KeyboardInterrupt), single_blas_thread():
        print(json.dumps(grade(*sys.argv[1:])), file=answer)
