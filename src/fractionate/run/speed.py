"""How fast the local models of a run are, measured once and kept in the run's folder: what their machine time costs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from fractionate.analysis.pricing import Pricing
from fractionate.errors import UsageError
from fractionate.files import write_text
from fractionate.run.folder import RunFolder
from fractionate.run.run import Run
from fractionate.types import Throughput


def measure_speed(run: Run) -> None:
    """Measure every local base model whose machine has a price, unless this folder holds its throughput already."""
    known = read_speed(run.folder)
    asked = [component.model for pair in run.pairs() for component in (pair.decomposer, pair.solver)]
    wanted = [name for name in Pricing.of(run.config).machines(asked) if name not in known]
    if not wanted:
        return
    from fractionate.models.local.model import LocalModel
    from fractionate.models.local.throughput import measure_throughput

    models = [LocalModel(name, run.config.options(name)) for name in wanted]
    found = dict(zip(wanted, measure_throughput(models, say=run.progress.step), strict=True))
    for name, one in found.items():
        run.progress.stage(
            f"speed of {name}: {min(one.output_per_s):,.0f}–{max(one.output_per_s):,.0f} tokens/s written"
        )
    _write_speed(run.folder, {**known, **found})


def read_speed(folder: RunFolder) -> dict[str, Throughput]:
    """Return the throughput of local models by name, as far as it was measured in this folder."""
    try:
        table = json.loads(folder.throughput.read_text(encoding="utf-8"))
        return {name: _throughput(fields) for name, fields in table.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UsageError(f"{folder.throughput} cannot be read ({error}): delete it and evaluate again") from None


def _write_speed(folder: RunFolder, speeds: Mapping[str, Throughput]) -> None:
    table = {name: asdict(speed) for name, speed in speeds.items()}
    write_text(json.dumps(table, ensure_ascii=False, indent=1) + "\n", folder.throughput, private=True)


def _throughput(fields: Mapping[str, Any]) -> Throughput:
    rates = {key: tuple(float(rate) for rate in fields[key]) for key in ("input_per_s", "output_per_s")}
    if not all(each and all(rate > 0 for rate in each) for each in rates.values()):
        raise ValueError("a rate must be above 0")
    return Throughput(**{**fields, **rates})
