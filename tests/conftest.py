"""Hypothesis profiles: `quick` for everyone, `thorough` (HYPOTHESIS_PROFILE=thorough) for CI, `fuzz` for tests/fuzz."""

import os

if (
    "PYTEST_XDIST_WORKER" in os.environ
):  # one of several processes (pytest -n), each with one thread for products
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from hypothesis import HealthCheck, Phase, settings

settings.register_profile(
    "quick", max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.register_profile("thorough", parent=settings.get_profile("quick"), max_examples=30)
settings.register_profile("fuzz", parent=settings.get_profile("quick"), max_examples=1000)
settings.register_profile(  # for tests/mutation: the same few examples each time; what fails is not made smaller
    "mutation",
    parent=settings.get_profile("quick"),
    max_examples=3,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))
