"""`fractionate testbed` on the real command line."""

import csv
import io
import json
import re
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from commands import Done, fractionate
from fractionate.testbeds.allpairs.generator import AllPairs
from fractionate.testbeds.pentomino.generator import Pentomino

Image = pytest.importorskip("PIL.Image", reason="the 'testbeds' extra is not installed")
COMMAND = [sys.executable, "-m", "fractionate", "testbed"]


def run(*arguments: str, code: int = 0, cwd: Path | None = None) -> Done:
    done = fractionate("testbed", *arguments, cwd=cwd)
    assert done.returncode == code, done.stderr
    return done


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def test_allpairs_as_png_and_csv(tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--pairs", "3", "--types", "5", "--count", "600", "--seed", "4"]
    summary = json.loads(run("allpairs", "generate", *options, "--out", str(out), "--json").stdout)
    batch = AllPairs(3, 5, seed=4).take(0, 600)
    assert summary["count"] == 600
    assert summary["share_true"] == pytest.approx(batch.labels.mean())
    rows = list(csv.DictReader((out / "samples.csv").open(encoding="utf-8")))
    assert len(rows) == 600
    for place in (0, 511, 512, 599):
        row = rows[place]
        assert (pixels((out / row["file"]).read_bytes()) == batch.images[place]).all()
        assert int(row["label"]) == batch.labels[place]
        assert json.loads(row["classes"]) == batch.classes[place].tolist()
        assert json.loads(row["boxes"]) == batch.boxes[place].tolist()
        assert json.loads(row["histogram"]) == batch.histogram[place].tolist()
        assert json.loads(row["parities"]) == batch.parities[place].tolist()


def test_workers_change_nothing(tmp_path: Path) -> None:
    for workers in ("1", "3"):
        options = ["--count", "1100", "--format", "webdataset", "--shard-size", "700", "--workers", workers]
        run("allpairs", "generate", *options, "--out", str(tmp_path / workers))
    names = sorted(path.name for path in (tmp_path / "1").glob("*.tar"))
    assert names == ["shard-00000.tar", "shard-00001.tar"]
    for name in names:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "3" / name).read_bytes()


def test_a_folder_goes_on_after_its_complete_shards(tmp_path: Path) -> None:
    options = ["pentomino", "generate", "--count", "250", "--format", "webdataset", "--shard-size", "100", "--json"]
    whole = json.loads(run(*options, "--out", "whole", cwd=tmp_path).stdout)
    # As if it had been cut off while it wrote the second shard: that shard is missing and not noted.
    note = json.loads((tmp_path / "whole" / "settings.json").read_text())
    (tmp_path / "cut").mkdir()
    first = tmp_path / "cut" / "shard-00000.tar"
    first.write_bytes((tmp_path / "whole" / first.name).read_bytes())
    cut = {"plan": note["plan"], "shards": note["shards"][:1], "summary": None}
    (tmp_path / "cut" / "settings.json").write_text(json.dumps(cut))
    written = first.stat().st_mtime_ns
    assert json.loads(run(*options, "--out", "cut", cwd=tmp_path).stdout) == whole
    assert first.stat().st_mtime_ns == written
    for name in whole["files"]:
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert json.loads(run(*options, "--out", "whole", cwd=tmp_path).stdout) == whole, "a complete folder is only read"
    assert "holds other samples" in run(*options, "--seed", "1", "--out", "whole", code=2, cwd=tmp_path).stderr


def test_webdataset_members_belong_together(tmp_path: Path) -> None:
    options = ["--count", "20", "--start", "30", "--seed", "2", "--split", "test", "--format", "webdataset"]
    run("pentomino", "generate", *options, "--out", str(tmp_path / "out"))
    batch = Pentomino(seed=2, split="test").take(30, 20)
    with tarfile.open(tmp_path / "out" / "shard-00000.tar") as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    assert len(members) == 60
    for place in range(20):
        name = f"{30 + place:08d}"
        assert (pixels(members[f"{name}.png"]) == 255 * batch.images[place]).all()
        assert int(members[f"{name}.cls"]) == batch.labels[place]
        assert json.loads(members[f"{name}.json"])["blocks"] == batch.hints[place].tolist()


def test_parquet_shards_without_hints(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    options = ["--count", "25", "--format", "parquet", "--shard-size", "10", "--no-hints"]
    run("allpairs", "generate", *options, "--out", str(tmp_path / "out"))
    tables = [parquet.read_table(path) for path in sorted((tmp_path / "out").glob("*.parquet"))]
    assert [table.num_rows for table in tables] == [10, 10, 5]
    assert tables[0].column_names == ["image", "label"]
    batch = AllPairs(4, 4).take(0, 25)
    last = tables[2].to_pylist()[4]
    assert (pixels(last["image"]["bytes"]) == batch.images[24]).all()
    assert last["label"] == batch.labels[24]


def test_surveys_are_pictures(tmp_path: Path) -> None:
    for task in ("allpairs", "pentomino"):
        for extra in ([], ["--symbols", "--count", "8"]):
            path = tmp_path / f"{task}{len(extra)}.png"
            run(task, "survey", *extra, "--out", str(path))
            assert Image.open(path).size > (200, 150)


def test_ceilings_are_printed_and_given_as_json() -> None:
    found = json.loads(run("allpairs", "ceilings", "--pairs", "4", "--types", "4", "--json").stdout)
    assert found["parities, two classes confused"] == pytest.approx(11 / 12)
    assert "11/12" in run("allpairs", "ceilings").stdout
    assert json.loads(run("pentomino", "ceilings", "--json").stdout)["all classes"] == 1


def train_options(out: str) -> list[str]:
    options = "--samples 3000 --batch 100 --validate-every 1000 --validation 200 --test 200 --threads 1 --json"
    return ["pentomino", "train", *options.split(), "--model-option", "hidden=64", "--out", out]


def test_ctrl_c_and_the_same_command_again_is_as_if_nothing_had_been(tmp_path: Path) -> None:
    whole = json.loads(run(*train_options("whole"), cwd=tmp_path).stdout)
    process = subprocess.Popen(
        [*COMMAND, *train_options("cut")], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=tmp_path
    )
    assert process.stderr is not None
    for line in process.stderr:
        if re.search(r"samples, .* validation accuracy", line):
            process.send_signal(signal.SIGINT)
            break
    said = process.stderr.read()
    assert process.wait(60) == 1, said
    assert said.strip().splitlines()[-1].startswith("fractionate: interrupted")
    assert (tmp_path / "cut" / "checkpoint.pt").is_file()
    done = run(*train_options("cut"), cwd=tmp_path)
    assert "going on at" in done.stderr
    resumed = json.loads(done.stdout)
    timed = {"seconds", "cpu_seconds"}
    assert {key: value for key, value in resumed.items() if key not in timed} == {
        key: value for key, value in whole.items() if key not in timed
    }
    files = [(tmp_path / name / "model.pt").read_bytes() for name in ("whole", "cut")]
    assert files[0] == files[1]
    assert (tmp_path / "cut" / "curve.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("allpairs generate --types 19 --out {out}", "types must be 2 to 18"),
        ("allpairs generate --count 0 --out {out}", "count must be 1 or more"),
        ("allpairs generate --pairs 3 --side 24 --count 1 --out {out}", "do not fit into 24 × 24 px"),
        ("pentomino generate --out .", "is not an empty folder"),
        ("pentomino generate", "--out"),
        ("pentomino train --model-option hidden --out {out}", "--model-option needs KEY=VALUE"),
        ("pentomino train --model-option width=3 --out {out}", "does not take all of the options width"),
        ("allpairs", "ACTION"),
        ("chess", "invalid choice"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, arguments: str, said: str) -> None:
    (tmp_path / "taken").touch()
    done = run(*arguments.format(out="new").split(), code=2, cwd=tmp_path)
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    (tmp_path / "survey.png").symlink_to("/dev/full")
    done = run("pentomino", "survey", "--out", str(tmp_path / "survey.png"), code=1)
    assert "cannot be written: No space left on device" in done.stderr
