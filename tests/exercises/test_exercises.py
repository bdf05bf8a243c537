"""Find the bug: the ten files as they are shipped are wrong, the ten solutions right, and likely wrong fixes wrong."""

from __future__ import annotations

import ast
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from minitransformer import InputError, exercises
from minitransformer.exercises import EXERCISES, FAULTY, Verdict
from minitransformer.exercises.__main__ import grade

SOLUTIONS = Path(__file__).parent / "solutions"
FIXED, UNFIXED = SOLUTIONS, FAULTY


def graded(name: str, file: Path) -> Verdict:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as the process that grades does
        return Verdict(name, **grade(name, str(file)))


def write(file: Path, source: str) -> Path:
    file.write_text(source, encoding="utf-8")
    return file


def edited(file: Path, changes: dict[str, str]) -> str:
    source = file.read_text(encoding="utf-8")
    for old, new in changes.items():
        assert source.count(old) == 1, f"{file.name} has {source.count(old)} times: {old}"
        source = source.replace(old, new)
    return source


# ---- the three kinds of file


@pytest.mark.parametrize("name", EXERCISES)
def test_a_file_as_it_is_shipped_is_wrong_and_a_number_shows_it(name: str) -> None:
    verdict = graded(name, UNFIXED / f"{name}.py")
    assert not verdict.ok and verdict.found and verdict.where and verdict.hint
    assert verdict.expected != verdict.got


@pytest.mark.parametrize("name", EXERCISES)
def test_the_solution_is_right(name: str) -> None:
    assert graded(name, FIXED / f"{name}.py") == Verdict(name, True)


class WrongFix(NamedTuple):
    """A change of the solution, or of the file with the fault, that leaves or makes something wrong."""

    name: str
    words: str
    of: Path
    changes: dict[str, str]


WRONG_FIXES = [
    WrongFix("positions", "cosines first", FIXED,
             {"[xp.sin(angle), xp.cos(angle)]": "[xp.cos(angle), xp.sin(angle)]"}),
    WrongFix("positions", "no positions at all", FIXED, {"x + self.PE[:T].astype(x.dtype)": "x"}),
    WrongFix("positions", "another base", FIXED, {"frequency = 10000": "frequency = 100000"}),
    WrongFix("positions", "2i where i belongs", FIXED, {"-2 * arange": "-4 * arange"}),
    WrongFix("embedding", "= for +=", FIXED,
             {"add_rows(self.E.grad, cache.ids, dy * self.scale)": "self.E.grad[cache.ids] = dy * self.scale"}),
    WrongFix("embedding", "the scale left out of backward", FIXED, {"cache.ids, dy * self.scale": "cache.ids, dy"}),
    WrongFix("embedding", "the scale left out of both", FIXED,
             {"cache.ids, dy * self.scale": "cache.ids, dy", "[ids] * self.scale": "[ids]"}),
    WrongFix("embedding", "no gradient", FIXED, {"add_rows(self.E.grad, cache.ids, dy * self.scale)": "return"}),
    WrongFix("dropout", "scales at evaluation instead of in training", UNFIXED,
             {"x * kept / (1 - self.p)": "x * kept", "cache.kept / (1 - self.p)": "cache.kept"}),
    WrongFix("dropout", "scales nowhere", FIXED,
             {"x * kept / (1 - self.p)": "x * kept", "cache.kept / (1 - self.p)": "cache.kept"}),
    WrongFix("dropout", "drops nothing", FIXED, {">= self.p": ">= 0", "kept / (1 - self.p), ": "kept, "}),
    WrongFix("dropout", "drops what should stay", FIXED, {">= self.p": "< self.p"}),
    WrongFix("dropout", "backward as if nothing were dropped", FIXED,
             {"return dy * cache.kept / (1 - self.p)": "return dy"}),
    WrongFix("dropout", "only forward is fixed", FIXED, {"return dy\n": "return dy * (1 - self.p)\n"}),
    WrongFix("residual_dropout", "the second dropout removed", FIXED,
             {"s, kept_2 = self.dropout.forward(s, rng)": "kept_2 = None"}),
    WrongFix("residual_dropout", "the first dropout removed", FIXED,
             {"s, kept_1 = self.dropout.forward(s, rng)": "kept_1 = None"}),
    WrongFix("residual_dropout", "the same zeros for both", FIXED,
             {"s, kept_2 = self.dropout.forward(s, rng)": "s, kept_2 = self.dropout.backward(s, kept_1), kept_1"}),
    WrongFix("residual_dropout", "backward as if nothing were dropped", FIXED,
             {"self.dropout.backward(dy, cache.kept_2)": "dy", "self.dropout.backward(dh, cache.kept_1)": "dh"}),
    WrongFix("residual_dropout", "two objects, which keep what they dropped", UNFIXED,
             {"self.dropout = Dropout(p)": "self.dropout, self.dropout_2 = Dropout(p), Dropout(p)",
              "h + self.dropout.forward": "h + self.dropout_2.forward",
              "self.dropout.backward(dy)": "self.dropout_2.backward(dy)"}),
    WrongFix("residual_dropout", "a residual connection lost in backward", FIXED, {"return dh + self": "return self"}),
    WrongFix("layer_norm", "no gamma in dx", UNFIXED, {"self.gamma.data * dx * rstd": "dx * rstd"}),
    WrongFix("layer_norm", "gamma in one mean only", FIXED,
             {"(dx_hat * x_hat).mean": "self.gamma.data * (dy * x_hat).mean"}),
    WrongFix("layer_norm", "no means", FIXED, {"dx = dx_hat - dx_hat.mean(-1, keepdims=True)": "dx = dx_hat"}),
    WrongFix("layer_norm", "no gamma", FIXED,
             {"self.gamma.data * x_hat + self": "x_hat + self", "dy * self.gamma.data": "dy"}),
    WrongFix("layer_norm", "no eps", FIXED, {" + self.eps)": ")"}),
    WrongFix("layer_norm", "another eps", FIXED, {"self.eps = eps": "self.eps = 0.5"}),
    WrongFix("layer_norm", "no gradient of a row of equal numbers", FIXED,
             {"rstd = ((centred * centred).mean(-1, keepdims=True) + self.eps) ** -0.5":
              "var = (centred * centred).mean(-1, keepdims=True)\n"
              "        rstd = (var > 0) * (var + self.eps) ** -0.5"}),
    WrongFix("attention", "the Jacobian's diagonal only", FIXED,
             {"(dweights - (dweights * weights).sum(-1, keepdims=True))": "dweights * (1 - weights)"}),
    WrongFix("attention", "the sum over the queries", FIXED, {"weights).sum(-1": "weights).sum(-2"}),
    WrongFix("attention", "no scale", FIXED,
             {"scores = Q @ K.swapaxes(-1, -2) / math.sqrt(Q.shape[-1])": "scores = Q @ K.swapaxes(-1, -2)",
              "keepdims=True)) / math.sqrt(Q.shape[-1])": "keepdims=True))"}),
    WrongFix("attention", "the gradient of the scores is zero", FIXED, {"dscores = weights": "dscores = 0 * weights"}),
    WrongFix("masking", "-1e9 for -inf", UNFIXED, {"-math.inf": "-1e9"}),
    WrongFix("masking", "no mask", UNFIXED, {"        scores[~mask] = -math.inf\n": ""}),
    WrongFix("masking", "an empty row attends to all", UNFIXED,
             {"scores[~mask]": "scores[~mask & mask.any(-1, keepdims=True)]"}),
    WrongFix("masking", "-1000 for -inf", UNFIXED, {"-math.inf": "-1000"}),
    WrongFix("masking", "only the context is set to zero", UNFIXED,
             {"-math.inf": "-1e30", "return weights @ V,": "return (weights @ V) * mask.any(-1, keepdims=True),"}),
    WrongFix("masking", "hidden scores are zero", FIXED,
             {"-math.inf": "0", "softmax(scores) * mask": "softmax(scores)"}),
    WrongFix("cross_attention", "only forward is fixed", UNFIXED, {"self.W_V.forward(x)": "self.W_V.forward(memory)"}),
    WrongFix("cross_attention", "keys from the decoder, too", UNFIXED,
             {"self.W_K.forward(memory)": "self.W_K.forward(x)"}),
    WrongFix("cross_attention", "queries from the encoder", FIXED, {"self.W_Q.forward(x)": "self.W_Q.forward(memory)"}),
    WrongFix("cross_attention", "no scale", FIXED,
             {"softmax(Q @ K.swapaxes(-1, -2) / math.sqrt(Q.shape[-1]))": "softmax(Q @ K.swapaxes(-1, -2))",
              "weights) / math.sqrt(Q.shape[-1])": "weights)"}),
    WrongFix("cross_attention", "no attention at all", FIXED, {"return weights @ V, C": "return Q, C"}),
    WrongFix("loss", "padding is a word", UNFIXED, {"tgt_out != self.pad_id": "tgt_out == tgt_out"}),
    WrongFix("loss", "only the value is fixed", UNFIXED,
             {"return loss, ": "return loss * is_word.size / is_word.sum(), "}),
    WrongFix("loss", "the mean of each sentence's mean", UNFIXED,
             {"/ is_word.size": "/ is_word.sum(1)[:, None, None] / len(is_word)"}),
    WrongFix("loss", "no smoothing", FIXED, {"self.eps_ls = eps_ls": "self.eps_ls = 0.0"}),
    WrongFix("loss", "smoothing that cannot be switched off", FIXED,
             {"self.eps_ls = eps_ls": "self.eps_ls = eps_ls or 0.1"}),
    WrongFix("loss", "only the gradient is smoothed", FIXED,
             {"loss = -(q * log_p * weight).sum()": "loss = -(log_p * weight).sum()"}),
    WrongFix("loss", "a sum, not a mean", FIXED, {" / is_word.sum()": ""}),
    WrongFix("loss", "words below the padding are padding, too", FIXED,
             {"tgt_out != self.pad_id": "tgt_out > self.pad_id"}),
    WrongFix("adam", "beta2 for both moments", FIXED,
             {"m *= beta1": "m *= beta2", "m += (1 - beta1)": "m += (1 - beta2)"}),
    WrongFix("adam", "the paper's betas, whatever was asked for", FIXED,
             {"beta1, beta2 = self.betas": "beta1, beta2 = 0.9, 0.98"}),
    WrongFix("adam", "beta1 everywhere", UNFIXED, {"1 - beta2**self.t": "1 - beta1**self.t"}),
    WrongFix("adam", "no corrections", FIXED, {" / (1 - beta1**self.t)": "", " / (1 - beta2**self.t)": ""}),
    WrongFix("adam", "the factor 1 - beta1 left", FIXED, {"v += (1 - beta2)": "v += (1 - beta1)"}),
    WrongFix("adam", "no second moment", FIXED, {" / (v_hat**0.5 + self.adam_eps)": ""}),
]  # fmt: skip


@pytest.mark.parametrize("fix", [pytest.param(fix, id=f"{fix.name}: {fix.words}") for fix in WRONG_FIXES])
def test_a_wrong_fix_is_wrong_not_merely_broken(fix: WrongFix, tmp_path: Path) -> None:
    file = tmp_path / f"{fix.name}.py"
    file.write_text(edited(fix.of / file.name, fix.changes), encoding="utf-8")
    verdict = graded(fix.name, file)
    assert not verdict.ok and verdict.hint, verdict  # an exception in the file comes without a hint


def test_every_exercise_has_wrong_fixes() -> None:
    assert all(sum(fix.name == name for fix in WRONG_FIXES) >= 4 for name in EXERCISES)


OTHER_RIGHT_FIXES = [
    WrongFix("embedding", "a loop", FIXED,
             {"add_rows(self.E.grad, cache.ids, dy * self.scale)":
              "for b, row in enumerate(cache.ids):\n            for t, i in enumerate(row):\n"
              "                self.E.grad[i] += dy[b, t] * self.scale"}),
    WrongFix("attention", "this package's function", UNFIXED,
             {"dscores = dcontext @ V.swapaxes(-1, -2) / m":
              "dscores = layers.softmax_backward(dcontext @ V.swapaxes(-1, -2), weights) / m"}),
    WrongFix("masking", "this package's function", UNFIXED,
             {"        scores[~mask] = -math.inf\n": "", "= softmax(scores)": "= layers.softmax(scores, mask)"}),
    WrongFix("dropout", "this package's class", FIXED,
             {"class Dropout(Module):": "from minitransformer.layers import Dropout\nclass Other(Module):"}),
]  # fmt: skip


@pytest.mark.parametrize(
    "fix", [pytest.param(fix, id=f"{fix.name}: {fix.words}") for fix in OTHER_RIGHT_FIXES]
)
def test_there_is_more_than_one_right_fix(fix: WrongFix, tmp_path: Path) -> None:
    file = tmp_path / f"{fix.name}.py"
    file.write_text(edited(fix.of / file.name, fix.changes), encoding="utf-8")
    assert graded(fix.name, file).ok


# ---- the files


def test_each_exercise_has_a_file_and_a_solution_that_differ_by_a_few_lines() -> None:
    for folder in (UNFIXED, FIXED):
        assert {file.stem for file in folder.glob("*.py")} == set(EXERCISES)
    for name in EXERCISES:
        wrong, right = (
            (folder / f"{name}.py").read_text(encoding="utf-8").splitlines() for folder in (UNFIXED, FIXED)
        )
        assert 1 <= len(set(wrong) - set(right)) <= 10
        assert ast.get_docstring(ast.parse("\n".join(wrong))) == ast.get_docstring(
            ast.parse("\n".join(right))
        )


@pytest.mark.parametrize("name", EXERCISES)
def test_a_file_is_short_says_what_was_noticed_and_imports_little(name: str) -> None:
    source = (UNFIXED / f"{name}.py").read_text(encoding="utf-8")
    tree = ast.parse(source)
    assert len(source.splitlines()) < 60
    assert "What it should do" in ast.get_docstring(tree) and "What was noticed" in ast.get_docstring(tree)
    imported = {
        module
        for node in ast.walk(tree)
        for module in (
            [node.module] if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        )
    }  # fmt: skip
    assert imported <= {
        "minitransformer",
        "minitransformer.backend",
        "minitransformer.module",
        "math",
        "typing",
    }
    assert len(exercises.about(name)) < 100


# ---- a file that cannot be graded


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def f(:\n", "line 1: SyntaxError: "),
        ("import math\n\n1 / 0\n", "line 3: ZeroDivisionError: division by zero"),
        ("x = 1\n", "has no attribute 'Dropout'"),
        ("raise SystemExit(0)\n", "line 1: SystemExit: 0"),
    ],
)
def test_a_file_that_does_not_run_is_one_line(source: str, found: str, tmp_path: Path) -> None:
    verdict = graded("dropout", write(tmp_path / "dropout.py", source))
    assert not verdict.ok and found in verdict.found and "\n" not in str(verdict)


@pytest.mark.parametrize("last_words", ["", "os.write(1, b'[1]')"])
def test_a_file_that_ends_python_is_one_line(last_words: str, tmp_path: Path) -> None:
    write(tmp_path / "dropout.py", f"import os\n{last_words}\nos._exit(3)\n")
    (verdict,) = exercises.check(tmp_path, ["dropout"])
    assert not verdict.ok and "Python stopped with exit status 3" in verdict.found


def test_an_exception_in_a_layer_names_the_line_of_the_file(tmp_path: Path) -> None:
    source = edited(
        FIXED / "dropout.py", {"kept = rng.random(x.shape)": "kept = rng.random(x.shape, 7, 7, 7)"}
    )
    line = 1 + source.splitlines().index("        kept = rng.random(x.shape, 7, 7, 7) >= self.p")
    verdict = graded("dropout", write(tmp_path / "dropout.py", source))
    assert verdict.found.startswith(f"line {line}: TypeError: ") and "\n" not in str(verdict)


def test_what_lies_in_the_current_folder_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "numpy.py", "raise SystemExit(7)\n")
    (tmp_path / "files").mkdir()
    write(tmp_path / "files" / "dropout.py", (FIXED / "dropout.py").read_text(encoding="utf-8"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    assert list(exercises.check(tmp_path / "files", ["dropout"])) == [Verdict("dropout", True)]


def test_an_endless_loop_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exercises, "TIME_LIMIT", 1.0)
    write(tmp_path / "dropout.py", "while True:\n    pass\n")
    (verdict,) = exercises.check(tmp_path, ["dropout"])
    assert not verdict.ok and "endless loop" in verdict.found


def test_what_a_file_prints_is_not_taken_for_the_verdict_and_nothing_is_left_behind(
    tmp_path: Path, capfd: Any
) -> None:
    source = "print('{}')\n" + (FIXED / "dropout.py").read_text(encoding="utf-8")
    write(tmp_path / "dropout.py", source)
    assert list(exercises.check(tmp_path, ["dropout"])) == [Verdict("dropout", True)]
    assert capfd.readouterr() == ("", "{}\n")
    assert [file.name for file in tmp_path.iterdir()] == ["dropout.py"]


def test_other_parameters_or_shapes_are_said_in_one_line(tmp_path: Path) -> None:
    for changes, found in (
        ({"self.gamma = ": "self.g = "}, "expected the parameters gamma, beta, got g, beta"),
        ({"return self.gamma.data * x_hat + self.beta.data, ": "return x_hat[0], "}, "y: expected an array of shape"),
        ({"return dx * rstd": "return None"}, "backward: expected a gradient for each input"),
        ({"self.beta.grad +=": "self.beta.grad ="}, "wrong for beta"),
        ({"        dx_hat = dy * self.gamma.data\n": "        dx_hat = dy * self.gamma.data\n        dy += 1\n"},
         "backward writes to dy"),
    ):  # fmt: skip
        source = edited(FIXED / "layer_norm.py", changes)
        verdict = graded("layer_norm", write(tmp_path / "layer_norm.py", source))
        assert not verdict.ok and found in verdict.found, verdict


# ---- start and check


def test_start_overwrites_nothing(tmp_path: Path) -> None:
    mine = write(tmp_path / "loss.py", "# mine\n")
    with pytest.raises(InputError, match=r"loss\.py is there already"):
        exercises.start(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["loss.py"] and mine.read_text() == "# mine\n"


def test_a_missing_file_is_a_verdict(tmp_path: Path) -> None:
    (verdict,) = exercises.check(tmp_path, ["adam"])
    assert not verdict.ok and "no file" in verdict.found
