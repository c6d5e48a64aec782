"""Token counts where no provider has given any: an estimate, a bound that is never too low, a tokenizer if there is.

The bound rests on byte-level vocabularies: every token of text covers at least one byte of it, so a text of n UTF-8
bytes has at most n tokens. A chat template adds a few tokens per message on top.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache

from fractionate.config import DEFAULT_STUDENT
from fractionate.errors import FractionateError
from fractionate.files import utf8
from fractionate.types import Message, Request

BYTES_PER_TOKEN = 4.0
"""English prose under current vocabularies has 3.5 to 4.7 bytes per token; 4 is the providers' own rule of thumb."""
TEMPLATE_TOKENS = 4
"""Tokens a chat template adds to a message (role and separators), as OpenAI's cookbook counts them, rounded up."""
TEMPLATE_BOUND = 24
"""The same, never too low for the chat templates in use, their default system lines included."""

FILLER, FILLER_BYTES = "\ue000", 64
"""A letter of the private use area that stands in a forecast for so many bytes of a reply of full length."""
REPLY_BYTES = 8
"""Bytes that each token of a reply adds at most to later prompts. English prose has 4 to 5 bytes per token; and however
long a model's tokens are, no vocabulary in use makes more than 8 tokens of what is one token for another."""

TokenCounter = Callable[[str], int]
"""Counts the tokens of a text."""


def count_tokens(text: str) -> int:
    """Return the estimated tokens of a text (at least 1 if it is not empty)."""
    return -(-_bytes(text) // int(BYTES_PER_TOKEN))


def estimate_messages(messages: Iterable[Message], count: TokenCounter = count_tokens) -> int:
    """Return the estimated input tokens of a chat: each message's text and what a template adds to it."""
    return sum(count(message.content) + TEMPLATE_TOKENS for message in messages) + TEMPLATE_TOKENS


def input_bound(request: Request) -> int:
    """Return a number of input tokens that a request cannot exceed under any byte-level vocabulary."""
    text = sum(_bytes(message.content) + TEMPLATE_BOUND for message in request.messages)
    return text + TEMPLATE_BOUND + _bytes(request.response_format or "") + _bytes(request.further)


def _bytes(text: str) -> int:
    """Return the UTF-8 bytes of a text, which may hold half an emoji."""
    return len(text) if text.isascii() else len(utf8(text))


def counter_for(model: str) -> tuple[TokenCounter, str]:
    """Return a token counter for a model name, and what it is ("tokenizer NAME" or "estimate, 4 bytes per token").

    Local models are counted with their own tokenizer, `openai:` models with tiktoken if it is installed and holds the
    vocabulary; everything else, and whatever cannot be loaded, with the estimate.
    """
    if model.startswith("openai:"):
        exact = _tiktoken(model.removeprefix("openai:"))
    elif model.startswith("local:"):
        exact = _transformers(model.removeprefix("local:").partition("@")[0])
    else:
        exact = None
    return exact or (count_tokens, "estimate, 4 bytes per token")


def _tiktoken(name: str) -> tuple[TokenCounter, str] | None:
    try:
        import tiktoken  # type: ignore[import-not-found, unused-ignore]  # optional, so it may not be there

        encoding = tiktoken.encoding_for_model(name)
    except Exception:
        # Not installed, no vocabulary for this name, or no network to fetch it: the estimate stands in.
        return None
    return (lambda text: len(encoding.encode(text, disallowed_special=()))), f"tokenizer {encoding.name}"


def _transformers(path: str) -> tuple[TokenCounter, str] | None:
    try:
        from tokenizers import Tokenizer

        from fractionate.models.local.weights import resolve

        tokenizer = Tokenizer.from_file(str(resolve(path).folder() / "tokenizer.json"))
    except (FractionateError, ImportError, OSError):
        # The extra or the weights are not there: the estimate stands in, and the report says so.
        return None
    except Exception as error:
        # What tokenizers raises for a file that it cannot read has no class of its own.
        if type(error) is not Exception:
            raise
        return None
    return (lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)), f"the tokenizer of {path}"


@cache
def reference_counter() -> tuple[TokenCounter, str]:
    """Return the counter for replies that nobody knows the tokenizer of (recorded ones), and what it is."""
    return counter_for(DEFAULT_STUDENT)
