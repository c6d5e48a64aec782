"""`fractionate serve RUN_DIR`: the measured pairs of a run behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fractionate.serve.gateway import Gateway


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Serve the measured pairs of a run to any client of OpenAI's chat API. The model name selects the pair;\n"
        "GET /v1/models lists each with its outcome, interval, price and the verdict. fractionate/best is the\n"
        "verdict's pair.\n"
        "Prints one line with its URL once it answers. Keys come from FRACTIONATE_KEYS, comma-separated; without\n"
        "keys, it serves this machine only. SIGTERM and Ctrl-C let requests in flight finish."
    )
    parser.epilog = (
        "example:\n"
        "  fractionate serve runs/mine --port 8000\n"
        "  FRACTIONATE_KEYS=… fractionate serve runs/mine --host 0.0.0.0 --budget-usd 20 --budget-usd-per-key 5\n"
        "  fractionate serve runs/mine --record traffic.jsonl --shadow fractionate/static:D-R+teacher --shadow-usd 2"
    )
    parser.add_argument("run_dir", metavar="RUN_DIR", type=Path, help="the folder of a run that was evaluated")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=8000, help="port, 0 for any free one (default: %(default)s)")
    parser.add_argument(
        "--allow-unmeasured", action="store_true", help="also serve pairs of the run's names that it has not measured"
    )
    parser.add_argument(
        "--no-check", action="store_true", help="start without checking the solvers' servers and loading local weights"
    )
    traffic = parser.add_argument_group("traffic")
    traffic.add_argument("--record", metavar="FILE", type=Path, help="record answers, for learning, in a .jsonl file")
    traffic.add_argument("--shadow", metavar="PAIR", help="answer with PAIR as well, after the answer, and record it")
    traffic.add_argument(
        "--shadow-usd", metavar="USD", type=_amount, help="budget of the shadow's calls, in dollars; it never resets"
    )
    traffic.add_argument(
        "--shadow-share", metavar="SHARE", type=_share, help="share of answers with a shadow, up to 1 (default: 0.1)"
    )
    bounds = parser.add_argument_group("bounds")
    bounds.add_argument(
        "--concurrency", metavar="N", type=_count, default=64, help="requests in flight (default: %(default)s)"
    )
    bounds.add_argument(
        "--queue", metavar="N", type=_count, default=256, help="requests that may wait; more get 429 (%(default)s)"
    )
    bounds.add_argument(
        "--deadline", metavar="SECONDS", type=_amount, default=120.0, help="of one request (default: %(default)g)"
    )
    bounds.add_argument(
        "--drain",
        metavar="SECONDS",
        type=_amount,
        default=30.0,
        help="for requests in flight at the end (default: %(default)g)",
    )
    bounds.add_argument(
        "--max-body-mb", metavar="MB", type=_amount, default=1.0, help="size of a request's body (default: %(default)g)"
    )
    bounds.add_argument(
        "--max-context",
        metavar="TOKENS",
        type=_count,
        default=32_768,
        help="tokens of a request (default: %(default)s)",
    )
    bounds.add_argument(
        "--budget-usd",
        metavar="USD",
        type=_amount,
        help="budget of all paid calls, in dollars; then 402; it never resets",
    )
    bounds.add_argument(
        "--budget-usd-per-key",
        metavar="USD",
        type=_amount,
        help="budget of each key's paid calls, in dollars; it never resets",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to end."""
    import asyncio

    from fractionate.serve.admission import VARIABLE, Keys, check_host
    from fractionate.serve.gateway import Bounds, Gateway
    from fractionate.serve.server import serve

    keys = Keys(os.environ.get(VARIABLE, ""))
    check_host(arguments.host, keys)
    bounds = Bounds(
        concurrency=arguments.concurrency,
        queue=arguments.queue,
        deadline_s=arguments.deadline,
        drain_s=arguments.drain,
        body_mb=arguments.max_body_mb,
        max_context=arguments.max_context,
        budget_usd=arguments.budget_usd,
        budget_usd_per_key=arguments.budget_usd_per_key,
    )
    gateway = Gateway(arguments.run_dir, keys, bounds, allow_unmeasured=arguments.allow_unmeasured)

    _keep_traffic(gateway, arguments)
    gateway.on_news.append(lambda line: print(line, file=sys.stderr, flush=True))

    def say(url: str) -> None:
        best = next(iter(gateway.catalog.aliases.values()))
        print(f"serving {len(gateway.catalog.pairs)} pairs at {url}/v1 ({best.id} is {best.pair.id})")
        sys.stdout.flush()

    asyncio.run(serve(gateway, arguments.host, arguments.port, say, check=not arguments.no_check))
    return 0


def _keep_traffic(gateway: Gateway, arguments: argparse.Namespace) -> None:
    from fractionate.errors import UsageError
    from fractionate.serve.shadow import SHARE, Shadow
    from fractionate.serve.traffic import Traffic

    if arguments.shadow is None and (arguments.shadow_usd or arguments.shadow_share):
        raise UsageError("--shadow-usd and --shadow-share need a shadow: name its pair with --shadow")
    if arguments.record is None:
        if arguments.shadow is not None:
            raise UsageError("--shadow needs --record FILE: its answers are recorded there")
        return
    gateway.traffic = Traffic(gateway, arguments.record)
    if arguments.shadow is not None:
        gateway.traffic.shadow(Shadow(gateway, arguments.shadow, arguments.shadow_share or SHARE, arguments.shadow_usd))


def _port(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else -1
    if not 0 <= number <= 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: a whole number from 0 to 65535")
    return number


def _count(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to 999,999,999")
    return number


def _share(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share above 0 and up to 1")
    return number


def _amount(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 < number < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0 and under a billion")
    return number
