"""Hypothesis always draws the same examples here: set HYPOTHESIS_PROFILE=nightly for new ones."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "ci", derandomize=True, deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("nightly", deadline=None, max_examples=2000)
settings.register_profile(
    "few", settings.get_profile("ci"), max_examples=8
)  # where a failure is likely and must be quick
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
