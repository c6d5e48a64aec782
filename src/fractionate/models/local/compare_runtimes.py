"""Compares what a base model writes on torch and on OpenVINO, which `runtime = "auto"` then goes by."""

from __future__ import annotations

from fractionate.config import ModelOptions
from fractionate.models.local.model import LocalModel
from fractionate.models.local.openvino import proof_file
from fractionate.types import Message, Request

QUESTIONS = (
    "Name the capital of France.",
    "What is twelve times seven?",
    "Write a sentence about a river.",
    "Which is larger, the Moon or the Earth?",
    "List three fruits.",
    "Translate 'good morning' into French.",
    "Why is the sky blue?",
    "How many days does a week have?",
)
"""Questions whose replies are compared before `runtime = "auto"` takes OpenVINO for a base model."""
TOKENS = 24


def are_alike(name: str) -> bool:
    """Compare the greedy replies of a base model (`local:…`) on torch and on OpenVINO, and keep what was found.

    Takes some ten seconds of one core for SmolLM2-135M. Raises UsageError where OpenVINO cannot run the model.
    """
    requests = [Request((Message("user", text),), "solver", max_tokens=TOKENS) for text in QUESTIONS]
    models = [LocalModel(name, ModelOptions(device="cpu", runtime=runtime)) for runtime in ("torch", "openvino")]
    torch_replies, replies = ([one.text for one in model.complete_batch(requests)] for model in models)
    file = proof_file(models[0].weights)
    if torch_replies == replies:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    else:
        file.unlink(missing_ok=True)
    return torch_replies == replies
