"""The curves of a run: drawn from its metrics."""

import math

import numpy as np
import pytest
from drawn_models import size_of_png

import minitransformer as mt

pytest.importorskip("matplotlib")

from minitransformer import figures
from minitransformer.figures.training import quality_of


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


def test_a_run_without_cross_attention_or_answers_has_three_panels(tmp_path):
    """Loss, rate, and the perplexity."""
    records = [{"step": step, "loss": 3.0 / step, "lr": 0.1} for step in (1, 2, 3)]
    records[1]["valid"], records[2]["valid"] = {"loss": 1.25, "n": 4}, {"loss": 0.5, "n": 4}
    figure = figures.training_figure("a run", records)
    assert min(size_of_png(figures.save(figure, tmp_path / "training.png"))) > 100
    loss, rate, quality = figure.axes
    assert loss.lines[1].get_xydata().tolist() == [[2, 1.25], [3, 0.5]]
    assert rate.lines[0].get_xydata().tolist() == [[1, 0.1], [2, 0.1], [3, 0.1]]
    assert quality.lines[0].get_xydata().tolist() == [
        [2, pytest.approx(math.exp(1.25))],
        [3, pytest.approx(math.exp(0.5))],
    ]
    assert quality.get_ylabel() == "perplexity,\nvalidation set" and quality.get_ylim()[0] == 0


@pytest.mark.parametrize(
    ("valid", "expected"),
    [
        (
            [{"loss": 2.0, "exact_match": 0.25}, {"loss": 1.0, "exact_match": 0.5}],
            ("exact match (%)", [25, 50], 105),
        ),
        ([{"loss": 2.0, "exact_match": 0.25, "bleu": 3.5}], ("BLEU", [3.5], None)),
        ([{"loss": 0.0}, {"loss": 1e5}], ("perplexity", [1, math.exp(700)], None)),
    ],
)
def test_the_quality_of_a_run_is_the_figure_that_it_has(valid, expected):
    assert quality_of(valid) == expected
