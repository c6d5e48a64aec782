"""The model card of an export, from the run's own files: every figure in it stands in one of them.

Front matter as the hub reads it: https://huggingface.co/docs/hub/model-cards"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fractionate.errors import UsageError
from fractionate.export.parity import Parity
from fractionate.export.student import Student, adapter_rank
from fractionate.models.local.weights import SMOLLM2
from fractionate.report.amounts import PER, dollars, level, percent, shares_between
from fractionate.report.facts import metric_label, verdict_lines
from fractionate.types import Message

Record = Mapping[str, Any]
_LICENSES = {SMOLLM2: "apache-2.0"}
"""Licenses of bases that are known without asking the hub."""


@dataclass(frozen=True)
class Export:
    """What a card is of: the student, the name and kind of its export, its files, and what they were checked by."""

    student: Student
    name: str
    kind: str
    files: tuple[str, ...]
    parity: tuple[Parity, ...]
    prompts: int
    checked: bool
    license: str = ""


def card(export: Export) -> str:
    """Return README.md."""
    results = _results(export.student)
    cells = _cells(export.student, results)
    front = _front_matter(export, cells)
    parts = [
        f"---\n{front}\n---",
        f"# {export.name}",
        _opening(export.student),
        _how_to_ask(export),
        _learnt(export.student, results),
        _outcome(export.student, results, cells),
        _limits(export.student, results),
        _checked(export),
        "Written by fractionate from the run's own files.",
    ]
    return _without_places("\n\n".join(part for part in parts if part)) + "\n"


def known_license(student: Student, given: str) -> str:
    """Return the license to state: the given one, else that of the base where it is known, else ""."""
    return given or _LICENSES.get(student.base, "") or _license_beside(student.weights.folder())


def _results(student: Student) -> Record | None:
    path = student.run.results
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read ({error}): run fractionate report again") from None
    if not isinstance(found, dict) or not {"cells", "verdict", "notes"} <= found.keys():
        raise UsageError(f"{path} holds no results: run fractionate report again")
    return found


def _cells(student: Student, results: Record | None) -> list[Record]:
    """Return the cells to show: those that the student takes part in, and those to hold them against."""
    if results is None:
        return []
    measured = [cell for cell in results["cells"] if cell["n"]]
    own = [cell for cell in measured if _takes_part(student, cell)]
    sets = {cell["test_set"] for cell in own}
    base = student.component.model
    others = [
        cell
        for cell in measured
        if cell not in own
        and cell["test_set"] in sets
        and (cell["stages"] == "single" or base in (cell["decomposer_model"], cell["solver_model"]))
        and cell["decomposer_kind"] != "student"
    ]
    others += [
        cell
        for cell in measured
        if cell not in own and cell not in others and cell["test_set"] in sets and _is_base(student, cell)
    ]
    return [*own, *(cell for cell in measured if cell in others)]


def _takes_part(student: Student, cell: Record) -> bool:
    return bool(student.name == cell[student.component.trained_for])


def _is_base(student: Student, cell: Record) -> bool:
    """Whether the untrained base stands in the student's place."""
    role = student.component.trained_for
    return cell[role] in ("student", student.component.model)


def _front_matter(export: Export, cells: Sequence[Record]) -> str:
    from huggingface_hub import ModelCardData

    student = export.student
    own = [cell for cell in cells if _takes_part(student, cell)]
    libraries = {"safetensors": "transformers", "gguf": "gguf", "adapter": "peft"}
    license = known_license(student, export.license)
    data = ModelCardData(
        base_model=student.base if student.base_is_public else None,
        library_name=libraries[export.kind],
        license=license or None,
        pipeline_tag="text-generation",
        tags=["fractionate", "distillation", f"{student.component.trained_for}", student.component.variant],
        model_name=export.name if own else None,
        eval_results=[_eval_result(cell) for cell in own] or None,
    )
    if student.base_is_public:
        data["base_model_relation"] = {"safetensors": "finetune", "gguf": "quantized", "adapter": "adapter"}[
            export.kind
        ]
    return str(data.to_yaml(line_break="\n")).strip()


def _eval_result(cell: Record) -> Any:
    from huggingface_hub import EvalResult

    label = f"{metric_label(cell['metric'])}, {_interval(cell)}, n = {cell['n']}, {_pair(cell)}"
    return EvalResult(
        task_type="text-generation",
        task_name=cell["strategy_label"],
        dataset_type=cell["dataset"],
        dataset_name=_shown_reference(cell["test_set"]),
        dataset_split=_shown_reference(cell["split"]) or None,
        metric_type=cell["metric"],
        metric_value=round(100 * cell["value"], 1),
        metric_name=label,
    )


def _opening(student: Student) -> str:
    job = (
        "It decomposes: it takes a question and returns its subquestions, a numbered line each. Another model answers."
        if student.component.trained_for == "decomposer"
        else 'It solves: it takes a question and returns the steps and a last line "The answer is: …".'
    )
    how = "a LoRA adapter" if student.is_adapter else "all weights trained"
    return f"A student distilled with fractionate from {student.base}, {how} ({student.component.variant}). {job}"


def _how_to_ask(export: Export) -> str:
    student = export.student
    served = {
        "safetensors": "`vllm serve` and transformers take this folder as it is.",
        "gguf": f"`ollama create {export.name} -f Modelfile`, or llama.cpp with one of the .gguf files.",
        "adapter": (
            f"`vllm serve {student.base if student.base_is_public else 'BASE'} --enable-lora --lora-modules "
            f"{export.name}=. --chat-template chat_template.jinja`: without that template the base's own may put a "
            "system message in front, which the student never saw."
        ),
    }
    example = (Message("user", _placeholder(student)),)
    return "\n\n".join(
        (
            "## How to ask it",
            f"One user message and nothing else, no system message, no instruction: {student.form}. Temperature 0, "
            f"at most {student.max_tokens} tokens, as it was measured. {served[export.kind]}",
            f"```sh\n{request_line(export.kind, export.name, example, student.max_tokens)}\n```",
        )
    )


def _placeholder(student: Student) -> str:
    """Return a message in the student's form without a word of the user's data, which the hub would show."""
    passage = "THE PASSAGE\n\n" if "passage" in student.form else ""
    steps = "\n1. FIRST SUBQUESTION\n2. SECOND SUBQUESTION" if "numbered" in student.form else ""
    return f"{passage}THE QUESTION{steps}"


def _learnt(student: Student, results: Record | None) -> str:
    record, settings = student.training, student.training["settings"]
    names = student.component.learnt_from or tuple(student.config.data.train)
    lines = [
        f"- data: {', '.join(f'`{_shown_reference(name)}`' for name in names) or 'not stated'}",
        f"- teacher: `{_shown_reference(student.config.models.teacher or 'none named')}`",
        f"- examples: {record['examples']} ({record['left_out']} left out as too long), {record['trained_tokens']} "
        f"tokens learnt of {record['tokens']} read, in one pass",
        f"- settings: {', '.join(f'{key} {value}' for key, value in settings.items())}; seed {record['seed']}",
        f"- loss: {record['loss_first']:.3f} → {record['loss_last']:.3f} nats a token in {record['steps']} steps",
        f"- base weights: {student.base}, fingerprint `{record['base_fingerprint']}`",
    ]
    notes = [note for note in (results or {}).get("notes", ()) if re.match(r"Screening|Dev split", note)]
    lines += [f"- {note}" for note in notes]
    if student.base_was_converted:
        lines.append(
            "- The base's weights came out of a GGUF file. Those that the hub has under this name are not the same, "
            "so the adapter on the hub's base may answer otherwise than it was measured; the merged export does not."
        )
    return "## What it learnt from\n\n" + "\n".join(lines)


def _outcome(student: Student, results: Record | None, cells: Sequence[Record]) -> str:
    if results is None or not cells:
        return "## Outcome\n\nIt was not measured in this run."
    confidence = level(cells[0]["confidence"])
    header = f"| | strategy | decomposer → solver | n | outcome ({confidence}) | $ per {PER:,} questions |"
    rows = [header, "| --- | --- | --- | --- | --- | --- |"]
    for cell in cells:
        usd = cell["usd"]["total"]
        each = dollars(usd / cell["n"] * PER if usd is not None else None)
        who = "this student" if _takes_part(student, cell) else "untrained" if _is_base(student, cell) else "baseline"
        between = shares_between(cell["ci_low"], cell["ci_high"])
        value = f"{metric_label(cell['metric'])} {percent(cell['value'])} ({between})"
        rows.append(f"| {who} | {cell['strategy']} | {_pair(cell)} | {cell['n']} | {value} | {each} |")
    sets = ", ".join(f"`{_shown_reference(name)}`" for name in dict.fromkeys(cell["test_set"] for cell in cells))
    verdict = "\n".join(f"- {_without_places(line)}" for line in verdict_lines(results["verdict"]))
    return f"## Outcome\n\nOn {sets}.\n\n" + "\n".join(rows) + f"\n\nVerdict of the run:\n\n{verdict}"


def _limits(student: Student, results: Record | None) -> str:
    cannot = (
        "It answers no questions itself and it does not chat."
        if student.component.trained_for == "decomposer"
        else "It does not chat and follows no instructions."
    )
    lines = [
        f"- It knows one kind of question, that of its training data, in that data's language. {cannot}",
        "- It knows one form of prompt, the one above; another form is another model, which nobody measured.",
        "- It was measured on the questions named above and no others; its outcome elsewhere is not known.",
    ]
    lines += [f"- {note}" for note in (results or {}).get("notes", ()) if _is_about_overlap(note)]
    lines += [f"- Warning of the run: {warning}" for warning in (results or {}).get("warnings", ())]
    return "## What it cannot do\n\n" + "\n".join(lines)


def _is_about_overlap(note: str) -> bool:
    return bool(re.search(r"test questions of|Overlap allowed", note))


def _checked(export: Export) -> str:
    heading = "## Checked against the student that was measured"
    if not export.checked:
        return f"{heading}\n\nNot checked: it was written with --no-check."
    if export.kind == "adapter":
        told = f"The template asks {export.prompts} of the run's questions with the very tokens of training."
        return f"{heading}\n\n{told} The adapter is the file that was measured, byte for byte."
    return f"{heading}\n\n" + "\n".join(f"- {one.sentence()}." for one in export.parity)


def _pair(cell: Record) -> str:
    return f"{_shown_reference(cell['decomposer'])} → {_shown_reference(cell['solver'])}"


def _interval(cell: Record) -> str:
    return f"{level(cell['confidence'])} interval {shares_between(cell['ci_low'], cell['ci_high'])}"


def _shown_reference(reference: str) -> str:
    """Return a data reference or model name without the folders, and the servers, of the user's own."""
    if re.match(r"https?://", reference):
        return reference.partition("#")[2] or "a server"
    return _without_places(reference)


def _without_places(text: str) -> str:
    """Return text with the folders left out of every path that is not relative."""
    return re.sub(r"(?<![\w/])(?:~|\.{0,2})/(?!/)[^\s,@#]*/", "", text)


def _license_beside(folder: Path) -> str:
    """Return what the front matter of a base's own model card says; "" where there is none."""
    from huggingface_hub import ModelCard

    path = folder / "README.md"
    try:
        return str(ModelCard.load(path).data.get("license") or "") if path.is_file() else ""
    except (OSError, ValueError, TypeError):
        return ""


_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM takes for --max-lora-rank (its LoRAConfig)."""
VLLM, OLLAMA = "http://localhost:8000/v1", "http://localhost:11434/v1"


def serve_line(student: Student, kind: str, folder: Path, name: str) -> str:
    """Return the command that serves an export of a kind from its folder, under a name."""
    if kind == "gguf":
        return f"ollama create {shlex.quote(name)} -f {shlex.quote(str(folder / 'Modelfile'))}"
    if kind == "safetensors":
        return f"vllm serve {shlex.quote(str(folder))} --served-model-name {shlex.quote(name)}"
    rank = adapter_rank(student.folder)
    most = next((one for one in _LORA_RANKS if one >= rank), rank)
    base = student.base if student.base_is_public else str(student.weights.source)
    parts = ["vllm", "serve", base, "--enable-lora", "--lora-modules", f"{name}={folder}", "--max-lora-rank", str(most)]
    # The base's own template may open with a system message that the student was trained without.
    return shlex.join([*parts, "--chat-template", str(folder / "chat_template.jinja")])


def request_line(kind: str, name: str, messages: tuple[Message, ...], max_tokens: int) -> str:
    """Return a curl command that asks a served export one question in the form it was trained on."""
    body = {
        "model": name,
        "messages": [{"role": role, "content": content} for role, content in messages],
        "temperature": 0,
        "max_tokens": max_tokens,
    }
    address = OLLAMA if kind == "gguf" else VLLM
    text = shlex.quote(json.dumps(body, ensure_ascii=False))
    return f"curl {address}/chat/completions -H 'Content-Type: application/json' -d {text}"
