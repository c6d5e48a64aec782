"""Training on a testbed: reaches the ceiling, is reproducible, and resumes exactly after an interruption."""

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fractionate.errors import FractionateError, UsageError

torch = pytest.importorskip("torch", reason="the 'testbeds' extra is not installed")

from fractionate.testbeds.allpairs.models import ResNet, TypeNet  # noqa: E402
from fractionate.testbeds.pictures import read_curve  # noqa: E402
from fractionate.testbeds.tasks import (  # noqa: E402
    AllPairsTask,
    PentominoTask,
    TrainSettings,
)
from fractionate.testbeds.training import train, wilson  # noqa: E402

SMALL = {"width": 4, "types": 4}
BRIEF = TrainSettings(
    model="type-net", model_options=SMALL, samples=600, batch=50, validate_every=200, validation=60, test=80,
    statistics=100, threads=1, checkpoint_s=0.0,
)  # fmt: skip


def weights(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "model.pt", weights_only=True)


def equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def small_task() -> AllPairsTask:
    return AllPairsTask(1, 2, side=44)


def test_a_taught_network_reaches_the_ceiling_of_knowledge_matters(tmp_path: Path) -> None:
    settings = TrainSettings(
        model="block-types", samples=120_000, batch=128, learning_rate=3e-3, teach="both", validate_every=10_000,
        validation=2_000, test=4_000, stop_at=0.9995, threads=1,
    )  # fmt: skip
    result = train(PentominoTask(), settings, tmp_path / "run")
    assert result.accuracy >= 0.999
    assert result.stage.startswith("at “all classes” (1.000)")
    curve = read_curve(tmp_path / "run")
    assert curve[0][1] < 0.95, "it was not there from the start"
    assert [samples for samples, _ in curve] == sorted(samples for samples, _ in curve)


def test_equal_settings_give_equal_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    for name, settings in (("one", BRIEF), ("two", BRIEF), ("other", replace(BRIEF, seed=1))):
        train(small_task(), settings, tmp_path / name)
    assert equal(weights(tmp_path / "one"), weights(tmp_path / "two"))
    assert not equal(weights(tmp_path / "one"), weights(tmp_path / "other"))


@pytest.mark.parametrize("train_size", [0, 130])
@pytest.mark.parametrize("teach", ["none", "both"])
def test_a_run_goes_on_exactly_where_it_was_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, train_size: int, teach: str
) -> None:
    task = PentominoTask()
    settings = replace(
        BRIEF, model="block-types", model_options={"hidden": 8, "types": 16, "relation": 8}, train_size=train_size,
        teach=teach, decay=0.5,
    )  # fmt: skip
    whole = train(task, settings, tmp_path / "whole")

    class CutError(Exception):
        pass

    takes = task.batch
    for cut in (1,) if train_size else (3, 8):
        seen = 0

        def dies(split: str, start: int, count: int, device: str, cut: int = cut) -> Any:
            nonlocal seen
            seen += split == "validation" or (split == "train" and not train_size)
            if seen > cut:
                raise CutError
            return takes(split, start, count, device)

        monkeypatch.setattr(task, "batch", dies)
        with pytest.raises(CutError):
            train(task, settings, tmp_path / "cut")
    monkeypatch.setattr(task, "batch", takes)
    said: list[str] = []
    resumed = train(task, settings, tmp_path / "cut", said.append)
    assert any("going on at" in line for line in said)
    assert equal(weights(tmp_path / "cut"), weights(tmp_path / "whole"))
    assert resumed.accuracy == whole.accuracy
    rows = [(tmp_path / name / "curve.csv").read_text().splitlines() for name in ("cut", "whole")]
    # All of a curve but its seconds is the same.
    assert [row.split(",")[::2] for row in rows[0]] == [row.split(",")[::2] for row in rows[1]]
    assert not (tmp_path / "cut" / "checkpoint.pt").exists()


def test_a_run_that_may_take_no_time_stops_at_once_and_is_measured_all_the_same(tmp_path: Path) -> None:
    result = train(small_task(), replace(BRIEF, stop_after_s=0.0), tmp_path / "run")
    assert (result.samples, result.n) == (0, BRIEF.test)
    assert train(small_task(), replace(BRIEF, stop_after_s=1e9), tmp_path / "whole").samples == BRIEF.samples


def test_a_run_begun_before_there_was_a_limit_of_time_goes_on(tmp_path: Path) -> None:
    from dataclasses import asdict

    from fractionate.testbeds.training import _plan

    assert _plan(small_task(), BRIEF) != _plan(small_task(), replace(BRIEF, stop_after_s=60.0))
    since = ("checkpoint_s", "threads", "stop_after_s")
    before = {key: value for key, value in asdict(BRIEF).items() if key not in since}
    plan = hashlib.sha256(json.dumps([small_task().name, before], sort_keys=True).encode()).hexdigest()
    assert _plan(small_task(), BRIEF) == plan


def test_a_complete_run_is_read_and_not_trained_again(tmp_path: Path) -> None:
    first = train(small_task(), BRIEF, tmp_path / "run")
    before = (tmp_path / "run" / "model.pt").stat().st_mtime_ns
    assert train(small_task(), BRIEF, tmp_path / "run") == first
    assert (tmp_path / "run" / "model.pt").stat().st_mtime_ns == before


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    train(small_task(), BRIEF, tmp_path / "run")
    with pytest.raises(UsageError, match="a run with other settings"):
        train(small_task(), replace(BRIEF, learning_rate=0.1), tmp_path / "run")
    with pytest.raises(UsageError, match="a run with other settings"):
        train(AllPairsTask(2, 2, side=60), BRIEF, tmp_path / "run")


def test_the_final_figure_is_of_test_samples_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, asked = small_task(), []
    takes = task.batch

    def noted(split: str, start: int, count: int, device: str) -> Any:
        asked.append((split, start, count))
        return takes(split, start, count, device)

    monkeypatch.setattr(task, "batch", noted)
    result = train(task, BRIEF, tmp_path / "run")
    splits = [split for split, _, _ in asked]
    assert "test" not in splits[: splits.index("test")]
    assert set(splits[splits.index("test") :]) == {"test"}, "test samples come last, once"
    assert sum(count for split, _, count in asked if split == "test") == result.n == 80
    assert {split for split, _, _ in asked} == {"train", "validation", "statistics", "test"}
    assert [start for split, start, _ in asked if split == "train"] == list(range(0, 600, 50)), "no sample twice"
    assert result.ci_low <= result.accuracy <= result.ci_high


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    settings = replace(BRIEF, model="mlp", model_options={"hidden": 8}, learning_rate=1e30)
    with pytest.raises(FractionateError, match="lower the learning rate"):
        train(PentominoTask(), settings, tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "nonsense"}, "unknown model 'nonsense': choose one of type-net"),
        ({"model_options": {"width": 4, "depth": 3}}, "does not take all of the options"),
        ({"teach": "divide"}, "cannot be taught by hints"),
        ({"samples": 0}, "samples must be 1 or more"),
        ({"decay": 2.0}, "decay must be in"),
        ({"precision": "int8"}, "precision must be one of"),
        ({"device": "cuda"}, "torch sees no GPU"),
    ],
)
def test_settings_that_cannot_be_are_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    if change.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UsageError, match=said):
        train(small_task(), replace(BRIEF, **change), tmp_path / "run")


def test_bf16_and_channels_last_train_on_the_cpu_too(tmp_path: Path) -> None:
    settings = replace(BRIEF, precision="bf16", channels_last=True, samples=100, validate_every=50)
    result = train(small_task(), settings, tmp_path / "run")
    row = json.loads((tmp_path / "run" / "result.json").read_text())
    assert row["settings"]["precision"] == "bf16"
    assert math.isfinite(result.accuracy)
    assert all(part.dtype in (torch.float32, torch.int64) for part in weights(tmp_path / "run").values())


# ---------------------------------------------------------------- models


def test_models_have_their_published_sizes() -> None:
    def size(model: Any) -> int:
        return sum(part.numel() for part in model.parameters())

    assert size(TypeNet()) == 1_044_530
    assert size(ResNet(18)) == 11_171_266
    assert size(ResNet(34)) == 21_279_426


def test_softmax_over_rows_makes_the_plain_mean_a_constant_and_over_types_does_not() -> None:
    images = AllPairsTask(4, 4).batch("train", 0, 8, "cpu").images
    torch.manual_seed(0)
    for over, constant in (("rows", True), ("types", False)):
        net = TypeNet(width=8, types=4, softmax_over=over).eval()
        plain = net.histogram(images)[:, :4]
        assert bool((plain - 2 / 38).abs().max() < 1e-5) == constant
        assert torch.allclose(plain.sum(1), torch.full((8,), 4 * 2 / 38 if constant else 2.0), atol=1e-4)


def test_types_see_19_pixels_and_no_further() -> None:
    torch.manual_seed(0)
    net = TypeNet(width=8, types=4).eval()
    seen = torch.zeros(1, 1, 76, 76, requires_grad=True)
    net.features(seen)[0, :, 19, 19].sum().backward()
    touched = torch.nonzero(seen.grad[0, 0])
    assert (touched.max(0).values - touched.min(0).values + 1).tolist() == [19, 19]


def test_resnet_answers_for_each_image() -> None:
    images = AllPairsTask(2, 2).batch("train", 0, 3, "cpu").images
    assert ResNet(18).eval()(images).shape == (3, 2)


def test_wilson_is_scipy_s() -> None:
    from scipy.stats import binomtest

    for right, count in ((0, 10), (10, 10), (7, 9), (19_950, 20_000)):
        theirs = binomtest(right, count).proportion_ci(method="wilson")
        assert wilson(right / count, count) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
