"""The OpenAPI document of a gateway: what it takes and gives, for clients and for tests that are made from it.

Source: https://spec.openapis.org/oas/v3.1.0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fractionate import __version__
from fractionate.serve.chat import LEAST_DEADLINE_S, MOST_CHOICES, MOST_STOPS

if TYPE_CHECKING:
    from fractionate.serve.gateway import Gateway

_ERRORS = {
    "400": "A field cannot be heeded, or the messages are too long: `param` names the field.",
    "401": "A key is needed, or the one given is not known.",
    "402": "A budget is used up: the message names it.",
    "403": "Without keys, a request by another site's page or under another host's name.",
    "404": "The model is not served: the message names the nearest.",
    "408": "The body did not come.",
    "413": "The body is too large.",
    "415": "The body is not sent as application/json.",
    "429": "The server is full: Retry-After says when to try again.",
    "500": "A defect of the gateway.",
    "501": "The model cannot be opened.",
    "502": "The solver failed.",
    "503": "The solver is overloaded, or the gateway is shutting down.",
    "504": "No answer within the deadline.",
}
_OF_PATH = {"400": "The request cannot be read.", "401": _ERRORS["401"], "403": _ERRORS["403"]}


def document(gateway: Gateway) -> dict[str, Any]:
    """Return the document. Nothing in it depends on who asks."""
    secured: list[dict[str, Any]] = [{"key": []}] if gateway.keys else []
    names = [*gateway.catalog.aliases, *gateway.catalog.pairs]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "fractionate",
            "version": __version__,
            "description": "Measured decomposer × solver pairs, asked by OpenAI's chat protocol.",
        },
        "paths": {
            "/v1/chat/completions": {"post": _chat(names, secured)},
            "/v1/models": {
                "get": _get("listModels", "Every model with what was measured", _object("data", "object"), secured)
            },
            "/v1/models/{model}": {"get": _model(names, secured)},
            "/healthz": {
                "get": {
                    "operationId": "health",
                    "summary": "Whether the server takes requests",
                    "security": [],
                    "responses": {
                        "200": _json_reply("It does.", _object("status")),
                        "503": _json_reply("It is shutting down.", _object("status")),
                    },
                }
            },
            "/metrics": {
                "get": {
                    "operationId": "metrics",
                    "summary": "Counters in Prometheus' text format",
                    "security": secured,
                    "responses": {
                        "200": {
                            "description": "The counters.",
                            "content": {"text/plain": {"schema": {"type": "string"}}},
                        },
                        **_refusals(_OF_PATH),
                    },
                }
            },
        },
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Error": _ERROR, "Message": _MESSAGE, "ChatRequest": _request(names)},
        },
    }


def _chat(names: list[str], secured: list[dict[str, Any]]) -> dict[str, Any]:
    whole = _object("id", "object", "created", "model", "choices", "usage", "fractionate")
    return {
        "operationId": "createChatCompletion",
        "summary": "Answer the last message's question",
        "security": secured,
        "parameters": [
            {
                "name": "x-fractionate-deadline-s",
                "in": "header",
                "required": False,
                "description": "Seconds that this request has, where they are fewer than the server's.",
                "schema": {"type": "number", "minimum": LEAST_DEADLINE_S},
            }
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ChatRequest"}}},
        },
        "responses": {
            "200": {
                "description": "The answer, whole or as a stream of chunks that ends with [DONE].",
                "headers": {
                    "x-fractionate-pair": {"description": "The pair that answered.", "schema": {"type": "string"}},
                    "x-fractionate-measured": {
                        "description": "true, or false and why this answer is not of the measured kind.",
                        "schema": {"type": "string"},
                    },
                    "x-fractionate-degraded": {
                        "description": "decomposer, where it failed and the question was answered in single stage.",
                        "schema": {"type": "string"},
                    },
                },
                "content": {
                    "application/json": {"schema": whole},
                    "text/event-stream": {},
                },
            },
            **_refusals(_ERRORS),
        },
    }


def _model(names: list[str], secured: list[dict[str, Any]]) -> dict[str, Any]:
    found = _get("getModel", "One model with what was measured", _object("id", "object", "fractionate"), secured)
    found["parameters"] = [
        {
            "name": "model",
            "in": "path",
            "required": True,
            "description": "A model's name; its slashes may stand as they are.",
            "schema": {"type": "string", "minLength": 1},
            "examples": {str(number): {"value": name} for number, name in enumerate(names)},
        }
    ]
    found["responses"] |= _refusals({"404": _ERRORS["404"]})
    return found


def _get(name: str, summary: str, schema: dict[str, Any], secured: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "security": secured,
        "responses": {"200": _json_reply("Found.", schema), **_refusals(_OF_PATH)},
    }


def _json_reply(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _refusals(by_status: dict[str, str]) -> dict[str, Any]:
    error = {"$ref": "#/components/schemas/Error"}
    return {status: _json_reply(description, error) for status, description in by_status.items()}


def _object(*required: str) -> dict[str, Any]:
    return {"type": "object", "required": list(required)}


def _or_null(**schema: Any) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def _request(names: list[str]) -> dict[str, Any]:
    number = {"type": "number"}
    text = {"type": "string", "minLength": 1, "maxLength": 1000}
    whole = {"type": "integer", "minimum": 1, "maximum": 10**7}
    stop = {"type": "string", "minLength": 1}
    return {
        "type": "object",
        "required": ["model", "messages"],
        "additionalProperties": False,
        "description": "Tools, audio, images, logprobs and logit_bias are refused by name.",
        "properties": {
            "model": {"type": "string", "enum": names},
            "messages": {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Message"}},
            "n": _or_null(type="integer", minimum=1, maximum=MOST_CHOICES),
            "stream": _or_null(type="boolean"),
            "stream_options": _or_null(
                type="object",
                additionalProperties=False,
                properties={"include_usage": _or_null(type="boolean")},
            ),
            "max_tokens": _or_null(**whole),
            "max_completion_tokens": _or_null(**whole),
            "temperature": _or_null(**number, minimum=0, maximum=2),
            "top_p": _or_null(**number, minimum=0, maximum=1),
            "presence_penalty": _or_null(**number, minimum=-2, maximum=2),
            "frequency_penalty": _or_null(**number, minimum=-2, maximum=2),
            "seed": _or_null(type="integer", minimum=-(2**63), maximum=2**63 - 1),
            "stop": {"anyOf": [stop, {"type": "array", "maxItems": MOST_STOPS, "items": stop}, {"type": "null"}]},
            "response_format": _or_null(
                type="object",
                required=["type"],
                properties={"type": {"enum": ["text", "json_object", "json_schema"]}},
            ),
            "reasoning_effort": _or_null(**text),
            "verbosity": _or_null(**text),
            "user": _or_null(**text),
            "metadata": _or_null(type="object"),
            "store": _or_null(const=False),
            "fractionate": _or_null(
                type="object",
                additionalProperties=False,
                properties={
                    "context": _or_null(type="string", description="The passage that the question is about."),
                    "test_set": _or_null(type="string", description="Whose form of answer is wanted."),
                },
            ),
        },
    }


_WORDS = {"type": "string", "pattern": r"\S"}
_PART = {
    "type": "object",
    "required": ["type", "text"],
    "properties": {"type": {"const": "text"}, "text": _WORDS},
}
_MESSAGE = {
    "type": "object",
    "required": ["role", "content"],
    "additionalProperties": False,
    "description": "The last message is the user's. In several text parts, the last is the question.",
    "properties": {
        "role": {"enum": ["system", "developer", "user", "assistant"]},
        "content": {"anyOf": [_WORDS, {"type": "array", "minItems": 1, "items": _PART}]},
    },
}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
