"""Files: written whole or not at all, never over what is read, readable by their owner alone where they hold prompts.

Lone surrogates (half of a surrogate pair, as in a reply's `"\\ud83d"`) are characters that UTF-8 cannot hold. There is
one rule for them: whatever is hashed or measured keeps them (`utf8`), whatever is written down replaces them by "?"
(`encodable`).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # the name stands for "there are no locks"

from fractionate.errors import FractionateError, UsageError

PRIVATE = 0o600
"""Rights of a file that only its owner may read and write."""


def write_text(text: str | Iterable[str], path: Path, *, private: bool = False) -> None:
    """Write a UTF-8 file beside its place and move it there, so that no reader ever sees half of it.

    `text` may come in parts, which are never held together. A device or a pipe (/dev/null, say) is written to, not
    replaced. With `private` only the owner may read the file, whatever the rights of the file that it replaces. Raises
    FractionateError naming the file where that fails.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        _write_to(text, path)
        return

    def write(beside: Path) -> None:
        if private:
            os.close(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE))
        with beside.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(map(encodable, [text] if isinstance(text, str) else text))

    _write_beside(path, write)


def make_private(path: Path) -> None:
    """Create a file that only its owner may read and write, or take the rights of all others from one that exists.

    A file of another user, and one on a file system without rights, stays as it is. Raises
    OSError where the file cannot be created.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, PRIVATE))
        return
    with suppress(OSError):
        rights = stat.S_IMODE(os.stat(path).st_mode)
        if rights & ~0o700:
            os.chmod(path, rights & 0o700)


def try_lock(file: int, *, for_process: bool = False) -> bool:
    """Lock an open file without waiting. Returns whether it is locked now; True where the system has no locks.

    The kernel drops the lock when the file is closed or the process ends, however it ends. With `for_process` the lock
    is the process's: it may take it again through another descriptor. Raises OSError where the file system refuses.
    """
    if fcntl is None:
        return True
    try:
        (fcntl.lockf if for_process else fcntl.flock)(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def utf8(text: str) -> bytes:
    """Return the UTF-8 bytes of a text, lone surrogates included: to hash or to measure, not to write down."""
    return text.encode("utf-8", "surrogatepass")


def encodable(text: str) -> str:
    """Return text with a question mark for each lone surrogate, which neither a UTF-8 file nor SQLite can hold."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def write_bytes(content: bytes, path: Path) -> None:
    """Write a file of bytes in the same way."""
    _write_beside(path, lambda beside: beside.write_bytes(content))


def packed(folder: Path) -> bytes:
    """Return all files of a folder as bytes (a tar)."""
    import io
    import tarfile

    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        tar.add(folder, arcname=".")
    return content.getvalue()


def unpack(content: bytes, folder: Path) -> None:
    """Write what `packed` returned as a folder, which is whole or not there; one that is there already is replaced.

    Raises FractionateError naming the folder where that fails.
    """
    import io
    import shutil
    import tarfile
    import tempfile

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as beside:
            with tarfile.open(fileobj=io.BytesIO(content)) as tar:
                tar.extractall(Path(beside) / "new", filter="data")
            if folder.exists():
                folder.rename(Path(beside) / "old")
            (Path(beside) / "new").rename(folder)
    except (OSError, tarfile.TarError, shutil.Error) as error:
        raise FractionateError(f"{folder} cannot be written: {error}") from None


def _write_beside(path: Path, write: Callable[[Path], object]) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(beside)
        os.replace(beside, path)
    except BaseException as error:
        with suppress(OSError):
            beside.unlink()
        if isinstance(error, OSError):
            raise FractionateError(f"{path} cannot be written: {error.strerror or error}") from None
        raise


def refuse_input(target: Path, *inputs: Path) -> None:
    """Raise UsageError if a file that is to be written is one of those that are read, by whatever name.

    Of a folder among the inputs every file may be read.
    """
    for source in inputs:
        with suppress(OSError):
            if target.samefile(source) or (source.is_dir() and target.exists() and target.parent.samefile(source)):
                raise UsageError(f"{target} is an input of this command and would be overwritten: name another file")


def _write_to(text: str | Iterable[str], path: Path) -> None:
    try:
        with path.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(map(encodable, [text] if isinstance(text, str) else text))
    except OSError as error:
        raise FractionateError(f"{path} cannot be written: {error.strerror or error}") from None
