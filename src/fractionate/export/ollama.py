"""The Modelfile that makes a GGUF file a model of Ollama (https://docs.ollama.com/modelfile)."""

from __future__ import annotations

from fractionate.export.chat_form import ChatForm


def modelfile(file: str, form: ChatForm, max_tokens: int, context: int) -> str:
    """Return a Modelfile beside `file`: its template, its stop token, greedy, replies of at most `max_tokens`."""
    return "\n".join(
        (
            f"FROM ./{file}",
            f'TEMPLATE """{form.go()}"""',
            "PARAMETER temperature 0",
            f'PARAMETER stop "{form.end}"',
            f"PARAMETER num_predict {max_tokens}",
            f"PARAMETER num_ctx {context}",
            "",
        )
    )
