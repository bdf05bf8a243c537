"""The page that compares gradient checkers says what ours says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
PAGE = (FOLDER.parents[1] / "docs" / "gradient-checkers.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(FOLDER))
    try:
        import gradient_checkers
    finally:
        sys.path.remove(str(FOLDER))
    return gradient_checkers


def test_the_last_two_columns_of_the_table_are_what_our_checker_says(script):
    printed = PAGE.split("<!-- table -->\n")[1].split("\n<!-- end -->")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in printed]
    ours = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in script.table(["ours", "complex"])
    ]
    assert len(cells) == 2 + 20 + 1 + 5
    assert [[row[0], *row[-2:]] for row in cells] == ours
    assert {len(row) for row in cells} == {8}


def test_an_example_as_a_function_gives_the_layers_outputs_and_gradients(script):
    example = next(e for e in script.FAULTS if e.what.startswith("bias: a mean"))
    function = script.Function(example)
    x, W, b = function.arrays
    y = function.f(x, W, b + 1)
    assert (y == x @ W + 1).all() and (function.layer.b.grad == 0).all()
    for _ in range(2):
        dx, dW, db = function.vjp(y, x, W, b)
        assert (dx == y @ W.T).all() and (dW == x.T @ y).all() and (db == y.mean(0)).all()
    assert (example.layer.b.data == 0).all() and (example.layer.W.grad == 0).all()
