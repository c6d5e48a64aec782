"""Precision, recomputation and memory of training; the defaults change nothing."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("trl", reason="the 'train' extra is not installed")

from fractionate.config import TrainConfig, parse_config
from fractionate.errors import UsageError
from fractionate.models.local.model import load_config, load_model, load_tokenizer
from fractionate.models.local.weights import base_shapes, resolve
from fractionate.students.batching import memory_bytes
from fractionate.students.settings import base_loading, in_fp32
from fractionate.students.train import dry_run, estimate, train_student
from fractionate.students.training_data import training_rows
from fractionate.types import Example, Message
from tests_tiny import build_tiny_model

QUICK = TrainConfig(batch_size=4, lora_rank=2, learning_rate=5e-3)
HAS_4_BITS = importlib.util.find_spec("bitsandbytes") is not None
PASSAGE = "The river Aa rises near Alm, passes Bern and ends in the lake of Dol after 88 miles. " * 2


def examples(count: int = 12) -> list[Example]:
    return [
        Example((Message("user", f"{PASSAGE}\nHow old is {'x' * (at % 5)}{at}?"),), f"When was {at} born?", str(at))
        for at in range(count)
    ]


def with_(**changed: object) -> TrainConfig:
    return QUICK.model_copy(update=changed)


def note(losses: list[float], step: int, steps: int, loss: float) -> None:
    losses.append(loss)


def adapter(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


def test_a_student_trained_before_there_was_a_choice_stays_what_it_is() -> None:
    """The very settings that its record and its digest were made of."""
    first = {"method": "lora", "epochs": 1.0, "learning_rate": None, "batch_size": 8, "lora_rank": 16}
    first |= {"max_length": 1024, "max_examples": 0}
    assert TrainConfig().decisive(with_dev=False) == first
    assert TrainConfig().decisive(with_dev=True) == first | {"dev_checks": 1, "patience": 2}


@pytest.mark.parametrize("changed", [{"precision": "bf16"}, {"precision": "fp32"}, {"base_bits": 4}, {"workers": 2}])
def test_what_may_change_a_student_is_part_of_what_decides_it(changed: dict[str, object]) -> None:
    assert with_(**changed).decisive(with_dev=False) == QUICK.decisive(with_dev=False) | changed


@pytest.mark.parametrize(
    ("train", "says"),
    [
        ({"workers": 3}, "'train.workers': 3 workers cannot share out a batch of 8 evenly: take train.batch_size = 9"),
        ({"workers": 16}, "take train.batch_size = 16"),
        ({"workers": 0}, "'train.workers'"),
        ({"base_bits": 8}, "'train.base_bits'"),
        ({"base_bits": 4, "method": "full"}, 'take train.method = "lora"'),
        ({"base_bits": 4, "share_passages": True}, "cannot be verified"),
        ({"precision": "fp16"}, "'train.precision'"),
    ],
)
def test_settings_that_cannot_be_trained_by_are_refused(train: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError) as refusal:
        parse_config({"data": {"test": "gsm8k"}, "train": train})
    assert says in str(refusal.value)


@pytest.mark.parametrize("changed", [{}, {"share_passages": True}, {"method": "full"}])
def test_what_is_computed_anew_is_computed_alike(tiny_model: Path, tmp_path: Path, changed: dict[str, object]) -> None:
    """So the key decides no student, and a training may go on with another value of it."""
    for anew in (False, True):
        train_student(
            str(tiny_model), examples(), tmp_path / str(anew), with_(gradient_checkpointing=anew, **changed), 0
        )
    file = "model.safetensors" if changed.get("method") == "full" else "adapter_model.safetensors"
    assert (tmp_path / "True" / file).read_bytes() == (tmp_path / "False" / file).read_bytes()
    assert json.loads((tmp_path / "True/training.json").read_text())["settings"] == with_(**changed).model_copy(
        update={"gradient_checkpointing": False}
    ).decisive(with_dev=False)


def test_fp32_is_what_a_cpu_takes_anyway(tiny_model: Path, tmp_path: Path) -> None:
    if __import__("torch").cuda.is_available():
        pytest.skip("a GPU multiplies in bf16 by default")
    for precision in ("auto", "fp32"):
        train_student(str(tiny_model), examples(), tmp_path / precision, with_(precision=precision))
    assert adapter(tmp_path / "auto") == adapter(tmp_path / "fp32")


@pytest.mark.parametrize("share", [False, True])
def test_a_student_learns_in_bf16(tiny_model: Path, tmp_path: Path, share: bool) -> None:
    """Rounded on the way, so close to fp32 and not the same; what is learnt is held in fp32."""
    from safetensors.torch import load_file

    curves: dict[str, list[float]] = {}
    for precision in ("fp32", "bf16"):
        losses = curves.setdefault(precision, [])
        settings = with_(precision=precision, epochs=4.0, share_passages=share)
        on_step = partial(note, losses)
        train_student(str(tiny_model), examples(), tmp_path / precision, settings, 0, on_step)
    assert curves["bf16"] == pytest.approx(curves["fp32"], rel=0.02)
    assert curves["bf16"] != curves["fp32"]
    assert curves["bf16"][-1] < 0.9 * curves["bf16"][0]
    learnt = load_file(tmp_path / "bf16" / "adapter_model.safetensors")
    assert {str(one.dtype) for one in learnt.values()} == {"torch.float32"}


def test_a_base_in_bf16_is_tried_exactly_and_stays_what_it_was(tiny_model: Path) -> None:
    """Rounding would hide whether it reads packed examples alike."""
    import torch

    weights = resolve(str(tiny_model))
    model = load_model(weights, "cpu", loading=base_loading(with_(precision="bf16"), "cpu"))
    assert {one.dtype for one in model.parameters()} == {torch.bfloat16}
    before = [one.clone() for one in model.parameters()]
    with in_fp32(model):
        assert {one.dtype for one in model.parameters()} == {torch.float32}
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))
    assert {one.dtype for one in model.parameters()} == {torch.bfloat16}


def test_a_full_student_is_held_in_fp32_whatever_it_is_multiplied_in() -> None:
    import torch

    assert base_loading(with_(precision="bf16", method="full"), "cpu")["dtype"] == torch.float32


@pytest.mark.skipif(HAS_4_BITS, reason="bitsandbytes is installed")
def test_a_base_of_4_bits_names_what_it_needs(tiny_model: Path, tmp_path: Path) -> None:
    for work in (
        lambda: estimate(str(tiny_model), examples(), with_(base_bits=4)),
        lambda: train_student(str(tiny_model), examples(), tmp_path / "s", with_(base_bits=4)),
    ):
        with pytest.raises(
            UsageError, match=r"needs the package 'bitsandbytes': pip install 'fractionate\[quantised\]"
        ):
            work()
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not HAS_4_BITS, reason="the 'quantised' extra is not installed")
@pytest.mark.parametrize("precision", ["auto", "bf16"])
def test_a_student_learns_over_a_base_of_4_bits(tmp_path: Path, precision: str) -> None:
    from safetensors.torch import load_file

    base = build_tiny_model(tmp_path / "base", width=64)
    losses: list[float] = []
    settings = with_(base_bits=4, precision=precision, epochs=4.0)
    train_student(str(base), examples(), tmp_path / "s", settings, 0, partial(note, losses))
    assert losses[-1] < 0.9 * losses[0]
    learnt = load_file(tmp_path / "s" / "adapter_model.safetensors")
    assert {str(one.dtype) for one in learnt.values()} == {"torch.float32"}
    assert any(one.any() for name, one in learnt.items() if "lora_B" in name)


# ---------------------------------------------------------------- memory


@pytest.fixture(scope="module")
def wide_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """So large that a key missing in the estimate would show."""
    return build_tiny_model(tmp_path_factory.mktemp("models") / "wide", width=512, layers=24)


def parts(model: Path, device: str = "cpu", **changed: object) -> dict[str, int]:
    weights = resolve(str(model))
    rows = training_rows(load_tokenizer(model), examples(), 1024)
    return memory_bytes(base_shapes(weights), load_config(weights.folder()), rows, with_(**changed), device)


def test_each_key_is_in_the_estimate(wide_model: Path) -> None:
    plain, full = parts(wide_model), parts(wide_model, method="full")
    bf16, anew = parts(wide_model, precision="bf16"), parts(wide_model, gradient_checkpointing=True)
    assert bf16["base"] == plain["base"] / 2
    assert bf16["activations"] == pytest.approx(0.65 * plain["activations"], rel=0.01)
    assert anew["activations"] < 0.5 * plain["activations"], "of the layers one at a time"
    assert anew["base"] == plain["base"]
    four = parts(wide_model, base_bits=4)["base"]
    assert plain["base"] / 8 < four < plain["base"] / 4
    assert full["learning"] == 3 * full["base"]
    assert parts(wide_model, method="full", precision="bf16")["base"] == 1.5 * full["base"], "and a copy to multiply by"
    assert parts(wide_model, workers=2)["learning"] == plain["learning"] * 5 / 4, "and what is handed on"
    # A GPU reads the whole batch at once, each of two workers half of it.
    whole, half = parts(wide_model, "cuda"), parts(wide_model, "cuda", workers=2)
    assert whole["activations"] == 2 * half["activations"]


def test_a_dry_run_is_that_of_one_worker(tiny_model: Path) -> None:
    assert dry_run(str(tiny_model), examples(9), with_(workers=2))["peak_rss_mb"] > 0


MEASURE = """
import json, sys, threading, time
from fractionate.config import TrainConfig
from fractionate.students.train import dry_run, estimate
from fractionate.types import Example, Message
examples = [Example((Message("user", "x" * 420 + str(n)),), "y" * 100, str(n)) for n in range(4)]
settings = TrainConfig(batch_size=2, learning_rate=1e-3, **json.loads(sys.argv[2]))
told = estimate(sys.argv[1], examples, settings)["memory_bytes"] / 2**20
peak = 0
def watch():
    # What the process allocated: files that are mapped, the libraries' own among them, differ between environments.
    global peak
    while True:
        line = next(line for line in open("/proc/self/status") if line.startswith("RssAnon"))
        peak = max(peak, int(line.split()[1]))
        time.sleep(0.002)
threading.Thread(target=watch, daemon=True).start()
dry_run(sys.argv[1], examples, settings)
print(json.dumps([told, peak / 1024]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
@pytest.mark.parametrize("changed", [{"precision": "bf16"}, {"gradient_checkpointing": True}])
def test_the_estimate_of_memory_is_near_the_peak(wide_model: Path, changed: dict[str, object]) -> None:
    """On a CPU, in a process of its own; an allocator keeps some of what it was given back."""
    import torch

    if "precision" in changed and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this CPU has no instructions for bfloat16: a step takes minutes")
    command = [sys.executable, "-c", MEASURE, str(wide_model), json.dumps(changed)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    told, peak = json.loads(done.stdout.splitlines()[-1])
    assert 0.85 < told / peak < 1.4, (told, peak)
