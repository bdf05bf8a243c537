"""The estimate of memory: near what a training takes, and known before anything is allocated."""

from __future__ import annotations

import json
import subprocess

import pytest
from command_line import PROGRAM

import minitransformer as mt
from minitransformer.cli import main
from minitransformer.one_stack_config import OneStackConfig
from minitransformer.runs import estimate
from minitransformer.runs.estimate import in_words, training_mb, weights_mb


@pytest.mark.parametrize(
    "config",
    [
        mt.TransformerConfig.base(),
        mt.TransformerConfig.preset("A h=16", 9000, tie_embeddings=False),
        mt.TransformerConfig.preset(
            "E learned", 500, max_len=4000, tie_embeddings="target_output", n_layers=1
        ),
        mt.TransformerConfig(
            90,
            90,
            n_layers=1,
            d_model=32,
            n_heads=2,
            d_ff=64,
            max_len=50,
            positions="learned",
            count_source_from="both",
            random_gaps=90,
            random_start=40,
        ),
        OneStackConfig(700, 700, n_layers=2, d_model=256, n_heads=4, d_ff=300),
        OneStackConfig(
            700, 90, n_layers=2, d_model=64, n_heads=4, d_ff=300, family="encoder-only", tie_embeddings=False
        ),
    ],
)
def test_the_matrices_are_nearly_all_of_a_model(config):
    n = mt.models.families.build(config).n_parameters()
    assert weights_mb(config, "float32") == pytest.approx(4 * n / 1e6, rel=0.04)
    assert weights_mb(config, "float64") == 2 * weights_mb(config, "float32")


@pytest.mark.parametrize(
    "settings",
    [
        "d_model=512 d_ff=2048 n_layers=3 batch_tokens=100",  # weights
        "d_model=128 d_ff=512 n_layers=3 batch_tokens=6000",  # what is kept for backward
        "d_model=32 d_ff=32 n_layers=1 batch_tokens=3000 n_symbols=9000",  # logits
        "d_model=256 d_ff=1024 n_layers=1 batch_tokens=4000 processes=2",
    ],
)
def test_the_estimate_is_near_what_a_training_takes(tmp_path, settings):
    options = [
        *settings.split(),
        "steps=1",
        "warmup_steps=1",
        "test_size=2",
        "solved_at=none",
        "epoch_size=2000",
    ]
    options += [] if "processes" in settings else ["processes=1"]
    command = [*PROGRAM, "train", "copy", "--json", "--out", str(tmp_path / "run")]
    # by a shell, since Linux counts the memory of the process that starts another as that one's, too
    shell = ["bash", "-c", '"$@"; exit $?', "bash", *command, "--set", *options]
    done = subprocess.run(shell, capture_output=True, text=True, check=True)
    peak = json.loads(done.stdout)["peak_memory_mb"]
    if peak is None:
        pytest.skip("this system does not say how much memory is used")
    config = mt.RunFolder(tmp_path / "run").settings()
    guess = training_mb(config.model, config.training, config.training.processes)
    assert peak / 2 < guess < 2 * peak


def test_a_model_that_no_memory_holds_is_refused_before_it_is_built(tmp_path, capsys):
    path = tmp_path / "run"
    settings = ["d_model=131072", "n_heads=8", "n_layers=8", "d_ff=8"]
    assert main(["train", "copy", "--out", str(path), "--set", *settings]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "GB, this machine's memory" in err and "got 26 TB" in err
    assert not path.exists()


def test_a_batch_that_will_not_fit_is_said_at_the_beginning(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(mt.runs.trainer, "memory_mb", lambda: 20.0)
    settings = ["steps=1", "warmup_steps=1", "d_model=8", "d_ff=8", "test_size=2"]
    assert main(["train", "copy", "--out", str(tmp_path / "run"), "--set", *settings]) == 0
    first, second, *_ = capsys.readouterr().err.splitlines()
    assert " MB of memory, run folder" in first and second.startswith(
        "this machine has 20 MB; a smaller batch_tokens"
    )


def test_where_the_system_does_not_say_nothing_is_refused(monkeypatch):
    monkeypatch.setattr(estimate, "memory_mb", lambda: None)
    estimate.require_memory(mt.TransformerConfig.base(d_model=2**18), mt.TrainingConfig())


@pytest.mark.parametrize(
    ("mb", "words"),
    [
        (0.55, "0.6 MB"),
        (152, "150 MB"),
        (994, "990 MB"),
        (996, "1.0 GB"),
        (23_456, "23 GB"),
        (9e9, "9,000 TB"),
    ],
)
def test_two_digits_are_enough(mb, words):
    assert in_words(mb) == words
