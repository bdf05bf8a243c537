"""The progress of a check: nothing for a short one, an estimate and then the share that is done for a long one."""

from __future__ import annotations

import numpy as np
import pytest
from gradcheck_layers import Layer, x

import minitransformer as mt
from minitransformer.gradcheck import progress
from minitransformer.gradcheck.progress import Progress, readable


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which the test sets."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    return now


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_a_short_check_says_nothing(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    short = Progress(99, 0.1)
    for _ in range(99):
        clock[0] += 0.1
        short.step()
    assert said(capsys) == []


def test_a_long_check_says_how_long_it_will_take_and_how_far_it_is(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    long = Progress(1000, 0.3)
    assert said(capsys) == ["gradcheck: forward runs about 1,000 times, in about 5 minutes"]
    for _ in range(99):
        clock[0] += 0.1
        long.step()
    assert said(capsys) == []
    clock[0] += 2.1
    long.step()
    assert said(capsys) == ["gradcheck: 10% done, about 108 seconds left"]
    long.step()
    assert said(capsys) == []
    long.done, clock[0] = 5000, 1300.0
    long.step()
    assert said(capsys) == ["gradcheck: looks again at numbers in doubt"]


def test_what_takes_just_ten_seconds_is_said(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    long = Progress(10, 1.0)
    assert said(capsys) == ["gradcheck: forward runs about 10 times, in about 10 seconds"]
    clock[0] += 10
    long.step()
    assert said(capsys) == ["gradcheck: 10% done, about 90 seconds left"]


def test_after_as_many_evaluations_as_expected_no_time_is_said_to_be_left(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    check = Progress(2, 1.0)
    for line in ("50% done, about 20 seconds left", *2 * ["looks again at numbers in doubt"]):
        clock[0] += 20
        check.step()
        assert said(capsys) == [f"gradcheck: {line}"]


def test_durations_are_rounded_to_their_units() -> None:
    assert [readable(s) for s in (0.4, 119.4, 120, 7199, 7200, 36000)] == [
        "0 seconds", "119 seconds", "2 minutes", "120 minutes", "2 hours", "10 hours"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("how", "runs"),
    [
        ({"method": "central"}, 48),
        ({"method": "complex"}, 12),
        ({"method": "central", "directional": True}, 14),
        ({"method": "complex", "directional": True}, 18),
    ],
)
def test_the_estimate_counts_the_evaluations_of_the_method(
    how: dict, runs: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LONG", 0.0)
    assert mt.gradcheck(Layer(np.sin, np.cos), x(3, 4), **how).ok
    first, *others = said(capsys)
    assert first == f"gradcheck: forward runs about {runs} times, in about 0 seconds"
    again = [line for line in others if line == "gradcheck: looks again at numbers in doubt"]
    assert len(others) >= runs and all(" done, about " in line for line in others if line not in again)
    if "directional" in how:
        assert len(others) == runs
