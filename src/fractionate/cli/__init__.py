"""The command line: one thin file a command, imported only when it is called.

argparse and not a richer library: `fractionate --help` takes about the time of bare Python.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Any, NoReturn

from fractionate import interrupts
from fractionate.errors import FractionateError, printable

# (command, module, what it does): the help page is made from this table alone, so that no command is imported for it.
COMMANDS = (
    ("demo", "demo", "distill and measure on the embedded data and model: no key, no hub"),
    ("init", "init", "write a config to start from"),
    ("run", "run", "demonstrate, screen, train, evaluate and report, as a config says"),
    ("demonstrate", "stages", "let the teacher decompose and solve the training questions"),
    ("screen", "stages", "keep the demonstrations whose solution reaches the gold answer"),
    ("train", "stages", "train the students"),
    ("evaluate", "stages", "measure every decomposer × solver pair"),
    ("report", "report", "write results.json, report.md and report.html from what was measured"),
    ("export", "export", "write a student for vLLM, llama.cpp, Ollama or the hub, checked, with its model card"),
    ("label", "label", "label a run's outputs by hand, to measure and correct its judge"),
    ("serve", "serve", "answer questions by the measured pairs, as an OpenAI-compatible endpoint"),
    ("plan", "plan", "plan before paying: sample sizes, learning curves, break-even, the distillation scaling law"),
    ("score", "score", "score recorded outputs as a data set does"),
    ("compare", "compare", "compare systems over the same questions, from logs that you have"),
    ("import", "import_log", "rewrite a log as recorded rows, splitting replies that hold subquestions and answers"),
    ("store", "store", "list, show, export or purge stored calls"),
    ("testbed", "testbed", "All-Pairs and Knowledge Matters: dividing and solving where the truth is exact"),
    ("doctor", "doctor", "say what is installed, what works and what is missing"),
    ("completion", "completion", "print the script that completes commands and options in bash, zsh or fish"),
)
_INTERRUPTED = 1


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line that names the command and the fix, and that takes options in any place."""

    _intermixing = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Parse; `OUT STORE --attempts` and `STORE --attempts OUT` alike, unless a subcommand divides the arguments.

        argparse by itself takes an optional positional argument (`nargs="?"`) for absent once an option has come.
        """
        has_actions = any(isinstance(action, argparse._SubParsersAction) for action in self._actions)
        if has_actions or self._intermixing:
            return super().parse_known_args(args, namespace)
        self._intermixing = True  # the method below calls this one
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._intermixing = False

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with 2."""
        self.exit(2, f"{self.prog}: error: {message} (see '{self.prog} --help')\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns its exit code: 0 success, 1 failure, 2 bad usage or config."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    modules = {name: module for name, module, _ in COMMANDS}
    if not given or given[0] not in modules:
        return _top_level(given, modules)
    command = given[0]
    try:
        with interrupts.raised():
            module = import_module(f"fractionate.cli.{modules[command]}")
            parser = OneLineParser(prog=f"fractionate {command}", formatter_class=argparse.RawDescriptionHelpFormatter)
            _describe(parser, command, module)
            return int(module.run(parser.parse_args(given[1:])))
    except FractionateError as error:
        return _say(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _say("interrupted: what was completed is kept, and the same command resumes", _INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output went away (`fractionate … | head`): nothing to say, and nowhere to say it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _say(f"{where}{error.strerror or error}", 1)
    except Exception as error:
        if os.environ.get("FRACTIONATE_DEBUG"):
            raise
        text = f"{type(error).__name__}: {error}"
        return _say(f"unexpected {text}: set FRACTIONATE_DEBUG=1 for the traceback and please report it", 1)


def every_command() -> OneLineParser:
    """Return one parser of all commands: for shells to complete, not to parse, since it imports every command."""
    whole = OneLineParser(prog="fractionate")
    commands = whole.add_subparsers()
    for name, module, purpose in COMMANDS:
        _describe(commands.add_parser(name, help=purpose), name, import_module(f"fractionate.cli.{module}"))
    return whole


def _describe(parser: argparse.ArgumentParser, command: str, module: ModuleType) -> None:
    parser.set_defaults(command=command)
    module.add_arguments(parser)


def _say(message: str, code: int) -> int:
    print(f"fractionate: {printable(' '.join(message.split()))}", file=sys.stderr)
    return code


def _top_level(given: list[str], modules: dict[str, str]) -> int:
    if given and given[0] in ("--version", "-V"):
        from fractionate import __version__

        print(f"fractionate {__version__}")
        return 0
    if not given or given[0] in ("--help", "-h"):
        print(_help_page())
        return 0
    import difflib

    nearest = difflib.get_close_matches(given[0], modules, n=1)
    hint = f"did you mean {nearest[0]!r}?" if nearest else "see 'fractionate --help'"
    return _say(f"unknown command {given[0]!r}: {hint}", 2)


def _help_page() -> str:
    width = max(len(name) for name, _, _ in COMMANDS)
    commands = "\n".join(f"  {name:<{width}}  {purpose}" for name, _, purpose in COMMANDS)
    return f"""usage: fractionate COMMAND [OPTION ...]

Which part of your LLM's reasoning should you distill: decomposing, solving, both or neither?

commands:
{commands}

options:
  -h, --help     this page; 'fractionate COMMAND --help' explains a command, with an example
  -V, --version  the version

example:
  fractionate demo --smoke
  fractionate run fractionate.toml --set run.seed=1"""
