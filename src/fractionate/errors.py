"""The two ways a command fails: the user can mend the input (exit 2), or the work itself failed (exit 1).

Both print as one line that names the thing and the mend.
"""

from __future__ import annotations


class FractionateError(Exception):
    """The work failed: a model refused, a file could not be written, a stage could not go on. Exit code 1."""

    exit_code = 1


class UsageError(FractionateError):
    """The input is wrong: a config, a data row, a model name, a missing key or extra. Exit code 2."""

    exit_code = 2


def missing_extra(package: str, extra: str, purpose: str) -> UsageError:
    """Return the error for an optional install that is not there, naming the command that mends it."""
    return UsageError(f"{purpose} needs the package {package!r}: pip install 'fractionate[{extra}]'")
