"""Files of runs are read by their columns; errors name their line."""

import json

import numpy as np
import pytest

from fractionate.errors import UsageError
from fractionate.planning import DistillationRuns, SupervisedRuns, read_runs

ROWS = [
    {"n_s": 1e9, "d_s": 2e10, "l_t": 2.1, "l_s": 2.31, "note": "x"},
    {"n_s": 3e8, "d_s": 1e10, "l_t": 2.0, "l_s": 2.5},
]


def written(tmp_path, name):
    path = tmp_path / name
    if name.endswith(".csv"):
        path.write_text("N_S, d_s,l_t,l_s,note\n1e9,2e10,2.1,2.31,x\n3e8,10000000000,2.0,2.5,\n")
    elif name.endswith(".parquet"):
        pa = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        path.write_text("\n".join(map(json.dumps, ROWS)))
    return path


@pytest.mark.parametrize("name", ["runs.csv", "runs.jsonl", "runs.parquet"])
def test_every_format_gives_the_same_runs(tmp_path, name):
    runs = read_runs(written(tmp_path, name))
    assert isinstance(runs, DistillationRuns)
    assert runs.params.tolist() == [1e9, 3e8]
    assert runs.loss.tolist() == [2.31, 2.5]
    assert len(runs) == 2


def test_columns_decide_which_law(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text("n,d,l\n1e9,2e10,2.4\n")
    assert isinstance(read_runs(path), SupervisedRuns)
    path.write_text("n,d,l,n_s,d_s,l_t,l_s\n1e9,2e10,2.4,1e8,1e9,2.4,3\n")
    assert isinstance(read_runs(path), DistillationRuns)
    runs = read_runs(path, "supervised")
    assert isinstance(runs, SupervisedRuns)
    assert np.array_equal(runs.loss, [2.4])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("n_s,d_s,l_t,l_s\n1e9,-2e10,2.1,2.3\n", "runs.csv:2: d_s must be above 0, not -2e\\+10"),
        ("n_s,d_s,l_t,l_s\n1e9,2e10,2.1,2.3\n1e9,2e10,many,2.3\n", "runs.csv:3: l_t must be a number, not 'many'"),
        ("n_s,d_s,l_t,l_s\n1e9,2e10,,2.3\n", "runs.csv:2: l_t is missing"),
        ("n_s,d_s,l_t,l_s\n1e9,2e10,nan,2.3\n", "runs.csv:2: l_t must be a number"),
        ("size,loss\n1e9,2.3\n", "has the columns size, loss: it needs n_s, d_s, l_t, l_s"),
        ("n_s,d_s,l_t,l_s\n", "has no runs"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path, text, said):
    path = tmp_path / "runs.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=said):
        read_runs(path)


def test_the_law_asked_for_needs_its_columns(tmp_path):
    with pytest.raises(UsageError, match="it needs n, d, l"):
        read_runs(written(tmp_path, "runs.csv"), "supervised")
    with pytest.raises(UsageError, match="does not exist"):
        read_runs(tmp_path / "none.csv")
