"""What a training run says of itself while it runs: lines, or a bar on a terminal."""

from __future__ import annotations

import io
import sys

import pytest

from minitransformer.runs import Progress

RECORD = {"step": 50, "loss": 1.25, "lr": 3e-4, "tokens_per_s": 37803.0, "seconds": 1830.0}


def test_a_report_is_a_line(capsys):
    progress, valid = Progress(200), {"loss": 2.5, "exact_match": 0.5}
    progress.report(RECORD)
    progress.report({**RECORD, "step": 200, "valid": valid, "cross_attention": 0.914})
    progress.report({**RECORD, "valid": {**valid, "bleu": 41.0}})
    progress.report({**RECORD, "valid": {"loss": 2.5}})
    Progress(200, quiet=True).report(RECORD)
    figures = "loss 1.2500  lr 3.0e-04  37,803 tokens/s  30:30,"
    assert capsys.readouterr().err.splitlines() == [
        f"step  50/200  {figures} left 1:31:30",
        f"step 200/200  {figures} left 0:00  valid: 50.00% exact, sharp 0.91",
        f"step  50/200  {figures} left 1:31:30  valid: loss 2.5000, BLEU 41.00",
        f"step  50/200  {figures} left 1:31:30  valid: loss 2.5000",
    ]


def test_a_terminal_has_a_bar(monkeypatch):
    tqdm, made = pytest.importorskip("tqdm"), []

    class Bar(tqdm.tqdm):
        def __init__(self, *given, **named):
            super().__init__(*given, **named)
            made.append(self)

    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr(tqdm, "tqdm", Bar)
    monkeypatch.setattr(sys, "stderr", stream)
    progress = Progress(5, done=2)
    for call in (progress.advance, progress.advance, lambda: progress.report(RECORD), progress.close):
        call()
    assert (made[0].n, made[0].total) == (4, 5) and "loss 1.2500" in stream.getvalue()
