"""How long the attacks go on: once through in the suite, FRACTIONATE_ATTACKS times as much in benchmarks/attacks.py."""

from __future__ import annotations

import os

TIMES = max(1, int(os.environ.get("FRACTIONATE_ATTACKS", "1")))
