"""Exports of real (tiny) students load in other tools and answer as measured, or no file is written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="the 'train' extra is not installed")

from fractionate.cli import main
from fractionate.config import ModelOptions
from fractionate.export import gguf, write
from fractionate.export.parity import Parity
from fractionate.export.student import open_student
from fractionate.models.local import gguf_file as local_gguf_file
from fractionate.models.local.model import LocalModel
from fractionate.types import Message, Request


def export(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> Any:
    """Run the command with --json. Returns what it printed, or the line of its error."""
    assert main(["export", *map(str, arguments), "--json", "--quiet"]) == code, capsys.readouterr().err
    told = capsys.readouterr()
    if code:
        assert told.err.count("\n") == 1, told.err
        return told.err
    return json.loads(told.out)


def replies(model: str, prompts: list[tuple[Message, ...]], most: int) -> list[str]:
    opened = LocalModel(f"local:{model}", ModelOptions(device="cpu"))
    assert opened.style == "student"
    return [one.text for one in opened.complete_batch([Request(p, "solver", most) for p in prompts])]


@pytest.mark.parametrize("name", ["D-R", "E-A"])
def test_a_merged_student_answers_as_its_adapter_does(
    name: str, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = export(capsys, tiny_run, name, "--out", tmp_path / "out")
    assert [(one["identical"], one["prompts"]) for one in told["parity"]] == [(told["parity"][0]["prompts"],) * 2]
    student = open_student(tiny_run, name)
    prompts = student.prompts(50)
    assert len(prompts) >= 12
    merged = replies(str(tmp_path / "out"), prompts, 10)
    assert merged == replies(f"{student.component.model.removeprefix('local:')}@{student.folder}", prompts, 10)
    assert len(set(merged)) > 1
    assert merged != [
        one.text
        for one in LocalModel(student.component.model, ModelOptions(device="cpu", style="student")).complete_batch(
            [Request(p, "solver", 10) for p in prompts]
        )
    ]


def test_transformers_alone_asks_and_answers_as_training_had_it(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    export(capsys, tiny_run, "E-A", "--out", tmp_path / "out")
    student = open_student(tiny_run, "E-A")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.generation_config.do_sample is False
    (message,) = student.prompts(1)[0]
    inputs = tokenizer.apply_chat_template(
        [{"role": message.role, "content": message.content}], add_generation_prompt=True, return_tensors="pt",
        return_dict=True,
    )  # fmt: skip
    out = model.generate(**inputs, max_new_tokens=10)
    text = tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert text == replies(str(student.folder), [(message,)], 10)[0]


def test_what_is_written_names_no_place_on_this_machine(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export(capsys, tiny_run, "D-R", "--out", tmp_path / "out")
    export(capsys, tiny_run, "D-R", "--out", tmp_path / "gguf", "--format", "gguf", "--type", "f32")
    for file in (*(tmp_path / "out").iterdir(), *(tmp_path / "gguf").iterdir()):
        assert str(tiny_run.parent).encode() not in file.read_bytes(), file
        assert b"/models" not in file.read_bytes(), file
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gguf", "out"]


def test_gguf_files_answer_as_the_student_does(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = export(
        capsys, tiny_run, "E-A", "--out", tmp_path / "e-a", "--format", "gguf", "--type", "f16", "--type", "f32",
        "--prompts", 12,
    )  # fmt: skip
    runtimes = ["transformers", "llama.cpp"] if gguf.has_llamacpp() else ["transformers"]
    assert [(one["file"], one["by"]) for one in told["parity"]] == [
        (f"e-a-{kind}.gguf", by) for kind in ("f16", "f32") for by in runtimes
    ]
    assert all(one["passed"] and one["prompts"] == 12 for one in told["parity"])
    modelfile = (tmp_path / "e-a/Modelfile").read_text().splitlines()
    assert modelfile[0] == "FROM ./e-a-f16.gguf"
    assert modelfile[2:] == [
        "PARAMETER temperature 0", 'PARAMETER stop "<|im_end|>"', "PARAMETER num_predict 10", "PARAMETER num_ctx 2048",
    ]  # fmt: skip
    assert told["serve"] == f"ollama create e-a -f {tmp_path / 'e-a/Modelfile'}"


def test_eight_bit_weights_are_those_of_the_student_rounded(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from fractionate.models.local.model import load_model
    from fractionate.models.local.weights import load_gguf

    export(capsys, tiny_run, "D-R", "--out", tmp_path / "q", "--format", "gguf", "--type", "q8_0", "--no-check")
    mine = load_model(open_student(tiny_run, "D-R").weights, "cpu", exact=True).state_dict()
    its = load_gguf(tmp_path / "q/q-q8_0.gguf")[0].state_dict()
    assert mine.keys() == its.keys()
    for name, values in mine.items():
        step = float(values.abs().max()) / 127
        assert torch.allclose(values, its[name], atol=step, rtol=0), name
        assert ("norm" in name) == bool(torch.equal(values, its[name])), name


def test_an_adapter_comes_with_the_line_that_serves_it(
    tiny_run: Path, merging_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    out = tmp_path / "d-r"
    told = export(capsys, tiny_run, "D-R", "--out", out, "--format", "adapter")
    assert told["serve"] == (
        f"vllm serve {merging_model} --enable-lora --lora-modules d-r={out} --max-lora-rank 8 "
        f"--chat-template {out / 'chat_template.jinja'}"
    )
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(merging_model), str(out))
    trained = open_student(tiny_run, "D-R").folder
    assert (out / "adapter_model.safetensors").read_bytes() == (trained / "adapter_model.safetensors").read_bytes()


def test_the_request_that_is_printed_is_one_of_the_run_in_the_student_s_form(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shlex

    told = export(capsys, tiny_run, "E-A", "--out", tmp_path / "e-a", "--no-check")
    body = json.loads(shlex.split(told["ask"])[-1])
    (message,) = open_student(tiny_run, "E-A").prompts(1)[0]
    assert body == {
        "model": "e-a", "messages": [{"role": "user", "content": message.content}], "temperature": 0, "max_tokens": 10,
    }  # fmt: skip
    assert message.content.startswith("Number 100 is it.\n\nWhat is number 100?")
    assert "not checked" in (tmp_path / "e-a/README.md").read_text().lower()


# ---------------------------------------------------------------- what the checks are for


def test_weights_that_answer_otherwise_are_not_written(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_gguf_file, "_paired", lambda values, heads: values)  # the usual mistake of a converter
    said = export(capsys, tiny_run, "D-R", "--out", tmp_path / "out", "--format", "gguf", code=1)
    assert "out-f16.gguf by transformers" in said
    assert "100% must be alike; nothing was written (--alike takes a lower share)" in said
    assert not any(tmp_path.iterdir())
    told = export(
        capsys, tiny_run, "D-R", "--out", tmp_path / "out", "--format", "gguf", "--alike", 0, "--prompts", 4
    )  # asked for, and said
    assert told["parity"][0]["identical"] < 4
    assert "nats apart" in (tmp_path / "out/README.md").read_text()


def test_a_merge_that_lost_the_adapter_is_not_written(
    tiny_run: Path, merging_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from fractionate.models.local.model import load_model
    from fractionate.models.local.weights import resolve

    base = load_model(resolve(str(merging_model)), "cpu", exact=True)
    write_merged = write.write_merged
    monkeypatch.setattr(write, "write_merged", lambda student, model, *rest: write_merged(student, base, *rest))
    assert "model.safetensors by transformers" in export(capsys, tiny_run, "D-R", "--out", tmp_path / "out", code=1)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["safetensors", "adapter"])
def test_a_template_that_asks_otherwise_is_not_written(
    kind: str, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "asks_alike", lambda tokenizer: True)  # the base's own, with its system message
    said = export(capsys, tiny_run, "D-R", "--out", tmp_path / "out", "--format", kind, code=1)
    assert "does not ask as the student was trained" in said
    assert not any(tmp_path.iterdir())


def test_a_tie_is_told_apart_from_a_difference(tiny_run: Path) -> None:
    from fractionate.export.parity import NEAR, Reference
    from fractionate.models.local.model import load_model, load_tokenizer

    student = open_student(tiny_run, "D-R")
    model, tokenizer = load_model(student.weights, "cpu", exact=True), load_tokenizer(student.weights.folder())
    reference = Reference(model, tokenizer, student.prompts(2), 6)
    first = reference.replies[0]
    other = [*first[:2], (first[2] + 1) % 250, *first[3:]]
    gap = reference.gap(0, other)
    assert gap > 0
    found = reference.compare([other, reference.replies[1]], "x", "y", "f16")
    assert (found.identical, found.ties) == (1, int(gap <= NEAR["f16"]))
    assert reference.gap(0, first[:3]) != 0  # one that ends early parted at the end token


def test_a_share_is_passed_or_not() -> None:
    assert Parity("x", "y", "q8_0", 50, 45, 0, 0.0, 0.9).passed
    assert not Parity("x", "y", "q8_0", 50, 44, 0, 0.0, 0.9).passed
    assert not Parity("x", "y", "f16", 50, 48, 1, 0.05, 1.0).passed
    assert Parity("x", "y", "f16", 50, 48, 2, 0.05, 1.0).passed


# ---------------------------------------------------------------- what is refused


def test_bad_input_is_one_line(
    tiny_run: Path, full_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ("--out", tmp_path / "out")
    assert "is no folder" in export(capsys, tmp_path / "none", *out, code=2)
    assert "has several students: name one of D-R, E-A" in export(capsys, tiny_run, *out, code=2)
    assert "no trained student 'D-T'" in export(capsys, tiny_run, "D-T", *out, code=2)
    assert "there is no config.json" in export(capsys, tmp_path, *out, code=2)
    assert "has no adapter: --format safetensors" in export(capsys, full_run, *out, "--format", "adapter", code=2)
    assert "add --format gguf" in export(capsys, tiny_run, "D-R", *out, "--type", "f16", code=2)
    assert "add --push" in export(capsys, tiny_run, "D-R", *out, "--private", code=2)
    assert "at least 1" in export(capsys, tiny_run, "D-R", *out, "--prompts", 0, code=2)
    assert "a share from 0 to 1, not 2" in export(capsys, tiny_run, "D-R", *out, "--alike", 2, code=2)
    assert "cannot be a model's name" in export(capsys, tiny_run, "D-R", *out, "--name", "a b", code=2)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    assert "is there already" in export(capsys, tiny_run, "D-R", "--out", tmp_path / "full", code=2)
    assert "cannot be written" in export(capsys, tiny_run, "D-R", "--out", tmp_path / "full/file/x", code=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]


@pytest.mark.parametrize("missing", ["adapter_model.safetensors", "adapter_config.json"])
def test_an_adapter_that_is_not_whole_is_one_line(
    missing: str, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny_run, tmp_path / "run")
    (tmp_path / "run/students/D-R" / missing).unlink()
    assert str(tmp_path / "run/students/D-R") in export(
        capsys, tmp_path / "run", "D-R", "--out", tmp_path / "out", code=2
    )
    assert not (tmp_path / "out").exists()


def test_a_student_of_full_training_is_the_run_s_only_one(
    full_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = export(capsys, full_run, "--out", tmp_path / "out")
    assert (told["student"], told["parity"][0]["passed"]) == ("E-A", True)


def test_a_disk_that_is_full_leaves_nothing(tiny_run: Path, tmp_path: Path) -> None:
    script = (
        "import resource, sys\nfrom fractionate.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\nsys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script, "export", str(tiny_run), "D-R", "--out", str(tmp_path / "out"), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1
    assert "the export cannot be written" in done.stderr
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model_type": "qwen2"}, r"architecture 'qwen2' \(only llama\) cannot be had"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}, "rotary scaling 'llama3'"),
        ({"attention_bias": True}, "with biases"),
    ],
)
def test_what_no_gguf_is_written_of_is_said_with_the_way_round(
    changes: dict[str, Any], says: str, merging_model: Path
) -> None:
    from types import SimpleNamespace

    from fractionate.errors import UsageError
    from fractionate.models.local.model import load_config, load_tokenizer

    config = SimpleNamespace(**{**load_config(merging_model).to_dict(), **changes})
    with pytest.raises(UsageError, match=says) as refused:
        gguf.check_can_write(config, load_tokenizer(merging_model))
    assert "convert_hf_to_gguf.py" in str(refused.value)
