"""The OpenAPI document of a gateway: its paths and replies. Request bodies come from `parameters.py`.

Source: https://spec.openapis.org/oas/v3.1.0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from fractionate import __version__
from fractionate.serve.parameters import schemas

if TYPE_CHECKING:
    from fractionate.serve.gateway import Gateway

LEAST_DEADLINE_S = 1.0
"""The shortest deadline that a client may set for a request, in seconds."""
_ERRORS = {
    "400": "A parameter is not supported, or the request is too long: `param` names the field.",
    "401": "A key is needed, or the key is unknown.",
    "402": "A budget is used up: the message names it.",
    "403": "Without keys, a request by another site's page or under another host's name.",
    "404": "The model is not served: the message names the nearest.",
    "408": "The body did not arrive in time.",
    "413": "The body is too large.",
    "415": "The body is not sent as application/json.",
    "429": "The server is full: Retry-After says when to try again.",
    "500": "A defect of the gateway.",
    "501": "The model cannot be opened.",
    "502": "The solver failed.",
    "503": "The solver is overloaded, or the gateway is shutting down.",
    "504": "No answer within the deadline.",
}
_OF_GET = {"400": "The request cannot be read.", "401": _ERRORS["401"], "403": _ERRORS["403"]}
_OF_FEEDBACK = {
    **{status: _ERRORS[status] for status in ("400", "401", "403", "408", "413", "415", "500")},
    "404": "No such answer is recorded for this key, or it is not among the latest.",
    "409": "The server keeps no record.",
    "503": "The feedback could not be written.",
}
_ANSWER_HEADERS = {
    "x-fractionate-pair": "The pair that answered.",
    "x-fractionate-measured": "true, or false and why this answer is not of the measured kind.",
    "x-fractionate-degraded": "decomposer, where it failed and the question was answered in single stage.",
}
_TEXT = {"type": "string"}
_TEXT_OR_NULL = {"type": ["string", "null"]}
_ERROR_FIELDS = {"message": _TEXT, "type": _TEXT, "param": _TEXT_OR_NULL, "code": _TEXT_OR_NULL}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "object", "required": [*_ERROR_FIELDS], "properties": _ERROR_FIELDS}},
}


def document(gateway: Gateway) -> dict[str, Any]:
    """Return the document. It is the same for every client."""
    names = [*gateway.catalog.aliases, *gateway.catalog.pairs]
    chat = _object("id", "object", "created", "model", "choices", "usage", "fractionate")
    response = _object("id", "object", "created_at", "status", "model", "output", "usage", "fractionate")
    open_to_all: dict[str, Any] = {"security": []}
    paths = {
        "/v1/chat/completions": _answering("createChatCompletion", "Answer the last message's question", chat, "Chat"),
        "/v1/responses": _answering("createResponse", "The same in the Responses API's form", response, "Response"),
        "/v1/feedback": {
            "post": {
                "operationId": "createFeedback",
                "summary": "Say whether a recorded answer is right, or which answer is; the latest feedback counts",
                "requestBody": _body("FeedbackParameters"),
                "responses": {
                    "200": _json("The feedback is kept; `right` rates the answer.", _object("object", "id", "right")),
                    **_errors(_OF_FEEDBACK),
                },
            }
        },
        "/v1/models": _get(
            "listModels", "Every model with its measurements", _json("Found.", _object("object", "data"))
        ),
        "/v1/models/{model}": _get(
            "getModel",
            "One model, measured",
            _json("Found.", _object("id", "object", "fractionate")),
            {**_OF_GET, "404": _ERRORS["404"]},
            parameters=[_model_in_path(names)],
        ),
        "/metrics": _get(
            "metrics",
            "Counters in Prometheus' text format",
            {"description": "The counters.", "content": {"text/plain": {"schema": _TEXT}}},
        ),
        "/healthz": {
            "get": {
                "operationId": "health",
                "summary": "Whether the server accepts requests",
                **open_to_all,
                "responses": {
                    "200": _json("It does.", _object("status")),
                    "503": _json("It is shutting down.", _object("status")),
                },
            }
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "fractionate",
            "version": __version__,
            "description": "Measured decomposer × solver pairs behind OpenAI's chat protocol.",
        },
        "security": [{"key": []}] if gateway.keys else [],
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Error": _ERROR, **schemas(names)},
        },
    }


def _answering(name: str, summary: str, whole: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return the path of an API that answers questions; its body is the model `{kind}Parameters`."""
    deadline = {
        "name": "x-fractionate-deadline-s",
        "in": "header",
        "required": False,
        "description": "Seconds that this request has; the server's deadline is the maximum.",
        "schema": {"type": "number", "minimum": LEAST_DEADLINE_S},
    }
    answer = {
        "description": "The answer, whole or as a stream of events.",
        "headers": {name: {"description": text, "schema": _TEXT} for name, text in _ANSWER_HEADERS.items()},
        "content": {"application/json": {"schema": whole}, "text/event-stream": {}},
    }
    return {
        "post": {
            "operationId": name,
            "summary": summary,
            "parameters": [deadline],
            "requestBody": _body(f"{kind}Parameters"),
            "responses": {"200": answer, **_errors(_ERRORS)},
        }
    }


def _get(
    name: str, summary: str, found: dict[str, Any], errors: Mapping[str, str] = _OF_GET, **more: Any
) -> dict[str, Any]:
    return {
        "get": {"operationId": name, "summary": summary, **more, "responses": {"200": found, **_errors(errors)}},
    }


def _model_in_path(names: Iterable[str]) -> dict[str, Any]:
    return {
        "name": "model",
        "in": "path",
        "required": True,
        "description": "A model's name; its slashes may stand as they are.",
        "schema": {"type": "string", "minLength": 1},
        "examples": {str(number): {"value": name} for number, name in enumerate(names)},
    }


def _body(schema: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"required": True, "content": content}


def _json(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _errors(by_status: Mapping[str, str]) -> dict[str, Any]:
    error = {"$ref": "#/components/schemas/Error"}
    return {status: _json(description, error) for status, description in by_status.items()}


def _object(*required: str) -> dict[str, Any]:
    return {"type": "object", "required": list(required)}
