"""The grids of scaling_law.py: which models are trained on how many tokens of which text.

`CPU` suits two cores, and its teachers' log probabilities are stored; `GPU` spans half a million to 59 million
parameters and two decades of tokens, and its teachers are evaluated while the student learns.
"""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tiny_transformer import size

MILLION = 1_000_000
Text = tuple[np.ndarray, np.ndarray, str]
"""Sequences to train on, shuffled, those of files held out, (sequences, context + 1), and the text's digest."""


@dataclass(frozen=True)
class Run:
    """One training: a shape's name, millions of tokens, and the teacher's name (None for a supervised run)."""

    role: str
    shape: str
    million: float
    teacher: str = ""
    seed: int = 0

    @property
    def name(self) -> str:
        return "-".join([self.role, self.shape, f"{self.million:g}M", self.teacher or "alone", str(self.seed)])


@dataclass(frozen=True)
class Grid:
    """Models, their tokens and their text."""

    name: str
    vocabulary: int
    context: int
    batch: int
    """Sequences per step."""
    held_out: int
    """Sequences for every loss, from files that no model is trained on."""
    student_text: int
    """The first sequence of the students' text, after all of the teachers'."""
    shapes: dict[str, tuple[int, int]]
    """Layers and width by name."""
    teachers: tuple[tuple[str, float], ...]
    students: tuple[tuple[str, float], ...]
    """Shapes, each with millions of tokens."""
    repeated: tuple[str, float, str]
    """A student, its tokens and its teacher, trained with more seeds: the noise between equal runs."""
    online: bool
    """Whether teachers are evaluated while the student learns; otherwise their log probabilities are stored."""
    out: str

    def plan(self) -> list[Run]:
        """Return all runs, teachers before their students, seeds of one kind last."""
        runs = [Run("teacher", shape, million) for shape, million in self.teachers]
        runs += [Run("supervised", *student) for student in self.students]
        runs += [Run("student", *student, teacher) for teacher, _ in self.teachers for student in self.students]
        shape, million, teacher = self.repeated
        for seed in (1, 2, 3):
            runs += [Run("supervised", shape, million, seed=seed), Run("student", shape, million, teacher, seed)]
        return runs

    def sequences(self, run: Run) -> int:
        """Return how many sequences a run reads, whole batches."""
        return int(run.million * MILLION / self.context) // self.batch * self.batch

    def most_sequences(self) -> int:
        """Return the number of sequences of training text that the grid needs."""
        return self.student_text + max(self.sequences(Run("student", *student)) for student in self.students)

    def flops(self, run: Run) -> float:
        """Return the floating-point operations of a run: 3 forward passes of its own and one of its teacher.

        A forward pass over a token takes 2 (12 L d² + 2 L n d + V d) in a model of L layers of width d, n tokens of
        context and V of vocabulary; attention is counted whole, though half of it is masked.
        """

        def forward(shape: str) -> float:
            layers, width = self.shapes[shape]
            return 2 * (size(layers, width) + 2 * layers * self.context * width + self.vocabulary * width)

        return (
            self.sequences(run) * self.context * (3 * forward(run.shape) + (forward(run.teacher) if run.teacher else 0))
        )

    def corpus(self, out: Path) -> Text:
        """Return the text, created once and kept in `out`."""
        return _library_text(self, out) if self.name == "cpu" else _packages_text(self, out)


CPU = Grid(
    name="cpu",
    vocabulary=512,
    context=64,
    batch=8,
    held_out=1536,
    student_text=33_000,
    shapes={"25k": (2, 32), "83k": (3, 48), "147k": (3, 64), "442k": (4, 96), "1.2M": (6, 128)},
    teachers=(("25k", 0.75), ("147k", 1.5), ("442k", 2.0), ("1.2M", 2.0)),
    students=(
        *((name, million) for name in ("25k", "83k", "147k") for million in (0.125, 0.25, 0.5, 1.0)),
        *(("442k", million) for million in (0.125, 0.25, 0.5)),
    ),
    repeated=("83k", 0.25, "442k"),
    online=False,
    out="runs/scaling-law",
)
_BY_SHAPE = {
    "0.5M": (0.2, 0.5, 1, 2, 5, 10, 20),
    "1.2M": (0.2, 0.5, 1, 2, 5, 10, 20),
    "2.7M": (0.5, 1, 2, 5, 10, 20),
    "6.3M": (0.5, 2, 5, 10, 20),
    "14M": (1, 5, 20),
    "31M": (2, 10, 20),
    "59M": (5, 20),
}
GPU = Grid(
    name="gpu",
    vocabulary=4096,
    context=256,
    batch=8,
    held_out=1536,
    student_text=78_200,
    shapes={
        "0.5M": (5, 96),
        "1.2M": (6, 128),
        "2.7M": (6, 192),
        "6.3M": (8, 256),
        "14M": (8, 384),
        "31M": (10, 512),
        "59M": (12, 640),
    },
    teachers=(("0.5M", 5.0), ("2.7M", 10.0), ("14M", 20.0), ("59M", 20.0)),
    students=tuple((shape, float(million)) for shape, several in _BY_SHAPE.items() for million in several),
    repeated=("2.7M", 2.0, "14M"),
    online=True,
    out="runs/scaling-law-gpu",
)
GRIDS = {grid.name: grid for grid in (CPU, GPU)}

# ---------------------------------------------------------------- the texts

HELD_OUT_FILES = 40


def _library_text(grid: Grid, out: Path) -> Text:
    """Return the source code of Python's standard library, its tests left out."""
    kept = out / "text.npz"
    if not kept.is_file():
        root = Path(sysconfig.get_path("stdlib"))
        skipped = {"site-packages", "test", "tests", "idle_test", "lib2to3"}
        files = [path for path in root.rglob("*.py") if not skipped & set(path.relative_to(root).parts)]
        files.sort(key=lambda path: hashlib.sha256(str(path.relative_to(root)).encode()).digest())
        texts = [path.read_text(encoding="utf-8", errors="replace") for path in files]
        tokenizer = _tokenizer(texts[HELD_OUT_FILES:], grid.vocabulary)
        ids = [np.array(tokenizer.encode(text).ids, np.uint16) for text in texts]
        held_out, rest = (
            _shuffled(np.concatenate(part), grid.context) for part in (ids[:HELD_OUT_FILES], ids[HELD_OUT_FILES:])
        )
        digest = hashlib.sha256("".join(texts).encode()).hexdigest()[:12]
        long = f"{sum(map(len, texts)) / 1e6:.1f} million characters, {sum(map(len, ids)):,} tokens"
        print(f"{len(files)} files, {long}, {len(rest):,} and {len(held_out):,} sequences, digest {digest}")
        np.savez(kept, train=rest, held_out=held_out[: grid.held_out], digest=digest)
    with np.load(kept) as arrays:
        return arrays["train"], arrays["held_out"], str(arrays["digest"])


UNPACKED = Path(__file__).resolve().parents[2] / "runs/gpu/text/text.npz"
PACKAGES = (
    "torch", "transformers", "sympy", "pandas", "scipy", "sklearn", "numpy", "matplotlib", "networkx", "mypy",
    "fontTools", "pygments", "huggingface_hub", "trl", "peft", "datasets", "pydantic", "aiohttp", "hypothesis",
)  # fmt: skip
SPARE = 1.02
"""Share of extra text that is kept beyond the grid's need."""


def _packages_text(grid: Grid, out: Path) -> Text:
    """Return the source code of Python's library and of the installed packages, with the grid's number of tokens.

    Duplicate files count once; whole folders are held out, so that a module's neighbours are too.
    """
    kept = UNPACKED if UNPACKED.is_file() else out / "text.npz"
    if not kept.is_file():
        roots = [Path(sysconfig.get_path("stdlib")), *(Path(sysconfig.get_path("purelib")) / one for one in PACKAGES)]
        texts = _distinct_texts([root for root in roots if root.is_dir()])
        tokenizer = _tokenizer(texts[1::8], grid.vocabulary)
        held_out = _stream(tokenizer, texts, (grid.held_out + 1) * grid.context)
        rest = _stream(tokenizer, texts, int(SPARE * grid.most_sequences() * grid.context))
        digest = hashlib.sha256(held_out.tobytes() + rest.tobytes()).hexdigest()[:12]
        print(f"{len(held_out):,} and {len(rest):,} tokens, digest {digest}; {len(texts)} files are left")
        np.savez_compressed(kept, train=rest, held_out=held_out, digest=digest)
    with np.load(kept) as arrays:
        train, held_out = (_shuffled(arrays[name], grid.context) for name in ("train", "held_out"))
        return train, held_out[: grid.held_out], str(arrays["digest"])


def _distinct_texts(roots: list[Path]) -> list[str]:
    found: dict[bytes, tuple[bytes, str, str]] = {}
    for root in roots:
        for path in sorted(root.rglob("*.py")):
            if "site-packages" not in path.relative_to(root).parts:
                text = path.read_text(encoding="utf-8", errors="replace")
                name = f"{root.name}/{path.relative_to(root)}"
                folder = hashlib.sha256(name.rpartition("/")[0].encode()).digest()
                found.setdefault(hashlib.sha256(text.encode()).digest(), (folder, name, text))
    return [text for _, _, text in sorted(found.values())]


def _stream(tokenizer: Any, texts: list[str], wanted: int) -> np.ndarray:
    """Take texts from the front of the list until they have enough tokens; returns the tokens."""
    parts: list[np.ndarray] = []
    count = 0
    while count < wanted:
        if not texts:
            raise SystemExit(f"the installed packages hold {wanted - count:,} tokens too few: install fractionate[dev]")
        some, texts[:] = texts[:64], texts[64:]
        for encoded in tokenizer.encode_batch_fast(some):
            parts.append(np.array(encoded.ids, np.uint16))
            count += len(encoded.ids)
    return np.concatenate(parts)[:wanted]


def _tokenizer(texts: list[str], vocabulary: int) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _shuffled(tokens: np.ndarray, context: int) -> np.ndarray:
    """Return the tokens as sequences that overlap by one, in random order: neighbours in a file are too similar."""
    count = (len(tokens) - 1) // context
    rows = np.stack([tokens[row * context : (row + 1) * context + 1] for row in range(count)])
    return rows[np.random.default_rng(0).permutation(count)]


def texts_of(grid: Grid) -> Iterator[tuple[str, int, int]]:
    """Yield (role, begin, end) of the sequences that each run reads, to check that students and teachers share none."""
    for run in grid.plan():
        begin = 0 if run.role == "teacher" else grid.student_text
        yield run.role, begin, begin + grid.sequences(run)
