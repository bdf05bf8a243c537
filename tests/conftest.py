"""Hypothesis profiles: `quick` for everyone, `thorough` (HYPOTHESIS_PROFILE=thorough) for CI."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "quick", max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.register_profile("thorough", parent=settings.get_profile("quick"), max_examples=50)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))
