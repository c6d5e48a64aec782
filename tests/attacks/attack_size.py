"""How long the attacks go on: once through in the suite, N times as much where FRACTIONATE_ATTACKS=N."""

from __future__ import annotations

import os

TIMES = max(1, int(os.environ.get("FRACTIONATE_ATTACKS", "1")))
