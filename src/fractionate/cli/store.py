"""`fractionate store list|show|export|purge`: look into stored calls, take them out, or throw them away."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fractionate.errors import FractionateError, UsageError, printable
from fractionate.files import refuse_input, write_text

if TYPE_CHECKING:
    from fractionate.calls.store import Store, StoredCall

HELP = "list, show, export or purge stored calls"
_NAME = "calls.sqlite"
_EPILOGS = {
    "list": "example:\n  fractionate store list runs/demo --role decomposer --limit 5",
    "show": "example:\n  fractionate store show runs/demo 3fa2",
    "export": (
        "examples:\n  fractionate store export runs/demo calls.jsonl --model openai:gpt-4o-mini\n"
        "  fractionate store export runs/demo attempts.jsonl --attempts"
    ),
    "purge": "example:\n  fractionate store purge runs/demo --model openai:gpt-4o-mini --yes",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Every completed model call is a row of a SQLite file (calls.sqlite beside the config, or run.store).\n"
        "These commands read it, take rows out as JSON lines, or delete rows. It never holds an API key."
    )
    parser.epilog = "\n".join(["examples:", *(epilog.partition("\n")[2] for epilog in _EPILOGS.values())])
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, purpose in (
        ("list", "list calls, newest first"),
        ("show", "print one call whole: what was asked, what came back, what it used"),
        ("export", "write calls as JSON lines"),
        ("purge", "delete calls; a later run makes (and pays for) them again, within what its budget has left"),
    ):
        action = actions.add_parser(
            name,
            help=purpose,
            description=purpose,
            epilog=_EPILOGS[name],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        action.add_argument("store", metavar="STORE", type=Path, help="the SQLite file, its folder or a run's folder")
        if name == "show":
            action.add_argument("key", metavar="KEY", help="the call's key, or its beginning")
        if name == "export":
            action.add_argument("file", metavar="OUT.jsonl", nargs="?", help="file to write; standard output if absent")
            action.add_argument(
                "--attempts", action="store_true", help="write a run's attempts instead, as attempts.jsonl has them"
            )
        if name != "show":
            action.add_argument("--key", default="", metavar="START", help="only calls whose key begins with START")
            action.add_argument("--model", default="", metavar="NAME", help="only calls to this model")
            action.add_argument("--run", default="", metavar="NAME", help="only calls that this run made")
            action.add_argument("--role", default="", choices=["decomposer", "solver"], help="only this role's calls")
        if name == "list":
            action.add_argument("--limit", type=int, default=20, metavar="N", help="rows at most (20); 0 lists all")
        if name == "purge":
            action.add_argument("--all", action="store_true", help="delete every call")
            action.add_argument("--yes", action="store_true", help="delete; without it, only print the number of calls")
        action.add_argument("--json", action="store_true", help="print as JSON")


def run(args: argparse.Namespace) -> int:
    """Open the store and do what was asked."""
    from fractionate.calls.store import Store

    if args.action == "export" and args.attempts:
        return _export_attempts(args)
    path = _store_in(args.store) if args.store.is_dir() else args.store
    action = {"list": _list, "show": _show, "export": _export, "purge": _purge}[args.action]
    with closing(Store(path, read_only=not (args.action == "purge" and args.yes))) as store:
        return action(store, args)


def _store_in(folder: Path) -> Path:
    """Return the store that a run's folder says it used, or else the one that lies in the folder."""
    beside = folder / _NAME
    if beside.is_file():
        return beside
    from fractionate.run.folder import RunFolder

    return RunFolder(folder).store() or beside


class _Damaged:
    """Counts rows that cannot be read, and says the first few: one bad row does not keep the others back."""

    SHOWN = 5

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, why: str) -> None:
        self.count += 1
        if self.count <= self.SHOWN:
            print(f"fractionate: left out: {printable(why)}", file=sys.stderr)

    def exit_code(self) -> int:
        if self.count > self.SHOWN:
            print(f"fractionate: left out: {self.count - self.SHOWN:,} more damaged rows", file=sys.stderr)
        return int(self.count > 0)


def _list(store: Store, args: argparse.Namespace) -> int:
    damaged = _Damaged()
    if args.json:
        print(json.dumps([_summary(call) for call in _matching(store, args, damaged, args.limit or None)]))
        return damaged.exit_code()
    shown = 0
    for call in _matching(store, args, damaged, args.limit or None):
        row = _summary(call)
        asked = " ".join(call.request.messages[-1].content.split()) if call.request.messages else ""
        line = (
            f"{row['key'][:12]}  {row['created'][:19]}  {row['role']:<10}  {row['finish_reason']:<8}  "
            f"{row['usage']['input_tokens']:>6} → {row['usage']['output_tokens']:<6}  {row['model']}  {asked[:60]}"
        )
        print(printable(line))
        shown += 1
    print(f"{shown:,} of {len(store):,} calls in {store.path}", file=sys.stderr)
    return damaged.exit_code()


def _show(store: Store, args: argparse.Namespace) -> int:
    found = list(store.calls(key=args.key.lower(), limit=2))
    if not found:
        raise FractionateError(f"no call in {store.path} has a key that begins with {args.key!r}: see 'store list'")
    if len(found) > 1:
        raise UsageError(f"more than one key begins with {args.key!r}: give more of it")
    (call,) = found
    if args.json:
        print(_as_json(call))
        return 0
    record = _record(call)
    for message in record.pop("messages"):
        print(printable(f"--- {message['role']}\n{message['content']}"))
    for name in ("reasoning", "text"):
        print(printable(f"--- {'reply' if name == 'text' else name}\n{record.pop(name)}"))
    print("---")
    for name, value in record.items():
        print(printable(f"{name:<15} {value if isinstance(value, str) else json.dumps(value)}"))
    return 0


def _export(store: Store, args: argparse.Namespace) -> int:
    damaged, count = _Damaged(), 0

    def lines() -> Iterator[str]:
        nonlocal count
        for call in _matching(store, args, damaged):
            yield _as_json(call) + "\n"
            count += 1

    if args.file is None:
        sys.stdout.writelines(lines())
        return damaged.exit_code()
    target = Path(args.file)
    refuse_input(target, *store.files)
    write_text(lines(), target)
    print(json.dumps({"exported": count, "file": args.file}) if args.json else f"{count:,} calls written to {target}")
    return damaged.exit_code()


def _export_attempts(args: argparse.Namespace) -> int:
    """Write the attempts of a run's folder as JSON lines, however the run keeps them."""
    from fractionate.run.attempt_rows import attempt_lines
    from fractionate.run.attempts import read_measured
    from fractionate.run.folder import RunFolder

    if any((args.key, args.model, args.run, args.role)):
        raise UsageError("--key, --model, --run and --role choose calls: leave them out with --attempts")
    if not args.store.is_dir():
        raise UsageError(f"{args.store} is no folder of a run: with --attempts name the run's folder")
    folder, count = RunFolder(args.store), 0

    def lines() -> Iterator[str]:
        nonlocal count
        for row in attempt_lines(read_measured(folder)):
            yield json.dumps(row, ensure_ascii=False) + "\n"
            count += 1

    if args.file is None:
        sys.stdout.writelines(lines())
        return 0
    target = Path(args.file)
    refuse_input(target, folder.attempts, folder.attempt_lines)
    write_text(lines(), target)
    print(
        json.dumps({"exported": count, "file": args.file}) if args.json else f"{count:,} attempts written to {target}"
    )
    return 0


def _purge(store: Store, args: argparse.Namespace) -> int:
    given = {"key": args.key.lower(), "model": args.model, "run": args.run, "role": args.role}
    if not any(given.values()) and not args.all:
        raise UsageError("purge needs --model, --run, --role or --key to choose calls, or --all for every one")
    if not args.yes:
        count = store.count(**given)
        said = f"{count:,} calls would be deleted and paid for again by a later run: add --yes to delete them"
        print(json.dumps({"would_purge": count}) if args.json else said)
        return 0
    count = store.purge(**given)
    print(json.dumps({"purged": count}) if args.json else f"{count:,} calls deleted")
    return 0


def _matching(
    store: Store, args: argparse.Namespace, damaged: Callable[[str], None], limit: int | None = None
) -> Iterator[StoredCall]:
    chosen = {"key": args.key.lower(), "model": args.model, "run": args.run, "role": args.role}
    return store.calls(**chosen, limit=limit, on_damaged=damaged)


def _as_json(call: StoredCall) -> str:
    """Return a call as one line of JSON, control characters (those over ASCII too) as escapes."""
    line = json.dumps(_record(call), ensure_ascii=False)
    return line if line.isprintable() else "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in line)


def _summary(call: StoredCall) -> dict[str, Any]:
    usage = call.completion.usage
    return {
        "key": call.key,
        "created": datetime.fromtimestamp(call.created, UTC).isoformat(),
        "model": call.model,
        "run": call.run,
        "role": call.request.role,
        "finish_reason": call.completion.finish_reason,
        "latency_s": round(call.completion.latency_s, 4),
        "usage": {
            "calls": usage.calls,
            "input_tokens": usage.input_tokens,
            "cached_input_tokens": usage.cached_input_tokens,
            "output_tokens": usage.output_tokens,
            "reasoning_tokens": usage.reasoning_tokens,
            "compute_s": round(usage.compute_s, 4),
            "counted": usage.counted,
        },
    }


def _record(call: StoredCall) -> dict[str, Any]:
    request = call.request
    return {
        **_summary(call),
        "identity": call.identity,
        "messages": [{"role": message.role, "content": message.content} for message in request.messages],
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "stop": list(request.stop),
        "sample": request.sample,
        "response_format": request.response_format,
        "text": call.completion.text,
        "reasoning": call.completion.reasoning,
        "error": call.completion.error,
    }
