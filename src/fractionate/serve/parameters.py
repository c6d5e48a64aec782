"""The parameters of every endpoint, stated once: these models read requests and write the OpenAPI schema.

A parameter is used, accepted without effect, or refused by its name. Nothing is dropped silently.
Sources: https://platform.openai.com/docs/api-reference/chat/create and …/responses/create.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

MOST_CHOICES = 16
MOST_STOPS = 4
_TOOLS = "a pair answers questions and calls no tools"
_TEXT_ONLY = "a pair reads and writes text only"
_SEVERAL_CALLS = "an answer comes from several calls"
_KEEPS_NOTHING = "this server keeps nothing between requests"
_SEND_INPUT = f"{_KEEPS_NOTHING}: send the conversation as input"


class Only:
    """Accepts the listed values of a parameter, which have no effect, and refuses all others."""

    def __init__(self, *accepted: object, because: str) -> None:
        self._accepted = accepted
        self._because = because

    def __get_pydantic_core_schema__(self, source: object, handler: Callable[[Any], CoreSchema]) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._check)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: object) -> JsonSchemaValue:
        shown = {"enum": [*self._accepted, *([] if None in self._accepted else [None])]}
        return {**shown, "description": f"Other values are refused: {self._because}."}

    def _check(self, value: object) -> object:
        for one in self._accepted:
            # 0 == False and 1 == True in Python, but not in JSON.
            if value == one and isinstance(value, bool) == isinstance(one, bool):
                return value
        raise PydanticCustomError("unsupported_parameter", "{because}", {"because": self._because})


def _form(value: object) -> str:
    """Return the tag of a value that is either text or a list. `_param` leaves tags in angle brackets out."""
    return "<text>" if isinstance(value, str) else "<list>"


Name = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
_NonEmpty = Annotated[str, StringConstraints(min_length=1)]
_Stops = Annotated[list[_NonEmpty], Field(max_length=MOST_STOPS), Tag("<list>")]
Stop = Annotated[Annotated[_NonEmpty, Tag("<text>")] | _Stops, Discriminator(_form)]
TokenLimit = Annotated[int, Field(ge=1, le=10**7)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Empty = Annotated[Any, Only(None, [], "", because=_TEXT_ONLY)]


class Parameters(BaseModel):
    """A JSON object whose keys are all known."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)


class StreamOptions(Parameters):
    """Options of a stream."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class ResponseFormat(Parameters):
    """The form of the final call's reply, passed on to the solver's server."""

    model_config = ConfigDict(extra="allow")
    type: Literal["text", "json_object", "json_schema"]


class Extension(Parameters):
    """This project's own parameters."""

    context: str | None = None
    """The passage that the question is about."""
    test_set: str | None = None
    """The test set whose answer form and scorer apply."""


class TextPart(Parameters):
    """A text part of a message."""

    model_config = ConfigDict(extra="ignore")
    type: Annotated[str, Only("text", because="images, audio and files are not accepted")]
    text: str


_Parts = Annotated[list[TextPart], Field(min_length=1, fail_fast=True), Tag("<list>")]


class ChatMessage(Parameters):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[Annotated[str, Tag("<text>")] | _Parts, Discriminator(_form)]
    name: Empty = None
    tool_calls: Empty = None
    tool_call_id: Empty = None
    function_call: Empty = None
    refusal: Empty = None
    audio: Empty = None

    @model_validator(mode="before")
    @classmethod
    def _without_empty(cls, value: Any) -> Any:
        return _without_empty(value, "role", "content")


class AssistantMessage(ChatMessage):
    """An earlier answer, sent back with everything that came with it. Only its text is used."""

    reasoning: Any = None
    reasoning_content: Any = None
    annotations: Any = None
    fractionate: Any = None


def _role(value: Any) -> str:
    role = value.get("role") if isinstance(value, dict) else getattr(value, "role", "")
    return "<assistant>" if role == "assistant" else "<other>"


_AnyMessage = Annotated[
    Annotated[AssistantMessage, Tag("<assistant>")] | Annotated[ChatMessage, Tag("<other>")], Discriminator(_role)
]


class CommonParameters(Parameters):
    """The parameters that both APIs have under one name."""

    model: Name
    """A model of `GET /v1/models`."""
    stream: bool | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    fractionate: Extension | None = None
    user: Name | None = None
    safety_identifier: Name | None = None
    prompt_cache_key: Name | None = None
    metadata: dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    service_tier: Annotated[Any, Only("auto", "default", because="there is one tier")] = None
    tools: Annotated[Any, Only([], because=_TOOLS)] = None
    tool_choice: Annotated[Any, Only("none", "auto", because=_TOOLS)] = None
    top_logprobs: Annotated[Any, Only(0, because=_SEVERAL_CALLS)] = None


class ChatParameters(CommonParameters):
    """A chat request."""

    messages: Annotated[list[_AnyMessage], Field(min_length=1, fail_fast=True)]
    """The last message is the user's question. Of several text parts in it, the last is the question."""
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    stream_options: StreamOptions | None = None
    max_tokens: TokenLimit | None = None
    max_completion_tokens: TokenLimit | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: Stop | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: Name | None = None
    verbosity: Name | None = None
    store: Annotated[
        Any, Only(False, because="no answer can be fetched later; false keeps the answer out of the record")
    ] = None
    modalities: Annotated[Any, Only(["text"], because=_TEXT_ONLY)] = None
    functions: Annotated[Any, Only([], because=_TOOLS)] = None
    function_call: Annotated[Any, Only("none", "auto", because=_TOOLS)] = None
    logprobs: Annotated[Any, Only(False, because=_SEVERAL_CALLS)] = None
    logit_bias: Annotated[Any, Only({}, because=f"{_SEVERAL_CALLS}, to models with different vocabularies")] = None
    audio: Annotated[Any, Only(because=_TEXT_ONLY)] = None
    prediction: Annotated[Any, Only(because=_SEVERAL_CALLS)] = None
    web_search_options: Annotated[Any, Only(because=_TOOLS)] = None


class InputPart(TextPart):
    """A text part of a message of the Responses API."""

    type: Annotated[str, Only("input_text", "output_text", because="images, audio and files are not accepted")]


_InputParts = Annotated[list[InputPart], Field(min_length=1, fail_fast=True), Tag("<list>")]


class InputMessage(Parameters):
    """A message of the Responses API, or an output message of an earlier response."""

    type: Annotated[Any, Only("message", because="tools, files and references are not accepted")] = None
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[Annotated[str, Tag("<text>")] | _InputParts, Discriminator(_form)]
    id: Any = None
    status: Any = None
    phase: Any = None
    fractionate: Any = None

    @model_validator(mode="before")
    @classmethod
    def _without_empty(cls, value: Any) -> Any:
        return _without_empty(value, "role", "content", "type")


class ReasoningItem(Parameters):
    """The reasoning of an earlier response, sent back. It is not used."""

    model_config = ConfigDict(extra="ignore")
    type: Literal["reasoning"]


def _item(value: Any) -> str:
    return "<reasoning>" if isinstance(value, dict) and value.get("type") == "reasoning" else "<message>"


_InputItem = Annotated[
    Annotated[ReasoningItem, Tag("<reasoning>")] | Annotated[InputMessage, Tag("<message>")], Discriminator(_item)
]
_InputItems = Annotated[list[_InputItem], Field(min_length=1, fail_fast=True), Tag("<list>")]


class TextOptions(Parameters):
    """The form of the reply, as the Responses API writes it."""

    format: ResponseFormat | None = None
    verbosity: Name | None = None


class ReasoningOptions(Parameters):
    """How much the solver reasons. Summaries are not made, and asking for them has no effect."""

    effort: Name | None = None
    summary: Any = None
    generate_summary: Any = None


class ResponseParameters(CommonParameters):
    """A request of the Responses API. Parameters that refer to an earlier response are refused by name."""

    input: Annotated[Annotated[str, Tag("<text>")] | _InputItems, Discriminator(_form)]
    instructions: str | None = None
    max_output_tokens: TokenLimit | None = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    stream_options: dict[str, Any] | None = None
    store: bool | None = None
    """false keeps the answer out of the record (--record)."""
    background: Annotated[Any, Only(False, because=_KEEPS_NOTHING)] = None
    include: Annotated[Any, Only([], because="an answer has all its fields")] = None
    truncation: Annotated[Any, Only("disabled", because="a conversation that is too long is refused")] = None
    previous_response_id: Annotated[Any, Only(because=_SEND_INPUT)] = None
    conversation: Annotated[Any, Only(because=_SEND_INPUT)] = None
    prompt: Annotated[Any, Only(because=_KEEPS_NOTHING)] = None
    max_tool_calls: Annotated[Any, Only(because=_TOOLS)] = None


_ONE_ANSWER = [{"type": "string", "minLength": 1}, {"type": "number"}, {"type": "boolean"}]
_ANSWERS = {"type": "array", "minItems": 1, "items": {"anyOf": [*_ONE_ANSWER, {"type": "array"}]}}


class FeedbackParameters(Parameters):
    """Feedback on an answer: either `right` or `answer`. The run's scorer compares a given answer."""

    id: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    """The id of the chat completion or response."""
    right: bool | None = None
    answer: Annotated[Any, WithJsonSchema({"anyOf": [*_ONE_ANSWER, _ANSWERS, {"type": "null"}]})] = None
    """The right answer, or a list of accepted answers (each text, or a list of its spans)."""


class _Schema(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def schemas(models: Sequence[str]) -> dict[str, Any]:
    """Return the JSON schemas of all request bodies, by name; `models` are the names that `model` may have."""
    bodies = (ChatParameters, ResponseParameters, FeedbackParameters)
    _, table = models_json_schema(
        [(each, "validation") for each in bodies],
        ref_template="#/components/schemas/{model}",
        schema_generator=_Schema,
    )
    found: dict[str, Any] = table["$defs"]
    for each in (ChatParameters, ResponseParameters):
        found[each.__name__]["properties"]["model"] |= {"enum": [*models]}
    return found


def _without_empty(value: Any, *kept: str) -> Any:
    """Leave out the fields of a message that hold nothing: clients send back all fields of a message they were sent."""
    if not isinstance(value, dict) or value.keys() <= {"role", "content"}:
        return value
    return {name: each for name, each in value.items() if name in kept or each not in (None, [], "")}
