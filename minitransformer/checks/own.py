"""Checks of a layer or a pair of functions in a user's file: what `minitransformer gradcheck FILE.py:NAME` runs."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minitransformer.errors import InputError, MinitransformerError, describe
from minitransformer.gradcheck import GradcheckReport, gradcheck, gradcheck_function
from minitransformer.parameter import is_layer


def check_own(target: str, seed: int) -> list[GradcheckReport]:
    """Reports on FILE.py:NAME, by central differences and, if forward is analytic, by complex steps.

    NAME is what `gradcheck` takes, a tuple (layer, input, ...), or what `gradcheck_function` takes, a tuple (f,
    f_backward, array, ...), or a function without arguments that returns one. Raises InputError for anything else, and,
    with the line, for whatever the file raises.
    """
    file, _, name = target.rpartition(":")
    with _errors_of(file), contextlib.redirect_stdout(sys.stderr):
        module = load(file, f"own_{Path(file).stem}")
        if not hasattr(module, name):
            raise InputError(f"{file}: expected a {name!r} in it, found none")
        case = getattr(module, name)
        case = case() if callable(case) and not isinstance(case, type) else case
        if not isinstance(case, tuple) or not case:
            expected = (
                "a tuple (layer, input, ...) or (f, f_backward, array, ...), or a function that returns one"
            )
            raise InputError(f"{target}: expected {expected}, got {describe(case)}")
        check = gradcheck if is_layer(case[0]) else gradcheck_function
        reports = [check(*case, method="central", seed=seed)]
        try:
            reports.append(check(*case, method="complex", seed=seed))
        except InputError as error:
            reports[0].notes.append(f"not checked by complex steps: {error}")
    return reports


@contextlib.contextmanager
def _errors_of(file: str) -> Iterator[None]:
    try:
        yield
    except MinitransformerError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"{file}: {described(error, file)}") from error


def load(file: str, name: str) -> Any:
    """Import a file as the module `name`; modules beside it can be imported, as for a script."""
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} cannot be imported")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    sys.path.append(str(Path(file).resolve().parent))
    spec.loader.exec_module(module)
    return module


def described(error: BaseException, file: str) -> str:
    """An exception on one line, with the number of the innermost line of the file in its traceback."""
    here = os.path.abspath(file)
    if isinstance(error, SyntaxError) and error.filename and os.path.abspath(error.filename) == here:
        return f"line {error.lineno}: {type(error).__name__}: {error.msg}"
    lines = [
        f.lineno for f in traceback.extract_tb(error.__traceback__) if os.path.abspath(f.filename) == here
    ]
    where = f"line {lines[-1]}: " if lines else ""
    return f"{where}{type(error).__name__}: {error}"
