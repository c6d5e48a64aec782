"""`local:` models: weights on this machine, run on torch or OpenVINO, with or without a LoRA adapter.

Making a `LocalModel` checks that the weights are there (and, for OpenVINO, their architecture). They are loaded at the
first batch, once for all models of the same weights, and unloaded, the least recently used first, when several would
not fit in memory.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from fractionate.config import ModelOptions
from fractionate.errors import FractionateError, UsageError
from fractionate.models.base import BatchModel
from fractionate.models.local.chat import end_of_turn, render
from fractionate.models.local.rows import Prompt, Reply, Row, RowBatch, share_groups
from fractionate.models.local.weights import SMOLLM2, Weights, quiet_transformers, resolve
from fractionate.types import Completion, Request, Usage

RESIDENT_BYTES = 3 << 29
"""Weights kept loaded at most, beyond the model in use: a base and some students of SmolLM2's size."""
CACHE_BYTES = {"cpu": 1 << 29, "cuda": 8 << 30}
"""Memory that one batch's keys and values may take, by device."""
ELEMENT_BYTES = {"cpu": 4, "cuda": 2}
"""Bytes of a number, by device: `load_model` loads fp32 for the CPU, bf16 for a GPU."""
TOKENS_PER_S = 60.0
"""Tokens that a small model writes per second in this process, where nothing is known."""
_WINDOW = 512
"""Requests grouped at a time by common prefix."""


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A model ready to run: base weights with the adapter merged in, in evaluation mode, on its device."""

    model: Any
    size: int


_loaded: OrderedDict[tuple[str, str, str], _Loaded] = OrderedDict()
_lock = threading.RLock()
"""One batch runs at a time: two would only share the same cores, and loading must not happen twice."""


class LocalModel(BatchModel):
    """A model over local weights. `name` is `local:HUB_ID_OR_PATH[@ADAPTER]`.

    `style` is the options', else "student" for weights that this project trained (an adapter or a `training.json` is
    there), else "instruct". `identity` holds the content's fingerprints: retrained weights at the same path are another
    model to the store. Raises UsageError if the weights, the adapter or an install is missing, or they do not fit.
    """

    def __init__(self, name: str, options: ModelOptions | None = None) -> None:
        self.options = options or ModelOptions()
        self.name = name if name.startswith("local:") else f"local:{name}"
        self.weights: Weights = resolve(self.name)
        trained = self.weights.adapter is not None or (self.weights.source / "training.json").is_file()
        self.style = self.options.style or ("student" if trained else "instruct")
        adapter = f"@{self.weights.adapter_fingerprint}" if self.weights.adapter else ""
        self._stop = threading.Event()
        if self.options.runtime == "auto":
            from fractionate.models.local.openvino import is_proven

            on_cpu = best_device(self.options.device) == "cpu"
            fastest = "openvino" if on_cpu and is_proven(self.weights) else "torch"
            self.options = self.options.model_copy(update={"runtime": fastest})
        # Runtimes round differently and may choose another of two likely tokens: to the store they are two models.
        runtime = "" if self.options.runtime == "torch" else f":{self.options.runtime}"
        self.identity = f"local:{self.weights.fingerprint}{adapter}:{self.style}{runtime}"
        if self.options.runtime != "torch":
            from fractionate.models.local.openvino import require_openvino

            require_openvino(self.weights, self._config, self._tokenizer(), self.options.device)

    def expected_seconds(self, output_tokens: float) -> float:
        """Return what a small model takes."""
        return output_tokens / TOKENS_PER_S

    def plan(self, requests: Sequence[Request]) -> list[list[int]]:
        """Cut requests into batches of positions: those with a common prefix together, then those of similar length.

        A batch has at most `batch_size` rows and keys and values of at most `CACHE_BYTES`. Longest prompts come first,
        so that what does not fit in memory fails at once. Loads the tokenizer, not the weights.
        """
        prompts = [self._tokens(request) for request in requests]
        order = sorted(range(len(requests)), key=lambda position: prompts[position])
        groups: list[list[int]] = []
        for start in range(0, len(order), _WINDOW):
            window = order[start : start + _WINDOW]
            groups += [[window[at] for at in members] for _, members in share_groups([prompts[at] for at in window])]
        groups.sort(key=lambda members: -max(len(prompts[at]) for at in members))
        limit, context = self.batch_tokens, self._context
        batches: list[list[int]] = []
        longest = 0
        for at in (at for members in groups for at in members):
            length = min(len(prompts[at]) + requests[at].max_tokens, max(len(prompts[at]), context))
            fits = batches and (len(batches[-1]) + 1) * max(longest, length) <= limit
            if fits and len(batches[-1]) < self.options.batch_size:
                batches[-1].append(at)
                longest = max(longest, length)
            else:
                batches.append([at])
                longest = length
        return batches

    def complete_batch(self, requests: Sequence[Request]) -> list[Completion]:
        """Answer requests as one batch, in order. May be called from any thread; batches run one after another."""
        with _lock:
            self._stop.clear()
            return self._complete(requests)

    def interrupt(self) -> None:
        """Ask the running batch to stop at its next token; `complete_batch` then raises FractionateError."""
        self._stop.set()

    @property
    def folder(self) -> Path:
        """The base's folder (converting it from GGUF first, where that was not done yet)."""
        return self.weights.folder()

    @property
    def batch_tokens(self) -> int:
        """How many tokens' keys and values fit into the memory that one batch may take: rows × the longest row."""
        device = best_device(self.options.device).partition(":")[0]
        with _readable(f"the model config in {self.folder} cannot be used", trust=True):
            return CACHE_BYTES[device] // _cache_bytes_per_token(self._config, device)

    @property
    def _config(self) -> Any:
        return load_config(self.folder, self.options.trust_remote_code)

    @property
    def _context(self) -> int:
        """How many tokens, prompt and reply together, the model takes."""
        return int(getattr(self._config, "max_position_embeddings", 0) or 1 << 30)

    def _tokens(self, request: Request) -> list[int]:
        return render(self._tokenizer(), request.messages, self.style)

    def _tokenizer(self) -> Any:
        return load_tokenizer(self.folder, self.options.trust_remote_code)

    def prompt(self, request: Request) -> Prompt | Completion:
        """Return a request's prompt, or the completion that says that it does not fit the context."""
        tokens = self._tokens(request)
        room = self._context - len(tokens)
        if room <= 0:
            error = f"prompt of {len(tokens)} tokens does not fit the model's {self._context}"
            return Completion("", "error", error=error)
        # `max_tokens` may be more than there is room for: the reply then ends where the context does. The key tells
        # model, prompt and sample number apart: so does the seed made of it, whatever the batch.
        seed = int(self.key(request)[:16], 16)
        return Prompt(tokens, min(request.max_tokens, room), request.temperature, seed, request.stop)

    def row(self, prompt: Prompt) -> Row:
        """Return a row for a prompt."""
        return Row(prompt, self._tokenizer())

    def open_batch(self, threads: int = 0, eos_ids: Collection[int] | None = None) -> RowBatch:
        """Load the weights and return an empty batch, which rows join as they come.

        `threads` bounds the cores that OpenVINO uses; torch has a bound of its own for the process. `eos_ids` are the
        token ids that end a reply, the model's own if None.
        """
        trust = self.options.trust_remote_code
        eos_ids = eos_ids_in(self.folder, trust) if eos_ids is None else eos_ids
        with _lock:
            if self.options.runtime != "torch":
                from fractionate.models.local.openvino import KINDS, OpenVinoBatch, openvino_file

                def load() -> Any:
                    return load_model(self.weights, "cpu", exact=True, trust=trust)

                file = openvino_file(self.weights, load, self._tokenizer(), KINDS[self.options.runtime])
                return OpenVinoBatch(file, eos_ids, threads)
            from fractionate.models.local.batch import Batch

            return Batch(_load(self.weights, best_device(self.options.device), trust), eos_ids)

    def _complete(self, requests: Sequence[Request]) -> list[Completion]:
        read = [self.prompt(request) for request in requests]
        batch = [prompt for prompt in read if isinstance(prompt, Prompt)]
        rows = self.open_batch()
        started = time.perf_counter()
        replies = iter(_generate(rows, self._tokenizer(), batch, self._stop.is_set))
        seconds = time.perf_counter() - started
        return [
            completion_of(next(replies), prompt, seconds, seconds / len(batch))
            if isinstance(prompt, Prompt)
            else prompt
            for prompt in read
        ]


def count_tokens(texts: Sequence[str], model: str = SMOLLM2) -> list[int]:
    """Return how many tokens each text has by a local model's tokenizer; loads no weights.

    For recorded outputs that came without usage. Without the `local` extra: raises UsageError.
    """
    tokenizer = load_tokenizer(resolve(model).folder())
    return [len(ids) for ids in tokenizer(list(texts), add_special_tokens=False).input_ids] if texts else []


def unload() -> None:
    """Unload all weights."""
    with _lock:
        _loaded.clear()
        if "fractionate.models.local.openvino" in sys.modules:
            from fractionate.models.local.openvino import unload_openvino

            unload_openvino()


@lru_cache(maxsize=8)
def load_tokenizer(folder: Path, trust: bool = False) -> Any:
    """Return the tokenizer of a model folder; the folder's own code runs only on `trust`.

    Raises UsageError if there is none that can be read.
    """
    from transformers import AutoTokenizer

    with _readable(f"no tokenizer can be read in {folder}", trust):
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust)


@lru_cache(maxsize=8)
def load_config(folder: Path, trust: bool = False) -> Any:
    """Return the config of a model folder (of its language model). Raises UsageError if it cannot be read."""
    from transformers import AutoConfig

    with _readable(f"no model config can be read in {folder}", trust):
        return AutoConfig.from_pretrained(folder, trust_remote_code=trust).get_text_config(decoder=True)


def best_device(wanted: str) -> str:
    """Return `wanted`, or the GPU if there is one, else the CPU. Raises UsageError for a device that is not there."""
    import torch

    if wanted and wanted != "cpu" and not wanted.startswith("cuda"):
        raise UsageError(f"no device {wanted!r}: a local model runs on 'cpu' or 'cuda[:N]'")
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"device {wanted!r} is not there: this install of torch sees no GPU (device = 'cpu')")
    return wanted or ("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def _readable(refusal: str, trust: bool) -> Iterator[None]:
    """Turn any error of transformers about a folder into one line."""
    try:
        with quiet_transformers():
            yield
    except FractionateError:
        raise
    except Exception as error:  # the errors that damaged files cause have no common class
        if not trust and "trust_remote_code" in str(error):
            fix = "it wants to run code of its own, which trust_remote_code = true in its options allows"
            raise UsageError(f"{refusal}: {fix}; do so only if you trust it") from None
        raise UsageError(f"{refusal}: {_first_line(error)}") from None


def _cache_bytes_per_token(config: Any, device: str) -> int:
    """Return the bytes that one token's keys and values take in all layers: 2 · layers · heads · width numbers."""
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * width * ELEMENT_BYTES[device])


def _load(weights: Weights, device: str, trust: bool) -> Any:
    """Return the model in memory, loading it if need be. An adapter is merged into a copy: as fast as none."""
    key = (str(weights.folder()), weights.fingerprint + weights.adapter_fingerprint, device)
    if key not in _loaded:
        model = load_model(weights, device, trust=trust)
        size = sum(tensor.numel() * tensor.element_size() for tensor in model.parameters())
        while _loaded and size + sum(other.size for other in _loaded.values()) > RESIDENT_BYTES:
            _loaded.popitem(last=False)
        _loaded[key] = _Loaded(model, size)
    _loaded.move_to_end(key)
    return _loaded[key].model


def load_base(weights: Weights, device: str, trust: bool = False) -> tuple[Any, Any]:
    """Return the base model, in memory and ready to run, and its tokenizer; an adapter is left out."""
    base = Weights(weights.name, weights.source, weights.fingerprint)
    return _load(base, device, trust), load_tokenizer(weights.folder(), trust)


def load_model(
    weights: Weights, device: str, exact: bool = False, trust: bool = False, loading: Mapping[str, Any] | None = None
) -> Any:
    """Load weights, fp32 on the CPU or if `exact`, else bf16, the adapter merged in. Raises FractionateError.

    `loading` replaces the arguments that `from_pretrained` gets by default.
    """
    import torch
    from transformers import AutoModelForCausalLM

    dtype = torch.bfloat16 if device.startswith("cuda") and not exact else torch.float32
    what = f"{weights.name}@{weights.adapter}" if weights.adapter else weights.name
    with _readable(f"the weights of {what} cannot be loaded", trust):
        how = loading or {"dtype": dtype}
        model = AutoModelForCausalLM.from_pretrained(weights.folder(), trust_remote_code=trust, **how)
        if weights.adapter is not None:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, str(weights.adapter)).merge_and_unload()
        return model.to(device).eval()


def _generate(rows: RowBatch, tokenizer: Any, batch: Sequence[Prompt], stopped: Callable[[], bool]) -> list[Reply]:
    """Generate; a batch too large for the GPU's memory is halved until it fits."""
    import torch

    from fractionate.models.local.rows import run_to_end

    try:
        return run_to_end(rows, [Row(prompt, tokenizer) for prompt in batch], stopped)
    except torch.OutOfMemoryError:
        rows.drop()
        if len(batch) < 2:
            raise FractionateError("one prompt alone is too large for the GPU's memory: use a smaller model") from None
    torch.cuda.empty_cache()
    middle = len(batch) // 2
    halves = batch[:middle], batch[middle:]
    return [reply for half in halves for reply in _generate(rows, tokenizer, half, stopped)]


@lru_cache(maxsize=8)
def eos_ids_in(folder: Path, trust: bool = False) -> frozenset[int]:
    """Return the ids that end a reply: the template's end of turn and what the model's generation config names."""
    from transformers import GenerationConfig

    with _readable(f"no generation config can be read in {folder}", trust):
        if (folder / "generation_config.json").is_file():
            configured = GenerationConfig.from_pretrained(folder).eos_token_id
        else:
            configured = getattr(load_config(folder, trust), "eos_token_id", None)
    return _with_end_of_turn(configured, load_tokenizer(folder, trust))


def eos_ids_of(model: Any, tokenizer: Any) -> frozenset[int]:
    """Return the same for a model in memory."""
    return _with_end_of_turn(getattr(model.generation_config, "eos_token_id", None), tokenizer)


def _with_end_of_turn(configured: Any, tokenizer: Any) -> frozenset[int]:
    eos_ids = configured if isinstance(configured, list) else [configured] if configured is not None else []
    return frozenset({end_of_turn(tokenizer), *eos_ids})


def completion_of(reply: Reply, prompt: Prompt, seconds: float, compute_s: float) -> Completion:
    """Return a reply as a completion that took so many wall seconds, and so many of the machine's."""
    usage = Usage(
        calls=1,
        input_tokens=len(prompt.tokens),
        cached_input_tokens=reply.shared,
        output_tokens=reply.generated,
        compute_s=compute_s,
    )
    return Completion(reply.text, reply.finish_reason, usage, latency_s=seconds)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
