"""One model on several servers: allowed names, identity, and lookup of options and prices."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fractionate.analysis.pricing import Pricing
from fractionate.config import ModelOptions, PriceConfig, parse_config
from fractionate.config.addresses import find_for, split_name
from fractionate.errors import UsageError
from fractionate.models import check_name, open_model
from fractionate.models.openai.api import OpenAIModel
from fractionate.models.openai.replicas import Replicas
from fractionate.run.names import Names
from fractionate.types import Message, Request, Usage

A, B, C = "http://a:8000/v1", "https://b:8443/v1", "http://c/v1"
ASK = Request((Message("user", "How many?"),), "solver", max_tokens=8)


def opened(name: str, **options: Any) -> Any:
    return open_model(name, ModelOptions(**options))


def test_a_list_opens_a_model_at_each_address() -> None:
    model = opened(f"{A},{B},{C}#meta/llama-3")
    assert isinstance(model, Replicas)
    assert [server.name for server in model.servers] == [f"{one}#meta/llama-3" for one in (A, B, C)]
    assert [server.base_url for server in model.servers] == [A, B, C]
    assert {server.served_name for server in model.servers} == {"meta/llama-3"}
    assert model.name == f"{A},{B},{C}#meta/llama-3"


@pytest.mark.parametrize("name", [f"{A}#m", f"{A}/#m", f"{A}#m,n", f"{A}#org/m#q4", "openai:ft:gpt,4", f"{B}#m"])
def test_one_address_is_the_model_it_always_was(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-secret")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    model = opened(name)
    assert type(model) is OpenAIModel
    assert model.identity == name
    assert list(model.servers) == [model]
    assert list(model.other_keys(ASK)) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (f"{A},,{B}#m", "address 2 of 3 is empty"),
        (f"{A},#m", "address 2 of 2 is empty"),
        (f"{A},{B}", "names no model"),
        (f"{A},{B}#", "names no model"),
        (f"{A},{A}#m", "address 2 of 2 stands there twice"),
        (f"{A},{B},http://A:8000/v1/#m", "address 3 of 3 stands there twice"),
        (f"http://c:80/v1,{C}#m", "twice"),
        (f"{A}#m,{B}#m", "more than once"),
        (f"{A}#m,{B}#other", "more than once"),
        (f"{A}#m, {B}#m", "more than once"),
        (f"{A}, {B}#m", "does not begin with http"),
        (f"{A},b:8000/v1#m", "address 2 of 2 does not begin with http"),
        (f"{A},http://b:port/v1#m", "address 2 of 2 is not an http"),
        (f"{A},http:///v1#m", "address 2 of 2 is not an http"),
        (f"{A},http://user:hunter2@b/v1#m", "holds a user"),
        (f"{A},http://b/v1?key=hunter2#m", "holds a user, a password or a query"),
        (f"openai:m,{A}#m", "every address of a list is an http"),
        (f",{A}#m", "unknown model"),
    ],
)
def test_a_malformed_list_is_one_plain_line(name: str, words: str) -> None:
    for refuse in (check_name, opened):
        with pytest.raises(UsageError, match=words) as caught:
            refuse(name)
        assert "\n" not in str(caught.value)
        assert "hunter2" not in str(caught.value)


def test_a_config_refuses_a_malformed_list_before_anything_is_opened() -> None:
    table = {"data": {"test": ["atlas"]}, "models": {"teacher": f"{A},{A}#m"}}
    with pytest.raises(UsageError, match="twice"):
        Names(parse_config(table))
    table["models"]["teacher"] = f"{A},{B}#m"
    assert Names(parse_config(table)).teacher.model == f"{A},{B}#m"


def test_what_only_one_server_can_have_is_refused() -> None:
    with pytest.raises(UsageError, match=r"base_url.*take it out"):
        opened(f"{A},{B}#m", base_url=C)
    with pytest.raises(UsageError, match="holds a comma"):
        opened(f"{A}#m", base_url=f"{B},{C}")


def test_the_same_key_variable_serves_every_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="set MY_SERVERS_KEY"):
        opened(f"{A},{B}#m", api_key_env="MY_SERVERS_KEY")
    monkeypatch.setenv("MY_SERVERS_KEY", "sk-test-secret")
    opened(f"{A},{B}#m", api_key_env="MY_SERVERS_KEY")


def keys(name: str) -> set[str]:
    """The keys under which a model finds a stored call."""
    model = opened(name)
    return {model.key(ASK), *model.other_keys(ASK)}


def test_a_list_stores_under_its_first_address_and_finds_what_any_of_them_stored() -> None:
    one = {address: opened(f"{address}#m").key(ASK) for address in (A, B, C)}
    assert opened(f"{A},{B},{C}#m").key(ASK) == one[A]
    assert opened(f"{B},{A}#m").key(ASK) == one[B]
    assert keys(f"{A},{B}#m") == keys(f"{B},{A}#m") == {one[A], one[B]}
    assert keys(f"{A},{B},{C}#m") > keys(f"{A},{B}#m") > keys(f"{A}#m")
    assert keys(f"{A},{B}#other").isdisjoint(keys(f"{A},{B}#m"))


def test_extra_fields_are_part_of_a_list_s_identity_as_of_an_address_s() -> None:
    plain, hotter = opened(f"{A},{B}#m"), opened(f"{A},{B}#m", extra_body={"top_p": 0.5})
    assert hotter.identity == opened(f"{A}#m", extra_body={"top_p": 0.5}).identity != plain.identity
    with pytest.raises(UsageError, match=f'models.options."{A},{B}#m".extra_body.n'):
        opened(f"{A},{B}#m", extra_body={"n": 2})
    with pytest.raises(UsageError, match=f'models.options."{A},{B}#m".extra_body.plugins'):
        opened(f"{A},{B}#m", extra_body={"plugins": []}).most_usage(ASK)


def test_what_is_written_for_one_address_holds_for_the_list_and_back() -> None:
    table = {f"{A}#m": "a", f"{B}#m": "b", f"{C},{B}#m": "list", "openai:m": "hosted"}
    assert find_for(table, f"{A}#m") == "a"  # the exact name first
    assert find_for(table, f"{B},{A}#m") == "b"  # then the first address that has something
    assert find_for(table, f"{C}#m") == "list"
    assert find_for(table, f"{C}/,{A}#m") == "list"
    assert find_for(table, f"{A}/#m") is None  # two single addresses are two models, as ever
    assert find_for(table, f"{A},{B}#other") is None
    assert find_for(table, "openai:other") is None
    assert find_for({"http://b:port/v1#m": "broken"}, f"{A},{B}#m") is None


def test_options_and_prices_survive_another_server() -> None:
    options = {f"{A}#m": {"temperature": 0.5}}
    config = parse_config({"data": {"test": ["atlas"]}, "models": {"teacher": f"{A},{B}#m", "options": options}})
    assert config.options(f"{A},{B}#m").temperature == 0.5
    assert config.options(f"{B}#m").temperature == 0.0
    pricing = Pricing({f"{A},{B}#m": PriceConfig(input_per_million=2.0, output_per_million=0.0)})
    for name in (f"{A},{B}#m", f"{B},{A},{C}#m", f"{A}#m"):
        assert pricing.usd(name, Usage(1, 1_000_000)) == pytest.approx(2.0)


@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=6, unique=True), st.text(min_size=1, max_size=8))
def test_a_list_is_read_as_it_was_written(hosts: list[str], model: str) -> None:
    addresses = tuple(f"http://{host}:1/v1" for host in hosts)
    assume(",http" not in model)
    assert split_name(",".join(addresses) + f"#{model}") == (addresses, model)
