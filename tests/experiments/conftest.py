"""Puts the folders of the experiment scripts on the import path."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
for folder in ("docs/experiments", "docs/experiments/gpu", "benchmarks"):
    sys.path.insert(0, str(ROOT / folder))
