"""Makes the worlds beside the tests importable under their own name, and frees Hypothesis from the clock."""

import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))

# A busy machine is no finding: what must be fast is measured by `make bench`. In CI the draws are the same every time.
settings.register_profile("house", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")
