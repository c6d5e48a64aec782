"""Resolution of `local:` names, identities of weights, and refused weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the 'local' extra is not installed")

from fractionate.config import ModelOptions
from fractionate.errors import UsageError
from fractionate.models.local import weights as weights_module
from fractionate.models.local.model import LocalModel
from fractionate.models.local.weights import fingerprint, resolve, split_adapter


def copy(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to))


def make_adapter(base: Path, to: Path) -> Path:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base)
    get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")).save_pretrained(to)
    return to


def test_a_folder_is_known_by_its_content_not_by_its_place(tiny_model: Path, tmp_path: Path) -> None:
    moved = copy(tiny_model, tmp_path / "moved")
    assert fingerprint(moved) == fingerprint(tiny_model)
    (moved / "training.json").write_text("{}")
    assert fingerprint(moved) == fingerprint(tiny_model)


def test_one_changed_byte_of_the_weights_is_another_model(tiny_model: Path, tmp_path: Path) -> None:
    changed = copy(tiny_model, tmp_path / "changed")
    data = bytearray((changed / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (changed / "model.safetensors").write_bytes(data)
    assert LocalModel(f"local:{changed}").identity != LocalModel(f"local:{tiny_model}").identity


def test_large_files_are_sampled_and_a_change_at_either_end_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights_module, "FULL_HASH_BYTES", 1 << 20)
    file = tmp_path / "large.gguf"
    prints = set()
    for at in (0, 1 << 21, (4 << 20) - 1):
        data = bytearray(4 << 20)
        data[at] = 7
        file.unlink(missing_ok=True)
        file.write_bytes(data)
        weights_module._file_digest.cache_clear()
        prints.add(fingerprint(file))
    assert len(prints) == 3


@pytest.mark.parametrize(
    ("spec", "base", "adapter"),
    [("org/name", "org/name", ""), ("org/name@runs/a", "org/name", "runs/a"), ("a@b@c", "a", "b@c")],
)
def test_base_and_adapter_are_told_apart(spec: str, base: str, adapter: str) -> None:
    assert split_adapter(spec) == (base, adapter)


def test_a_path_that_holds_an_at_sign_is_one_path(tiny_model: Path, tmp_path: Path) -> None:
    odd = copy(tiny_model, tmp_path / "me@home")
    assert split_adapter(str(odd)) == (str(odd), "")
    assert split_adapter(f"{odd}@adapter") == (str(odd), "adapter")


def test_an_adapter_resolves_with_its_base_and_alone(tiny_model: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tiny_model, tmp_path / "adapter")
    named = LocalModel(f"local:{tiny_model}@{adapter}")
    assert named.style == "student"
    assert named.identity == LocalModel(f"local:{adapter}").identity
    assert named.identity != LocalModel(f"local:{tiny_model}", ModelOptions(style="student")).identity


def test_an_adapter_of_other_shapes_is_refused_naming_both(tiny_model: Path, tmp_path: Path) -> None:
    from tests_tiny import build_tiny_model

    other = build_tiny_model(tmp_path / "other", width=64)
    adapter = make_adapter(other, tmp_path / "adapter")
    with pytest.raises(UsageError) as refused:
        resolve(f"{tiny_model}@{adapter}")
    assert str(other) in str(refused.value)
    assert str(tiny_model) in str(refused.value)


def test_an_adapter_of_deeper_weights_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    from tests_tiny import build_tiny_model

    adapter = make_adapter(build_tiny_model(tmp_path / "deep", layers=3), tmp_path / "adapter")
    with pytest.raises(UsageError, match="no layer"):
        resolve(f"{tiny_model}@{adapter}")


def test_an_adapter_trained_on_other_weights_of_the_same_shapes_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tiny_model, tmp_path / "adapter")
    (adapter / "training.json").write_text(json.dumps({"base_fingerprint": "0" * 16}))
    with pytest.raises(UsageError, match="was trained on"):
        resolve(f"{tiny_model}@{adapter}")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder: None, "config.json"),
        (lambda folder: (folder / "config.json").write_text("{}"), "no weights"),
    ],
)
def test_a_folder_without_a_model_is_refused(tmp_path: Path, make: object, says: str) -> None:
    make(tmp_path)  # type: ignore[operator]
    with pytest.raises(UsageError, match=says):
        resolve(str(tmp_path))


def test_a_path_that_is_not_there_is_refused_without_asking_the_hub(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no model folder"):
        resolve(str(tmp_path / "nothing" / "here"))


def test_a_missing_adapter_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no adapter in"):
        resolve(f"{tiny_model}@{tmp_path}")


def test_a_hub_id_offline_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def fail(*_: object, **__: object) -> str:
        raise OSError("no route to host\nmore")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(UsageError, match="neither cached here nor reachable") as refused:
        resolve("some-org/some-model")
    assert "\n" not in str(refused.value)


def test_a_missing_install_names_the_extra(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = weights_module.importlib.util.find_spec
    monkeypatch.setattr(
        weights_module.importlib.util, "find_spec", lambda name: None if name == "transformers" else found(name)
    )
    with pytest.raises(UsageError, match=r"fractionate\[local\]"):
        LocalModel(f"local:{tiny_model}")


def test_a_cut_off_adapter_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tiny_model, tmp_path / "adapter")
    file = adapter / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(UsageError, match="safetensors"):
        resolve(f"{tiny_model}@{adapter}")
