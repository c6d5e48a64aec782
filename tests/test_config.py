"""The config follows the design; errors name the key in one line, with the nearest valid value."""

from pathlib import Path

import pytest

from fractionate.config import load_config, parse_config
from fractionate.errors import UsageError

DESIGN_FORM = """
[data]
train = "jsonl:train.jsonl"
test = ["jsonl:test.jsonl", "gsm8k#test@0-659"]
[models]
teacher = "openai:gpt-4o-mini"
solvers = ["openai:gpt-4o-mini", "local:HuggingFaceTB/SmolLM2-135M-Instruct"]
decomposers = ["none", "teacher", "D-T", "D-R"]
student = "local:HuggingFaceTB/SmolLM2-135M-Instruct"
[run]
strategies = ["single", "static"]
variants = ["D-R", "E-A"]
samples = 2
seed = 0
[budget]
usd = 5.0
[limits]
concurrency = 64
[prices."openai:gpt-4o-mini"]
input_per_million = 0.15
output_per_million = 0.60
"""


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "fractionate.toml"
    path.write_text(DESIGN_FORM)
    return path


def test_the_form_of_the_design_is_read(config_file: Path) -> None:
    config = load_config(config_file)
    assert config.data.train == ["jsonl:train.jsonl"]
    assert config.data.test == ["jsonl:test.jsonl", "gsm8k#test@0-659"]
    assert config.prices["openai:gpt-4o-mini"].output_per_million == 0.60
    assert config.budget.usd == 5.0


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("run.seed=7", lambda config: config.run.seed == 7),
        ("models.teacher=echo:", lambda config: config.models.teacher == "echo:"),
        ("models.teacher=http://127.0.0.1:8000/v1#m", lambda config: config.models.teacher.endswith("#m")),
        ('models.solvers=["echo:"]', lambda config: config.models.solvers == ["echo:"]),
        ("models.solvers=echo:", lambda config: config.models.solvers == ["echo:"]),
        ('prices."echo:".input_per_million=2', lambda config: config.prices["echo:"].input_per_million == 2),
        ('prices."http://h/v1#a=b".per_hour=1', lambda config: config.prices["http://h/v1#a=b"].per_hour == 1),
        ("run.cap=none", lambda config: config.run.cap == "none"),
        ("run.cap=2", lambda config: config.run.cap == 2),
        ("train.learning_rate=auto", lambda config: config.train.learning_rate is None),
        ("train.search.epochs=[1, 3]", lambda config: config.train.search.epochs == [1.0, 3.0]),
    ],
)
def test_overrides_reach_their_key(config_file: Path, override: str, read) -> None:  # type: ignore[no-untyped-def]
    assert read(load_config(config_file, [override]))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("run.sead=1", "unknown key 'run.sead': did you mean 'run.seed'?"),
        ("modles.teacher=echo:", "unknown key 'modles': did you mean 'models'?"),
        ('prices."openai:gpt-4o-mini".input=1', "did you mean 'prices.openai:gpt-4o-mini.input_per_million'?"),
        ('models.options."echo:".temprature=1', "did you mean 'models.options.echo:.temperature'?"),
        ("run.samples=0", "'run.samples'"),
        ("run.seed=abc", "'run.seed'"),
        ('run.variants=["D-X"]', "D-X"),
        ("run.seed", "KEY=VALUE"),
        ("=3", "KEY=VALUE"),
        ("verdict.confidence=1.5", "'verdict.confidence'"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(config_file: Path, override: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_config(config_file, [override])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_config_names_the_command_that_writes_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fractionate init"):
        load_config(tmp_path / "none.toml")


def test_broken_toml_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("[data\n")
    with pytest.raises(UsageError, match=r"broken\.toml.*line 1"):
        load_config(path)


def test_data_is_required() -> None:
    with pytest.raises(UsageError, match="'data' is missing"):
        parse_config({})
