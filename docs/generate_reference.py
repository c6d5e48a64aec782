"""Write docs/reference from the code: every command's help, every config key, the data sets, the instructions.

`--check` writes nothing and exits with 1 where a page is out of date; the test suite calls it.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

REFERENCE = Path(__file__).resolve().parent / "reference"


def commands_page() -> str:
    from fractionate.cli import COMMANDS, OneLineParser, _help_page

    parts = ["# Commands", f"```text\n{_help_page()}\n```"]
    for name, module_name, _ in COMMANDS:
        module = import_module(f"fractionate.cli.{module_name}")
        parser = OneLineParser(prog=f"fractionate {name}", formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.set_defaults(command=name)
        module.add_arguments(parser)
        parts.append(f"## fractionate {name}\n\n```text\n{parser.format_help().rstrip()}\n```")
        for action in actions_of(parser):
            parts.append(f"### {action.prog}\n\n```text\n{action.format_help().rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def actions_of(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """Return the parsers of a command's actions, such as `store list`."""
    groups = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
    return [action for group in groups for action in group.choices.values()]


def config_page() -> str:
    from pydantic import BaseModel

    from fractionate import config
    from fractionate.strategies import built_in

    sections: list[tuple[str, type[BaseModel]]] = [
        ("data", config.DataConfig),
        ("data.scorer", config.ScorerConfig),
        ("judge", config.JudgeConfig),
        ("models", config.ModelsConfig),
        ('models.options."NAME"', config.ModelOptions),
        ("[models.distilled]", config.DistilledConfig),
        ("students.NAME", config.StudentConfig),
        ("decomposers.NAME", config.DecomposerConfig),
        ("tools.NAME", config.ToolConfig),
        ("prompts", config.PromptsConfig),
        ("[prompts.examples]", config.PromptExample),
        ("run", config.RunConfig),
        ("train", config.TrainConfig),
        ("train.search", config.SearchConfig),
        ("curve", config.CurveConfig),
        ("budget", config.BudgetConfig),
        ("limits", config.LimitsConfig),
        ("cluster", config.ClusterConfig),
        ('prices."NAME"', config.PriceConfig),
        ("verdict", config.VerdictConfig),
        ("[published]", config.PublishedFigure),
    ]
    parts = [
        "# Config",
        "Every key of `fractionate.toml`, by section. An unknown key is an error that names the nearest.",
    ]
    for name, section in sections:
        rows = ["| key | default | what |", "| --- | --- | --- |"]
        for key, field in section.model_fields.items():
            if isinstance(field.default, BaseModel):
                continue  # a section of its own
            default = "required" if field.is_required() else f"`{_toml(field.get_default(call_default_factory=True))}`"
            rows.append(f"| `{key}` | {default} | {(field.description or '').replace('|', chr(92) + '|')} |")
        parts.append(f"## [{name}]\n\n{section.__doc__}\n\n" + "\n".join(rows))
    known = "; ".join(f"`{one.name}` ({one.label})" for one in built_in().values())
    variants = ", ".join(f"`{name}`" for name in get_args(config.Variant))
    parts += [f"Strategies that `run.strategies` may name: {known}."]
    return "\n\n".join([*parts, f"Students that `run.variants` may name: {variants}."]) + "\n"


def _toml(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list):
        return "[" + ", ".join(_toml(one) for one in value) + "]"
    return str(value)


def datasets_page() -> str:
    from fractionate import datasets

    rows = ["| name | metric | answers | cap | source | licence |", "| --- | --- | --- | --- | --- | --- |"]
    for name in datasets.names():
        one = datasets.get(name)
        rows.append(
            f"| `{name}` | {one.metric} | {one.answer_form} | {one.default_cap} | {one.source} | {one.licence} |"
        )
    head = (
        "# Data sets\n\nReferences read `NAME[:PATH][#SPLIT][?KIND,KIND][@START-END[/STEP]]`: rows START to END, both "
        "included, or every STEP-th of them, and of these the ones of the kinds named (`Problem.kind`; `atlas` has "
        "kinds). The cap is the number "
        "of subquestions a decomposition may have unless `run.cap` says otherwise."
    )
    return head + "\n\n" + "\n".join(rows) + "\n"


def prompts_page() -> str:
    from fractionate import prompts

    parts = ["# Instructions", "The texts under `src/fractionate/prompts`, as models get them; `$names` are filled in."]
    for file in sorted(Path(prompts.__file__).parent.glob("*.txt")):
        parts.append(f"## {file.stem}\n\n```text\n{file.read_text(encoding='utf-8').rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


PAGES = {
    "commands.md": commands_page,
    "config.md": config_page,
    "datasets.md": datasets_page,
    "prompts.md": prompts_page,
}


def main() -> int:
    os.environ["COLUMNS"] = "100"
    check = "--check" in sys.argv[1:]
    stale = []
    for name, page in PAGES.items():
        path, text = REFERENCE / name, page()
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if not check:
                REFERENCE.mkdir(exist_ok=True)
                path.write_text(text, encoding="utf-8")
    print(f"{'out of date' if check else 'written'}: {', '.join(stale) or 'nothing'}")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
