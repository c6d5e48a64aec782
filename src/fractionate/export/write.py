"""An export from beginning to end: written beside its place, checked there, and moved there whole or not at all.

Hugging Face folders hold a student merged into its base, or its adapter alone. A finished export can be pushed to the
hub by the hub's own client; HF_ENDPOINT names another hub, HF_TOKEN holds the key.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fractionate.errors import FractionateError, UsageError, missing_extra
from fractionate.export.card import Export, card
from fractionate.export.chat_form import ChatForm, asks_alike, chat_form, modelfile
from fractionate.export.gguf import check_can_write, check_llamacpp, has_llamacpp, write_gguf
from fractionate.export.parity import PROMPTS, Parity, Reference, check_folder, check_gguf, check_tokenizer
from fractionate.export.student import Student
from fractionate.models.local.model import best_device, eos_ids_of, load_config, load_model, load_tokenizer
from fractionate.models.local.weights import quiet_transformers
from fractionate.run.records import TRAINING
from fractionate.types import Message

Kind = Literal["safetensors", "gguf", "adapter"]
KINDS: tuple[Kind, ...] = ("safetensors", "gguf", "adapter")
CONTEXT = 4096
"""Tokens of prompt and reply that Ollama makes room for, at most the model's own."""


@dataclass(frozen=True)
class Wanted:
    """What to write: the kind, how GGUF files store weights, the name, whether and on how many prompts it is checked.

    `alike` is the share of replies that must equal the student's (None: all, of q8_0 nine in ten). `license` is stated
    in the card where the base's is unknown.
    """

    kind: Kind = "safetensors"
    types: tuple[str, ...] = ("f16",)
    name: str = ""
    check: bool = True
    prompts: int = PROMPTS
    alike: float | None = None
    license: str = ""


@dataclass(frozen=True)
class Written:
    """What was written: the folder, its files, the results of the checks, and a prompt of the run to try it with."""

    folder: Path
    files: tuple[str, ...]
    parity: tuple[Parity, ...]
    example: tuple[Message, ...]


def export_student(student: Student, out: Path, wanted: Wanted, say: Callable[[str], None]) -> Written:
    """Write an export of a student to the folder `out`, which must not be there yet (or be empty).

    Raises UsageError for what cannot be written, FractionateError where writing fails or the replies differ from the
    student's. `out` is then as it was.
    """
    _check_place(out)
    tokenizer = load_tokenizer(student.weights.folder())
    form = chat_form(tokenizer)
    if wanted.kind == "gguf":
        check_can_write(load_config(student.weights.folder()), tokenizer)
    asked = student.prompts(wanted.prompts)
    if not asked:
        raise UsageError(f"{student.run.path} holds no question to check {student.name} on: run fractionate evaluate")
    with _beside(out) as fresh:
        parity = _write(student, tokenizer, form, fresh, wanted, asked, say)
        files = tuple(sorted(path.name for path in fresh.iterdir()))
        export = Export(
            student, wanted.name, wanted.kind, files, tuple(parity), len(asked), wanted.check, wanted.license
        )
        (fresh / "README.md").write_text(card(export), encoding="utf-8")
    return Written(out, (*files, "README.md"), tuple(parity), asked[0])


def _write(
    student: Student,
    tokenizer: Any,
    form: ChatForm,
    fresh: Path,
    wanted: Wanted,
    asked: Sequence[tuple[Message, ...]],
    say: Callable[[str], None],
) -> list[Parity]:
    if wanted.kind == "adapter" and not wanted.check:
        write_adapter(student, tokenizer, form, fresh)
        return []
    say(f"merging {student.name} into {student.base} in fp32")
    model = load_model(student.weights, best_device(""), exact=True)
    reference = None
    if wanted.check:
        say(f"the student answers {len(asked)} of the run's questions")
        most = student.max_tokens if wanted.kind != "adapter" else 1
        reference = Reference(model, tokenizer, asked, most, wanted.alike)
    if wanted.kind == "adapter":
        write_adapter(student, tokenizer, form, fresh)
        assert reference is not None
        check_tokenizer(reference, fresh)
        return []
    if wanted.kind == "safetensors":
        write_merged(student, model, tokenizer, form, fresh)
        return [_passed(check_folder(reference, fresh), say)] if reference else []
    return _write_ggufs(student, model, tokenizer, form, fresh, wanted, reference, say)


def _write_ggufs(
    student: Student,
    model: Any,
    tokenizer: Any,
    form: ChatForm,
    fresh: Path,
    wanted: Wanted,
    reference: Reference | None,
    say: Callable[[str], None],
) -> list[Parity]:
    parity = []
    for kind in wanted.types:
        file = fresh / f"{wanted.name}-{kind}.gguf"
        say(f"writing {file.name}")
        write_gguf(model, tokenizer, form, kind, wanted.name, file)
        if reference:
            parity.append(_passed(check_gguf(reference, file, kind), say))
            if has_llamacpp():
                parity.append(_passed(check_llamacpp(reference, file, kind), say))
    if reference and not has_llamacpp():
        say(str(missing_extra("xllamacpp", "llamacpp", "not asked through llama.cpp itself: that")))
    context = min(CONTEXT, int(getattr(model.config, "max_position_embeddings", CONTEXT)))
    first = f"{wanted.name}-{wanted.types[0]}.gguf"
    (fresh / "Modelfile").write_text(modelfile(first, form, student.max_tokens, context), encoding="utf-8")
    return parity


def _passed(parity: Parity, say: Callable[[str], None]) -> Parity:
    """Return the result of a check, and report it. Raises FractionateError where too few replies are equal."""
    if not parity.passed:
        needed = f"{parity.needed:.0%} must be alike"
        raise FractionateError(f"{parity.sentence()}: {needed}; nothing was written (--alike takes a lower share)")
    say(parity.sentence())
    return parity


def _check_place(out: Path) -> None:
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists() or out.is_symlink():
        raise UsageError(f"{out} is there already: name another folder with --out, or delete it")


@contextlib.contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """Yield a folder beside `out`, and move it there when all went well; otherwise nothing of it is left."""
    from safetensors import SafetensorError

    fresh: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
        yield fresh
        fresh.chmod(0o755)
        for file in fresh.iterdir():
            file.chmod(0o644)
        if out.is_dir():
            out.rmdir()
        fresh.rename(out)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", "") or " ".join(str(error).split())[:200]
        raise FractionateError(f"the export cannot be written to {out}: {reason}; nothing was written") from None
    finally:
        if fresh is not None:
            shutil.rmtree(fresh, ignore_errors=True)


def write_merged(student: Student, model: Any, tokenizer: Any, form: ChatForm, out: Path) -> None:
    """Write merged weights (safetensors, fp32), config, generation config, tokenizer and chat template to a folder.

    `model` is the student in memory, its adapter merged in. Its generation config is greedy,
    with the end-of-reply tokens that it was measured with.
    """
    model.generation_config = _generation(model, tokenizer)
    with quiet_transformers():
        model.save_pretrained(out)
    _remove_paths(out / "config.json")
    write_tokenizer(tokenizer, form, out)
    _write_record(student, out)


def write_adapter(student: Student, tokenizer: Any, form: ChatForm, out: Path) -> None:
    """Write the adapter, with the tokenizer and the template that serving it needs.

    Raises UsageError for a student of full training.
    """
    if student.weights.adapter is None:
        raise UsageError(f"{student.name} was trained with all its weights and has no adapter: --format safetensors")
    shutil.copyfile(student.folder / "adapter_model.safetensors", out / "adapter_model.safetensors")
    config = json.loads((student.folder / "adapter_config.json").read_text(encoding="utf-8"))
    (out / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    write_tokenizer(tokenizer, form, out)
    _write_record(student, out)


def write_tokenizer(tokenizer: Any, form: ChatForm, out: Path) -> None:
    """Write a tokenizer whose chat template renders prompts as training did: its own if it does, else the student's."""
    own = tokenizer.chat_template
    try:
        if not asks_alike(tokenizer):
            tokenizer.chat_template = form.jinja()
        tokenizer.save_pretrained(out)
    finally:
        tokenizer.chat_template = own


def _generation(model: Any, tokenizer: Any) -> Any:
    from transformers import GenerationConfig

    ends = sorted(eos_ids_of(model, tokenizer))
    pad = ends[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    return GenerationConfig(do_sample=False, eos_token_id=ends, pad_token_id=pad, bos_token_id=tokenizer.bos_token_id)


def _remove_paths(config: Path) -> None:
    """Remove paths of this machine from a config."""
    fields = json.loads(config.read_text(encoding="utf-8"))
    kept = {key: value for key, value in fields.items() if not key.endswith("name_or_path")}
    config.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


def _write_record(student: Student, out: Path) -> None:
    # `local:FOLDER` recognises a student's weights by this file. It names the base without its path on this machine.
    record = {**student.training, "base": student.base}
    (out / TRAINING).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def check_can_push(repository: str) -> None:
    """Raise UsageError for a repository's name that the hub does not take, and where there is no token."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # documented, but not exported

    try:
        validate_repo_id(repository)
    except HFValidationError:
        raise UsageError(f"--push takes ORG/NAME, not {repository!r}") from None
    if repository.count("/") != 1:
        raise UsageError(f"--push takes ORG/NAME, not {repository!r}")
    if not os.environ.get("HF_TOKEN", "").strip():
        raise UsageError("--push needs a token of the hub that may write: set HF_TOKEN")


def push(folder: Path, repository: str, *, private: bool) -> str:
    """Make the repository where it is not there and upload a folder in one commit. Returns its address.

    Raises FractionateError with the hub's reason where it refuses or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    api = HfApi(token=os.environ["HF_TOKEN"].strip())
    kept = f"the export in {folder} is kept"
    try:
        made = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Export of a distilled student")
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", 0)
        if status in (401, 403):
            fix = "give HF_TOKEN one that may write there"
            raise FractionateError(f"the hub refused the token for {repository} ({status}): {fix}; {kept}") from None
        reason = " ".join(str(error).split())[:200]
        raise FractionateError(f"the hub refused {repository}: {reason}; {kept}") from None
    except Exception as error:  # the client raises what its transport does, under whatever name
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise FractionateError(f"{repository} could not be pushed to {api.endpoint}: {reason}; {kept}") from None
    return str(made)
