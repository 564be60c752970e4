"""How thoroughly Hypothesis looks; ``python3 ci/task.py fuzz`` asks for more than the tests do."""

import os

from hypothesis import HealthCheck, settings

# Timing belongs to the machine: a slow example is no wrong example.
settings.register_profile("test", deadline=None)
settings.register_profile(
    "fuzz",
    deadline=None,
    max_examples=int(os.environ.get("REMOTE_GYM_FUZZ_EXAMPLES", "5000")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("test")
