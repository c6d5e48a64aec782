"""A bad config fails at once with one line; it shows no secret and never hangs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from fractionate.cli import main
from fractionate.config import Config, ModelOptions, PriceConfig, StudentConfig, load_config, parse_config
from fractionate.errors import UsageError

GOOD: dict[str, Any] = {"data": {"test": "jsonl:test.jsonl"}}
ODD: list[Any] = [
    *(0, -1, 1, 2**31, 2**32, 2**63, 10**12, 10**400, 0.5, 1e-300, 1e308, float("inf"), float("-inf"), float("nan")),
    *("", "x", "x" * 100_000, "../../zz", "/etc/passwd", "a/b", ".hidden", "\0", "\x1b[2J", "http://u:hunter2@h/v1#m"),
    *(10**400, -(10**400), 1e308, "\ud83d", {"\ud83d": 1}),
    *([], [[]], {}, {"a": {}}, None, True, [None], ["none", 5], {"a": 1}),
]


def fields(section: type[BaseModel], path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Return the path of every key that a config knows, by way of one model, price and student."""
    found: list[tuple[str, ...]] = []
    inner: dict[str, type[BaseModel]] = {"options": ModelOptions, "prices": PriceConfig, "students": StudentConfig}
    for name, field in section.model_fields.items():
        found.append((*path, name))
        if name in inner:
            found += fields(inner[name], (*path, name, "openai:m" if name != "students" else "mine"))
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += fields(field.annotation, (*path, name))
    return found


def with_value(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    table: dict[str, Any] = {**GOOD, "students": {"mine": {"variant": "D-R"}}}
    place = table
    for name in path[:-1]:
        place[name] = dict(place.get(name) or {})
        place = place[name]
    place[path[-1]] = value
    return table


def refusal(table: dict[str, Any]) -> str:
    try:
        parse_config(table)
    except UsageError as error:
        return str(error)
    return ""


def test_every_key_takes_every_odd_value_or_says_so_in_one_line() -> None:
    refused = 0
    for path in fields(Config):
        for value in ODD:
            said = refusal(with_value(path, value))
            refused += said != ""
            assert "\n" not in said
            assert len(said) < 1000
            assert "hunter2" not in said
    assert refused > 500


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.batch_size", "1000000000000"),
        ("train.epochs", "inf"),
        ("train.learning_rate", "inf"),
        ("train.learning_rate", "nan"),
        ("train.search.learning_rate", "[1e-3, inf]"),
        ("data.dev_share", "1.0"),
        ("verdict.margin", "inf"),
        ("verdict.confidence", "0.99999999999"),
        ('prices."openai:m".input_per_million', "inf"),
        ("budget.usd", "nan"),
        ("limits.timeout_s", "inf"),
        ("run.seed", "4294967296"),
        ("run.name", '"../../zz"'),
        ('students."../../zz".variant', '"D-R"'),
        ("students.mine.seed", "4294967296"),
    ],
)
def test_what_would_fail_late_is_refused_and_named(tmp_path: Path, key: str, value: str) -> None:
    config = tmp_path / "run.toml"
    config.write_text('[data]\ntest = "jsonl:test.jsonl"\n[students.mine]\nvariant = "D-R"\n')
    with pytest.raises(UsageError) as caught:
        load_config(config, [f"{key}={value}"])
    assert key.replace('"', "").partition("zz")[0].rpartition(".")[0] in str(caught.value)


def test_a_config_that_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run.toml")
    for path in (tmp_path / "run.toml", tmp_path, Path("/dev/zero"), Path("a\0b"), Path("x" * 5000)):
        with pytest.raises(UsageError) as caught:
            load_config(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "a = " + "[" * 5000, "a = 1" + "0" * 5000, "\0", "a = 1\na = 2", "é" * 10]
)
def test_a_config_that_is_no_toml_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        load_config(tmp_path / "run.toml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "setting",
    ["run.seed=" + "[" * 50_000, "data.test=" + "{a=" * 5000, "=", "a", "\x1b[2J=\x1b[2J", "run.name=\x1b[2J/x"],
)
def test_a_setting_that_cannot_be_read_is_one_line_that_cannot_drive_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str
) -> None:
    (tmp_path / "run.toml").write_text('[data]\ntest = "jsonl:test.jsonl"\n')
    assert main(["run", str(tmp_path / "run.toml"), "--dry-run", "--set", setting]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert said.rstrip("\n").isprintable()
    assert "please report it" not in said


def test_a_name_of_a_file_cannot_drive_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(tmp_path / "\x1b[2J\x1b]0;owned\x07.toml")]) == 2
    assert capsys.readouterr().err.rstrip("\n").isprintable()


SECRETS = ("hunter2", "sk-secret-0123456789abcdef", "sk_secret_0123456789abcdef")


@pytest.mark.parametrize(
    "settings",
    [
        ["models.teacher=http://user:hunter2@127.0.0.1:9/v1#m"],
        ["models.solvers=http://127.0.0.1:9/v1?key=hunter2#m"],
        ["models.solvers=htp://user:hunter2@127.0.0.1:9/v1#m"],
        ["models.solvers=https://user:hunt/er:hunter2@127.0.0.1:9/v1#m"],
        ["models.decomposers=http://user:hunter2@127.0.0.1:9/v1"],
        ['models.options."http://user:hunter2@127.0.0.1:9/v1#m".nonsense=1', "models.solvers=echo:"],
        ['models.options."openai:m".base_url="http://user:hunter2@127.0.0.1:9/v1"', "models.solvers=openai:m"],
        ['models.options."openai:m".api_key_env="sk-secret-0123456789abcdef"', "models.solvers=openai:m"],
        ['models.options."openai:m".api_key_env="sk_secret_0123456789abcdef"', "models.solvers=openai:m"],
        ['prices."http://user:hunter2@127.0.0.1:9/v1#m".input=1', "models.solvers=echo:"],
    ],
)
def test_a_secret_in_the_wrong_place_is_refused_and_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-another-0123456789")
    (tmp_path / "test.jsonl").write_text('{"question": "How many?", "answer": "4"}\n')
    (tmp_path / "run.toml").write_text(
        '[data]\ntest = "jsonl:test.jsonl"\n[models]\ndecomposers = ["none"]\n[run]\nvariants = []\n'
    )
    code = main(["run", "run.toml", "--out", "out", *(part for one in settings for part in ("--set", one))])
    said = "".join(capsys.readouterr())
    assert code == 2, said
    assert len(said.splitlines()) == 1
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    for secret in SECRETS:
        assert secret not in said
        assert secret.encode() not in written
