"""An MCP server by the official SDK: `python mcp_facts.py [http PORT | dies | hangs | dies-later]`."""

from __future__ import annotations

import os
import sys
import time

from mcp.server.mcpserver import MCPServer

FACTS = {
    "What is the capital of Kenya?": "Nairobi",
    "What is the currency of Kenya?": "Kenyan shilling",
    "Which country has the capital Nairobi?": "Kenya",
}
how = sys.argv[1] if len(sys.argv) > 1 else ""
server = MCPServer("facts")


@server.tool()
def lookup(question: str) -> str:
    """Looks one fact up."""
    if how == "dies-later":
        os._exit(3)
    return FACTS[question]


@server.tool()
def add(a: int, b: int) -> str:
    """Adds two numbers."""
    return str(a + b)


if how == "dies":
    sys.exit("the database is locked")
if how == "hangs":
    time.sleep(600)
if how == "http":
    server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[2]))
else:
    server.run("stdio")
