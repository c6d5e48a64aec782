"""A batch of rows under way on OpenVINO, a runtime of compiled kernels for CPUs (extra `fast`).

Sums are made in fp32, so its words are nearly always those of torch where weights come in f16. Eight bits are faster
still, and often choose another of two likely words. See docs/experiments/local-runtimes.md for what was measured, and
for the runtimes that were not taken.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from fractionate.errors import FractionateError, UsageError, missing_extra
from fractionate.models.local.gguf_file import why_no_gguf, write_gguf
from fractionate.models.local.rows import Prompt, Row
from fractionate.models.local.weights import Weights, cache_folder

KINDS = {"openvino": "f16", "openvino-int8": "q8_0"}
"""How each runtime's weights are written."""
WRITING = 1
"""Raised whenever the file written for OpenVINO changes, so that an older cached one is not taken for the new one."""


def require_openvino(weights: Weights, config: Any, tokenizer: Any, device: str) -> None:
    """Raise UsageError unless OpenVINO is installed and can run these weights."""
    for package in ("openvino_genai", "gguf"):
        if importlib.util.find_spec(package) is None:
            raise missing_extra(package, "fast", "a runtime of OpenVINO")
    if device.startswith("cuda"):
        raise UsageError(f"OpenVINO runs on the CPU, not on {device!r}: leave out the device or the runtime")
    if reason := why_no_gguf(config, tokenizer):
        raise UsageError(f'OpenVINO cannot run {weights.name} here: it has {reason}; runtime = "torch" can')


def quiet_openvino() -> Any:
    """Import OpenVINO without its telemetry, which would tell its maker's server of every import."""
    # A module that cannot be imported: OpenVINO then takes a stub of its own that sends nothing.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None is how Python spells that
    import openvino_genai

    return openvino_genai


class OpenVinoBatch:
    """Rows that OpenVINO's scheduler writes together. `eos_ids` are the token ids that end a reply.

    Greedy rows do not depend on their neighbours, up to the rounding of floating point sums, and sampled ones are drawn
    from the row's own seed. `threads` are the cores used at most; 0 takes all that this process may use.
    """

    may_join = True

    def __init__(self, file: Path, eos_ids: Collection[int], threads: int = 0) -> None:
        self.rows: list[Row] = []
        self._handles: list[Any] = []
        self._eos_ids = frozenset(eos_ids)
        self._pipeline = _pipeline(file, threads or usable_threads())

    def join(self, rows: Sequence[Row]) -> None:
        """Hand the prompts of new rows over; they are read with the next token."""
        handles: list[Any] = []
        try:
            for row in rows:
                handles.append(self._pipeline.add(row.prompt))
        except BaseException:
            for handle in handles:
                handle.stop()
            raise
        self.rows += rows
        self._handles += handles

    def step(self) -> None:
        """Write one token on every row whose prompt is read."""
        self._leave()
        self._pipeline.step()
        for row, handle in zip(self.rows, self._handles, strict=True):
            tokens = self._pipeline.read(handle)
            for token in tokens:
                row.take(token, self._eos_ids)
            if not tokens and not row.ended and not self._pipeline.goes_on(handle):
                raise FractionateError("OpenVINO gave up a reply: it may have had too little memory")
        self._leave()

    def drop(self) -> None:
        """Drop all rows."""
        for row in self.rows:
            row.ended = True
        self._leave()

    def _leave(self) -> None:
        going = []
        for row, handle in zip(self.rows, self._handles, strict=True):
            if row.ended:
                handle.stop()
            else:
                going.append((row, handle))
        stopped = len(going) < len(self.rows)
        self.rows, self._handles = [row for row, _ in going], [handle for _, handle in going]
        if stopped and not going:
            self._pipeline.step()  # what was stopped leaves memory at the next token, and nobody here writes one


def usable_threads() -> int:
    """Return how many threads to run: OMP_NUM_THREADS as for torch, else one for each core that may be used."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Pipeline:
    """OpenVINO's scheduler over one model. Several batches may use it: a step of one generates for all."""

    def __init__(self, file: Path, threads: int) -> None:
        openvino_genai = quiet_openvino()
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.enable_prefix_caching = False  # what was read for another row would change sums, and so words
        exact = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f16", "INFERENCE_NUM_THREADS": threads}
        try:
            self._scheduler = openvino_genai.ContinuousBatchingPipeline(str(file), scheduler, "CPU", exact)
        except Exception as error:  # what the runtime makes of a file has no class of its own
            words = " ".join(str(error).split())[:200] or type(error).__name__
            raise FractionateError(f'OpenVINO cannot load {file} ({words}): runtime = "torch" does without') from None
        self._turn = threading.Lock()
        self._asked = 0

    def add(self, prompt: Prompt) -> Any:
        import numpy as np

        openvino_genai = quiet_openvino()
        import openvino

        config = openvino_genai.GenerationConfig()
        # Ends are looked for in `Row.take`, where they are for every runtime.
        config.max_new_tokens, config.ignore_eos = prompt.max_tokens, True
        config.do_sample = prompt.temperature > 0
        if config.do_sample:
            config.temperature, config.rng_seed = prompt.temperature, prompt.seed
        tokens = openvino.Tensor(np.array([list(prompt.tokens)], dtype=np.int64))
        with self._turn:
            self._asked += 1
            return self._scheduler.add_request(self._asked, tokens, config)

    def step(self) -> None:
        with self._turn:
            if self._scheduler.has_non_finished_requests():
                self._scheduler.step()

    def read(self, handle: Any) -> list[int]:
        with self._turn:
            outputs = [output for _, output in sorted(handle.read().items())] if handle.can_read() else []
        return [int(token) for output in outputs for token in output.generated_ids]

    def goes_on(self, handle: Any) -> bool:
        openvino_genai = quiet_openvino()
        return bool(handle.get_status() == openvino_genai.GenerationStatus.RUNNING)


@lru_cache(maxsize=4)
def _pipeline(file: Path, threads: int) -> _Pipeline:
    return _Pipeline(file, threads)


def unload_openvino() -> None:
    """Unload all models."""
    _pipeline.cache_clear()


def is_proven(weights: Weights) -> bool:
    """Whether OpenVINO is installed, and `doctor --prepare` has found a base's replies on it equal to those on torch.

    A student is judged by its base: merging an adapter changes numbers, not the computation.
    """
    installed = all(importlib.util.find_spec(package) for package in ("openvino_genai", "gguf"))
    return installed and proof_file(weights).is_file()


def proof_file(weights: Weights) -> Path:
    """Return the file that exists where a base's replies were found equal, for this version of OpenVINO."""
    from importlib.metadata import version

    found = version("openvino-genai")
    return cache_folder() / "weights" / f"{weights.fingerprint}-{WRITING}-{found}.alike"


def openvino_file(weights: Weights, load: Callable[[], Any], tokenizer: Any, kind: str = "f16") -> Path:
    """Return the cached file that OpenVINO reads of these weights, writing it from `load()`'s model if need be.

    The adapter is merged in. `kind` is one of the values of `KINDS`: about two bytes per parameter, or one. Safe with
    several processes at once. Raises FractionateError where it cannot be written.
    """
    home = cache_folder() / "weights"
    name = weights.name.replace("/", "--").removesuffix(".gguf").strip("-")[-80:]
    target = home / f"{name}-{weights.fingerprint}{weights.adapter_fingerprint}-{WRITING}.{kind}.gguf"
    if target.is_file():
        return target
    temporary: Path | None = None
    try:
        home.mkdir(parents=True, exist_ok=True)
        handle, path = tempfile.mkstemp(prefix=".writing-", suffix=".gguf", dir=home)
        os.close(handle)
        temporary = Path(path)
        write_gguf(load(), tokenizer, weights.name, temporary, kind, more=lambda file: file.add_add_bos_token(False))
        temporary.replace(target)
    except OSError as error:
        raise FractionateError(f"cannot write {target}: {error.strerror} (set FRACTIONATE_CACHE)") from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return target
