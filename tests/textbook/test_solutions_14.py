"""The solutions to the exercises of chapter 14 solve them, and the model that it loads is the example's."""

from __future__ import annotations

import importlib.util
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minitransformer as mt

ROOT = Path(__file__).parents[2]


def module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"chapter_14_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


solutions = module(ROOT / "docs" / "textbook" / "solutions" / "14_from_this_model.py")
example = module(ROOT / "examples" / "fold.py")


def gpt(n_layers: int, d: int, max_len: int, V: int) -> mt.DecoderOnly:
    sizes = {"n_layers": n_layers, "d_model": d, "n_heads": 2, "d_ff": 4 * d, "max_len": max_len}
    return mt.DecoderOnly(mt.OneStackConfig(V, V, **sizes, positions="learned", norm="pre"))


def test_the_bytes_of_the_kept_keys_and_values():
    state = gpt(3, 8, 20, 11).start_decoding(np.full((1, 5), 3), max_len=7)
    kept = sum(x.nbytes for layer in state.layers for x in (layer.K, layer.V))
    assert kept == solutions.kept_bytes(N=3, d=8, n=12, bytes_a_number=4)


def test_the_signs_that_may_come_next_are_those_of_the_possible_foldings():
    rng = np.random.default_rng(0)
    for rna in ("".join(letters) for letters in rng.choice(list("ACGU"), (6, 8))):
        texts = map("".join, product(".()", repeat=8))
        possible = [folded for folded in texts if example.bonds_of(rna, folded) is not None]
        for begun in {folded[:n] for folded in possible for n in range(8)}:
            expected = {folded[len(begun)] for folded in possible if folded.startswith(begun)}
            assert solutions.next_signs(rna, begun) == expected, (rna, begun)


class Counted(np.ndarray):
    """An array that counts the multiplications of its matrix products."""

    n = 0

    def __array_ufunc__(self, ufunc, method, *inputs, out=(), **kwargs):
        inputs = [x.view(np.ndarray) if isinstance(x, Counted) else x for x in inputs]
        if out:
            kwargs["out"] = tuple(x.view(np.ndarray) for x in out)
        result = getattr(ufunc, method)(*inputs, **kwargs)
        if ufunc is np.matmul:
            Counted.n += result.size * inputs[0].shape[-1]
        return result.view(Counted) if isinstance(result, np.ndarray) else result


@pytest.mark.parametrize(("n_layers", "d", "n", "V"), [(1, 8, 5, 7), (3, 16, 20, 11)])
def test_the_operations_of_the_forward_pass_are_a_third_of_all(n_layers, d, n, V):
    model = gpt(n_layers, d, n, V)
    for parameter in model.parameters().values():
        parameter.rebind(parameter.data.view(Counted), parameter.grad)
    Counted.n = 0
    model.forward(np.full((1, n), 3))
    # sums, too, are products with ones: the mean and variance of each norm, and the softmax's rows in two heads
    sums = 2 * n * d * (2 * n_layers + 1) + 2 * n_layers * n**2
    assert Counted.n - sums == solutions.operations_a_token(n_layers, d, n, V) * n / 6


def test_the_model_that_the_chapter_loads_folds_most_chains_right():
    model = mt.Transformer(mt.RunSettings.of(example.Fold()).model)
    with np.load(ROOT / "docs" / "textbook" / "weights" / "fold.npz") as weights:
        model.load_state_dict({name: x.astype("float32") for name, x in weights.items()})
    texts = example.compared(model, example.Fold().pairs(np.random.default_rng(1), 200, held_out=True))
    assert np.mean([folded == wanted for _, wanted, folded in texts]) > 0.65
