"""The curves of a run: drawn from its metrics."""

import numpy as np
import pytest
from drawn_models import size_of_png

import minitransformer as mt

pytest.importorskip("matplotlib")

from minitransformer import figures


def test_the_training_figure_shows_the_metrics(tmp_path):
    rng = np.random.default_rng(5)
    records = []
    for step in (3, 6, 7, 9):
        record = {"step": step, "loss": float(rng.uniform(1, 3)), "lr": float(rng.uniform())}
        if step in (6, 9):
            record["cross_attention"] = float(rng.uniform())
            record["valid"] = {"exact_match": float(rng.uniform())}
        records.append(record)
    figure = figures.training_figure("a run", records)
    assert min(size_of_png(figures.save(figure, tmp_path / "training.png"))) > 100
    loss, rate, sharpness, exact = (axis.lines[0].get_xydata().tolist() for axis in figure.axes)
    assert loss == [[r["step"], r["loss"]] for r in records]
    assert sharpness == [[r["step"], r["cross_attention"]] for r in records if "valid" in r]
    assert rate == [[r["step"], r["lr"]] for r in records]
    assert exact == [
        [r["step"], pytest.approx(100 * r["valid"]["exact_match"])] for r in records if "valid" in r
    ]


def test_a_run_without_reports_is_refused():
    with pytest.raises(mt.InputError, match=r"metrics\.jsonl"):
        figures.training_figure("a run", [])
    with pytest.raises(mt.InputError, match=r"metrics\.jsonl lacks loss, lr"):
        figures.training_figure("a run", [{"step": 1}])
