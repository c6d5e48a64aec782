"""A local model that answers requests as they come, for serving. A run's batches are planned; a server's cannot be."""

from __future__ import annotations

import asyncio

from fractionate.models.base import SingleModel
from fractionate.models.local.model import LocalModel
from fractionate.types import Completion, Request


class LiveModel(SingleModel):
    """Local weights behind the contract of a server: many requests at once, each answered when it is done."""

    takes = frozenset({"max_tokens", "stop", "temperature", "seed"})

    def __init__(self, local: LocalModel) -> None:
        self._local = local
        self.name, self.identity, self.style = local.name, local.identity, local.style

    async def complete(self, request: Request) -> Completion:
        """Answer one request."""
        return (await asyncio.to_thread(self._local.complete_batch, [request]))[0]
