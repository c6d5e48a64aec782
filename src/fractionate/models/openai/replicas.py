"""One model on several servers: `http://a:8000/v1,http://b:8000/v1#MODEL`.

Each address is an `OpenAIModel` of its own, with its own connections and the same key. `calls/dispatch.py` chooses the
address of each call, because it knows the load of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from fractionate.config import ModelOptions
from fractionate.config.addresses import split_name
from fractionate.errors import UsageError, without_secrets
from fractionate.models.base import SingleModel
from fractionate.models.openai.api import OpenAIModel
from fractionate.models.openai.keys import read_key
from fractionate.models.openai.wire import PASSED_ON, check_extra, check_known_cost
from fractionate.types import Completion, Request, Usage


def open_servers(name: str, options: ModelOptions | None = None) -> OpenAIModel | Replicas:
    """Return the model of a name on one server or on several. Raises UsageError for a bad name or a missing key."""
    addresses, _ = split_name(name)
    return OpenAIModel(name, options) if len(addresses) == 1 else Replicas(name, options)


class Replicas(SingleModel):
    """A model that several servers serve. Construction checks name and key and sends nothing.

    The first-written address gives the identity that new calls are stored under, and calls stored under any of the
    others are found too: a server more, one less or another order pays for nothing again.
    """

    paid = True
    takes = PASSED_ON

    def __init__(self, name: str, options: ModelOptions | None = None) -> None:
        options = options or ModelOptions()
        addresses, model = split_name(name)
        shown = without_secrets(name)
        if options.base_url:
            raise UsageError(f'models.options."{shown}".base_url: the name has the addresses already: take it out')
        # Checked under the whole name first: that is the key which the user has written the options under.
        check_extra(name, options.extra_body)
        read_key(name, options.api_key_env)
        self.name = name
        self._options = options
        self._servers = tuple(OpenAIModel(f"{address}#{model}", options) for address in addresses)
        self.identity = self._servers[0].identity
        self.style = self._servers[0].style

    def __repr__(self) -> str:
        return f"Replicas({self.name!r})"

    @property
    def servers(self) -> Sequence[OpenAIModel]:
        """The model at each address, in the order in which they are written."""
        return self._servers

    @property
    def left_out(self) -> frozenset[str]:
        """Fields of the request that any of the servers does not support, so that it is no longer sent them."""
        return frozenset().union(*(server.left_out for server in self._servers))

    def other_keys(self, request: Request) -> Iterable[str]:
        """Return the keys that a request is stored under where another address stands alone, or first in a list."""
        return (server.key(request) for server in self._servers[1:])

    def expected_seconds(self, output_tokens: float) -> float:
        """Return what one hosted model of middling speed takes."""
        return self._servers[0].expected_seconds(output_tokens)

    def most_usage(self, request: Request) -> Usage:
        """Return the most that one call can use, wherever it goes."""
        check_known_cost(self.name, self._options.extra_body)
        return self._servers[0].most_usage(request)

    async def complete(self, request: Request) -> Completion:
        """Send one request to the first address, once. Raises what `fractionate.models.faults` names."""
        return await self._servers[0].complete(request)

    async def stream(self, request: Request, on_text: Callable[[str], None]) -> Completion:
        """Do as `complete`, and hand over the answer as it is written."""
        return await self._servers[0].stream(request, on_text)

    async def close(self) -> None:
        """Close the connections to all of them."""
        for server in self._servers:
            await server.close()
