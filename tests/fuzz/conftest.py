"""Hypothesis for this folder: the same examples in every run, unless script/fuzz asks for more."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_EVERYWHERE = {
    "deadline": None,
    "database": None,
    "suppress_health_check": list(HealthCheck),
    "print_blob": True,
}

settings.register_profile("fuzz-ci", derandomize=True, **_EVERYWHERE)
settings.register_profile("fuzz-long", derandomize=False, **_EVERYWHERE)
settings.load_profile("fuzz-long" if "FUZZ_FACTOR" in os.environ else "fuzz-ci")
