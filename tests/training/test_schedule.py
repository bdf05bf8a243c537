"""§5.3, equation 3, and the cosine that is not in the paper."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import minitransformer as mt
from minitransformer.training.schedule import cosine_schedule, learning_rate, noam_schedule


@pytest.mark.parametrize(
    ("step", "d_model", "warmup_steps", "expected"),
    [
        (1, 512, 4000, 1.7469281074217108e-07),  # 512^-0.5 · 4000^-1.5
        (4000, 512, 4000, 6.987712429686843e-04),  # (512 · 4000)^-0.5, the paper's peak
        (16000, 512, 4000, 3.4938562148434214e-04),  # four times as late, half as high
        (25, 64, 100, 0.003125),  # 1/8 · 25 / 1000
        (100, 64, 100, 0.0125),  # 1/8 · 1/10
        (400, 64, 100, 0.00625),  # 1/8 · 1/20
    ],
)
def test_noam_has_the_values_of_equation_3(step, d_model, warmup_steps, expected):
    assert mt.noam_schedule(step, d_model=d_model, warmup_steps=warmup_steps) == pytest.approx(
        expected, rel=1e-12
    )


def test_the_papers_warm_up_is_the_default():
    assert mt.noam_schedule(17, d_model=512) == mt.noam_schedule(17, d_model=512, warmup_steps=4000)
    assert mt.noam_schedule(17, 512) == pytest.approx(17 * mt.noam_schedule(1, 512), rel=1e-12)


@given(st.integers(1, 2000), st.integers(1, 300))
def test_noam_peaks_at_the_end_of_the_warm_up(d_model, warmup_steps):
    rates = [noam_schedule(step, d_model, warmup_steps) for step in range(1, 3 * warmup_steps + 2)]
    assert rates.index(max(rates)) + 1 == warmup_steps
    assert max(rates) == pytest.approx(1 / math.sqrt(d_model * warmup_steps), rel=1e-12)
    rising, falling = rates[:warmup_steps], rates[warmup_steps - 1 :]
    assert all(a < b for a, b in itertools.pairwise(rising))
    assert all(a > b > 0 for a, b in itertools.pairwise(falling))


@given(st.floats(1e-6, 1.0), st.integers(1, 50), st.integers(1, 150))
def test_cosine_rises_in_a_straight_line_and_falls_to_zero(peak, warmup_steps, more):
    steps = warmup_steps + more
    rates = [cosine_schedule(step, peak, warmup_steps, steps) for step in range(1, steps + 2)]
    assert rates[:warmup_steps] == pytest.approx([peak * (i + 1) / warmup_steps for i in range(warmup_steps)])
    falling = rates[warmup_steps - 1 :]  # from the peak to the step after the run
    assert all(a > b for a, b in itertools.pairwise(falling))
    assert falling[0] == pytest.approx(peak) and falling[-1] == pytest.approx(0, abs=1e-15) and rates[-2] > 0
    mirrored = [peak - rate for rate in reversed(falling)]  # half a cosine is point-symmetric
    assert falling == pytest.approx(mirrored, rel=1e-9, abs=1e-12 * peak)
    third = [rate for i, rate in enumerate(falling) if 3 * i == len(falling) - 1]
    assert third == pytest.approx([0.75 * peak] * len(third))  # cos 60° = 1/2


def test_the_cosine_falls_to_the_last_rate_and_is_a_smaller_cosine_above_it():
    lower, higher = (
        [cosine_schedule(i, peak, 5, 30, last) for i in range(1, 32)]
        for peak, last in ((0.4, 0.0), (0.5, 0.1))
    )
    assert (
        higher[-1] == pytest.approx(0.1)
        and higher[4] == 0.5
        and higher[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    )
    assert higher[4:] == pytest.approx([0.1 + lr for lr in lower[4:]])
    config = mt.TrainingConfig(
        schedule="cosine", steps=99, warmup_steps=20, learning_rate=0.02, last_learning_rate=0.005
    )
    assert learning_rate(60, 64, config) == pytest.approx(0.0125, rel=1e-12)


def test_a_run_of_cosine_may_be_all_warm_up():
    """The last step is then the peak."""
    assert [cosine_schedule(step, 0.5, 2, 2) for step in (1, 2)] == [0.25, 0.5]


def test_learning_rate_follows_the_settings():
    noam = mt.TrainingConfig(warmup_steps=40)
    assert learning_rate(13, 64, noam) == pytest.approx(64**-0.5 * 13 * 40**-1.5, rel=1e-12)
    scaled = mt.TrainingConfig(warmup_steps=40, learning_rate=0.02)
    assert learning_rate(40, 64, scaled) == pytest.approx(0.02, rel=1e-12)
    assert learning_rate(160, 64, scaled) == pytest.approx(0.01, rel=1e-12)
    assert learning_rate(10, 64, scaled) == pytest.approx(0.005, rel=1e-12)
    cosine = mt.TrainingConfig(schedule="cosine", steps=99, warmup_steps=20, learning_rate=0.02)
    assert learning_rate(5, 64, cosine) == pytest.approx(0.005, rel=1e-12)
    assert learning_rate(20, 64, cosine) == pytest.approx(0.02, rel=1e-12)
    assert learning_rate(60, 64, cosine) == pytest.approx(0.01, rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 512), "step: expected 1 or more, since steps count from 1, got 0"),
        ((-1, 512), "step: expected 1 or more, since steps count from 1, got -1"),
        ((1.5, 512), "step: expected 1 or more, since steps count from 1, got 1.5"),
        ((1, 0), "d_model: expected an integer, 1 or more, got 0"),
        ((1, "8"), "d_model: expected an integer, 1 or more, got '8'"),
        ((1, 8, 0), "warmup_steps: expected an integer, 1 or more, got 0"),
        ((1, 8, None), "warmup_steps: expected an integer, 1 or more, got None"),
    ],
)
def test_what_is_no_count_is_refused(arguments, message):
    with pytest.raises(mt.InputError) as raised:
        noam_schedule(*arguments)
    assert str(raised.value) == message


def test_the_cosine_does_not_rise_again_after_the_last_step() -> None:
    assert [cosine_schedule(step, 1.0, 10, 100, 0.25) for step in (101, 150, 300)] == [0.25] * 3


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ((-1, 100), "warmup_steps: expected an integer, 0 or more, got -1"),
        (("10", 100), "warmup_steps: expected an integer, 0 or more, got '10'"),
        ((10, 9), "steps: expected warmup_steps=10 or more, got 9"),
        ((10, 99.5), "steps: expected warmup_steps=10 or more, got 99.5"),
    ],
)
def test_a_cosine_that_ends_before_its_warm_up_is_refused(counts, message) -> None:
    with pytest.raises(mt.InputError) as raised:
        cosine_schedule(3, 1.0, *counts)
    assert str(raised.value) == message


@pytest.mark.parametrize("step", [0, -1, 1.5])
def test_a_step_before_the_first_is_refused_by_the_cosine(step) -> None:
    with pytest.raises(mt.InputError, match="step: expected 1 or more"):
        cosine_schedule(step, 1.0, 0, 100)
