"""Hypothesis profiles: `quick` for everyone, `thorough` (HYPOTHESIS_PROFILE=thorough) for CI, `fuzz` for tests/fuzz."""

import os

from hypothesis import HealthCheck, Phase, settings

settings.register_profile(
    "quick", max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.register_profile("thorough", parent=settings.get_profile("quick"), max_examples=50)
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
