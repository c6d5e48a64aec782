"""Length of the attacks: once in the suite, N times as long with FRACTIONATE_ATTACKS=N."""

from __future__ import annotations

import os

TIMES = max(1, int(os.environ.get("FRACTIONATE_ATTACKS", "1")))
