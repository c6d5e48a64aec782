"""An export from beginning to end: written beside its place, checked there, and moved there whole or not at all."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fractionate.errors import FractionateError, UsageError, missing_extra
from fractionate.export import llamacpp
from fractionate.export.card import Export, card
from fractionate.export.chat_form import ChatForm, chat_form
from fractionate.export.folders import write_adapter, write_merged
from fractionate.export.gguf_file import check_can_write, write_gguf
from fractionate.export.ollama import modelfile
from fractionate.export.parity import PROMPTS, Parity, Reference, check_folder, check_gguf, check_tokenizer
from fractionate.export.student import Student
from fractionate.models.local.model import best_device, load_config, load_model, load_tokenizer
from fractionate.types import Message

Kind = Literal["safetensors", "gguf", "adapter"]
KINDS: tuple[Kind, ...] = ("safetensors", "gguf", "adapter")
CONTEXT = 4096
"""Tokens of prompt and reply that Ollama makes room for, at most the model's own."""


@dataclass(frozen=True)
class Wanted:
    """What is to be written: the kind, how a GGUF file stores weights, the name, whether and on how many it is checked.

    `alike` is the share of replies that must be as the student's (None: all, of q8_0 nine in ten). `license` is stated
    in the card where the base's is not known.
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
    """What was written: the folder, its files, how it was found to answer, and a prompt of the run to try it with."""

    folder: Path
    files: tuple[str, ...]
    parity: tuple[Parity, ...]
    example: tuple[Message, ...]


def export_student(student: Student, out: Path, wanted: Wanted, say: Callable[[str], None]) -> Written:
    """Write an export of a student to the folder `out`, which must not be there yet (or be empty).

    Raises UsageError for what cannot be had, FractionateError where writing fails or the export does not answer as the
    student does. `out` is then as it was.
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
        told = Export(student, wanted.name, wanted.kind, files, tuple(parity), len(asked), wanted.check, wanted.license)
        (fresh / "README.md").write_text(card(told), encoding="utf-8")
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
            if llamacpp.is_there():
                parity.append(_passed(llamacpp.check_llamacpp(reference, file, kind), say))
    if reference and not llamacpp.is_there():
        say(str(missing_extra("xllamacpp", "llamacpp", "not asked through llama.cpp itself: that")))
    context = min(CONTEXT, int(getattr(model.config, "max_position_embeddings", CONTEXT)))
    first = f"{wanted.name}-{wanted.types[0]}.gguf"
    (fresh / "Modelfile").write_text(modelfile(first, form, student.max_tokens, context), encoding="utf-8")
    return parity


def _passed(parity: Parity, say: Callable[[str], None]) -> Parity:
    """Return a finding, and say it. Raises FractionateError where too few replies are alike."""
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
