"""How many examples property tests draw: always the same ones in a test run, many more and new ones when fuzzing.

`HYPOTHESIS_PROFILE=fuzz` (`make fuzz`) chooses the second.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

EXAMPLES = 200
FUZZ_FACTOR = 50

# Examples are never timed: a busy machine would fail them.
_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]}


def load() -> None:
    """Make the profile that the environment names the one of all property tests."""
    settings.register_profile("test", max_examples=EXAMPLES, derandomize=True, database=None, **_COMMON)
    settings.register_profile("fuzz", max_examples=EXAMPLES * FUZZ_FACTOR, print_blob=True, **_COMMON)
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "test"))


def examples(count: int) -> settings:
    """A decorator for a property whose examples are slow: so many in a test run, more when fuzzing.

    Args:
        count: Examples in a test run.
    """
    return settings(max_examples=count * (FUZZ_FACTOR if settings().max_examples > EXAMPLES else 1))
