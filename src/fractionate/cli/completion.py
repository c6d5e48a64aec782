"""`fractionate completion SHELL`: the script that lets a shell complete commands, options and files (by shtab)."""

from __future__ import annotations

import argparse

SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = "Print a script that lets your shell complete fractionate's commands, options and files."
    parser.epilog = (
        "examples:\n"
        '  eval "$(fractionate completion bash)"                                          # in ~/.bashrc\n'
        '  fractionate completion zsh > "${fpath[1]}/_fractionate"                        # once\n'
        "  fractionate completion fish > ~/.config/fish/completions/fractionate.fish      # once"
    )
    parser.add_argument("shell", choices=SHELLS, help="the shell that will read the script")


def run(arguments: argparse.Namespace) -> int:
    """Print the script."""
    import shtab

    from fractionate.cli import every_command

    print(shtab.complete(every_command(), shell=arguments.shell))
    return 0
