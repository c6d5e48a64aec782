"""A run's folder: which file holds what, written whole or not at all."""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, cast, get_args

from fractionate.config import Config
from fractionate.errors import FractionateError, UsageError, shortened
from fractionate.files import PRIVATE, encodable, refuse_input, try_lock, write_text
from fractionate.rows import Row, read_rows
from fractionate.types import AnswerForm


class RunFolder:
    """The files of one run. Every one is plain text or SQLite that anyone can open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.demonstrations = path / "demonstrations.jsonl"
        self.screened = path / "screened.jsonl"
        self.students = path / "students"
        self.search = path / "search"
        self.tried = path / "tried.json"
        self.attempts = path / "attempts.sqlite"
        self.attempt_lines = path / "attempts.jsonl"
        self.notes = path / "notes.json"
        self.results = path / "results.json"
        self.markdown = path / "report.md"
        self.html = path / "report.html"
        self.config = path / "config.json"
        self.about = path / "run.json"
        self.throughput = path / "throughput.json"
        self.lock = path / ".lock"
        self._unlock: Callable[[], object] = lambda: None

    def refuse_inputs(self, inputs: Iterable[Path]) -> None:
        """Raise UsageError if one of the files that are written here is one that the run reads."""
        read = list(inputs)
        for target in (self.demonstrations, self.screened, self.attempts, self.attempt_lines, self.notes, self.results,
                       self.markdown, self.html, self.config, self.about, self.throughput):  # fmt: skip
            refuse_input(target, *read)

    def create(self) -> None:
        """Make the folder, and keep it for this process until `unlock`, or while this object lives.

        Raises FractionateError where that is not allowed, and where another process has it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FractionateError(f"the run's folder {self.path} cannot be made: {error.strerror}") from None
        self._lock()

    def unlock(self) -> None:
        """Let other processes have the folder."""
        self._unlock()

    def _lock(self) -> None:
        try:
            file = os.open(self.lock, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), PRIVATE)
        except OSError:
            return  # if the folder cannot be written to, the first write that matters will say so
        self._unlock = weakref.finalize(self, os.close, file)
        try:
            mine = try_lock(file, for_process=True)
            if mine:
                os.ftruncate(file, 0)
                os.write(file, str(os.getpid()).encode())
        except OSError:
            return  # a file system without locks, or a full disk
        if not mine:
            process = os.read(file, 20).decode("ascii", "replace") or "?"
            self.unlock()
            raise FractionateError(
                f"the run in {self.path} is in progress in process {process}: wait for it or stop it, "
                "then run the same command again"
            )

    def student(self, name: str) -> Path:
        """Return the folder of a student; that of D-R@1/4 is D-R~1~4."""
        return self.students / name.replace("@", "~").replace("/", "~")

    def is_trained(self, name: str) -> bool:
        """Return whether a student's training has come to its end."""
        return (self.student(name) / "training.json").is_file()

    def leave_out(self, name: str, reason: str) -> None:
        """Note that a student could not be trained, and why: its cells are not measured. "" takes that back."""
        note = self._left_out(name)
        if reason:
            note.parent.mkdir(parents=True, exist_ok=True)
            write_text(reason + "\n", note)
        else:
            note.unlink(missing_ok=True)

    def is_left_out(self, name: str) -> bool:
        """Return whether a student could not be trained when training was last tried."""
        return self._left_out(name).is_file()

    def _left_out(self, name: str) -> Path:
        return self.students / f"{self.student(name).name}.left-out"

    def identity(self, base: Path) -> str:
        """Return what the store knows this run by, given when the folder is first used and kept if it is moved.

        It is the folder's path as seen from the config's folder: two runs of one name are two runs.
        """
        return self._about().get("run") or _seen_from(base, self.path)

    def record(self, identity: str, store: Path) -> None:
        """Write down what the store knows this run by, and where the store is."""
        self._note(run=identity, store=str(store.resolve()))

    def record_source(self, file: Path) -> None:
        """Write down the config file that the run was started from, as its user names it."""
        self._note(source=as_typed(file))

    def source(self) -> str:
        """Return the config file that the run was started from, as its user names it; "CONFIG" where none is known."""
        return self._about().get("source") or "CONFIG"

    def store(self) -> Path | None:
        """Return the store that the run in this folder last used, None if no run has used it."""
        path = self._about().get("store")
        return Path(path) if path else None

    def record_answer_form(self, form: AnswerForm | Literal[""]) -> None:
        """Write down the form of answer that was inferred for the user's own rows when they were measured, if any."""
        self._note(answer=form)

    def answer_form(self) -> AnswerForm | Literal[""]:
        """Return the form of answer that was inferred when the run was measured, "" where none was.

        Raises UsageError where it is no form.
        """
        form = self._about().get("answer", "")
        if form in ("", *get_args(AnswerForm)):
            return cast("AnswerForm", form)
        raise UsageError(
            f"{self.about}: answer is {shortened(ascii(form))}, no form of answer: run fractionate evaluate again"
        )

    def _note(self, **texts: str) -> None:
        """Change what run.json says; an empty text takes its key away."""
        about = self._about()
        table = {key: text for key, text in {**about, **texts}.items() if text}
        if table != about:
            write_text(json.dumps(table, ensure_ascii=False) + "\n", self.about, private=True)

    def _about(self) -> dict[str, str]:
        try:
            table = json.loads(self.about.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, ValueError, RecursionError) as error:
            raise UsageError(f"{self.about} cannot be read ({error}): delete it and run again") from None
        if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()):
            raise UsageError(f"{self.about} holds no object of texts: delete it and run again")
        if not all(encodable(value).isprintable() and encodable(value) == value for value in table.values()):
            raise UsageError(f"{self.about} holds names that no file has: delete it and run again")
        return table


def as_typed(path: Path) -> str:
    """Return a path as seen from the working directory where it lies below it."""
    try:
        return path.resolve().relative_to(Path.cwd()).as_posix()
    except (ValueError, OSError):
        return str(path)


def _seen_from(base: Path, folder: Path) -> str:
    try:
        return folder.resolve().relative_to(base.resolve()).as_posix()
    except ValueError:
        return folder.resolve().as_posix()


def run_folder(config: Config, source: Path | None = None, out: Path | None = None) -> Path:
    """Return where a run lives: `out`, else `run.out`, else runs/NAME of the working directory.

    NAME is `run.name`, else what the config file `source` is called: its name without its suffix, or its folder's name
    where it is the fractionate.toml of that folder; "run" for a config without a file.
    """
    name = config.run.name
    if not name and source is not None:
        name = source.resolve().parent.name if source.stem == "fractionate" else ""
        name = name or source.stem
    return Path(out or config.run.out or Path("runs") / (name or "run"))


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write JSON lines, whole, for their owner's eyes: they hold prompts and replies."""
    write_text((json.dumps(row, ensure_ascii=False) + "\n" for row in rows), path, private=True)


def read_own(path: Path, made_by: str) -> Iterator[Row]:
    """Yield the rows of a file that a stage wrote. Raises UsageError naming the stage where it cannot be read."""
    if not path.is_file():
        raise UsageError(f"{path} is not there yet: run the stage that makes it first (fractionate {made_by} CONFIG)")
    try:
        yield from read_rows(path)
    except UsageError as error:
        raise UsageError(f"{error}: run fractionate {made_by} again") from None
