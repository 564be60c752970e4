"""Calls tools by OpenEnv's own client, unmodified: runs where that is installed, and prints what it got as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from openenv.core.env_server.mcp_types import CallToolAction, ListToolsAction
from openenv.core.mcp_client import MCPToolClient


async def call(url: str, kwargs: list[Any]) -> dict[str, Any]:
    """Discover, call and fail, and play beside."""
    async with MCPToolClient(base_url=url) as client:
        tools = [tool.model_dump() for tool in await client.list_tools()]
        totals = [await client.call_tool("add", **each) for each in kwargs]
        told = await client.call_tool("tell")
        errors = []
        for name, arguments in (("fail", {}), ("reset", {}), ("add", {"sum": 1})):
            try:
                await client.call_tool(name, **arguments)
            except RuntimeError as error:
                errors.append(str(error))
        first = await client.reset(seed=3)
        stepped = await client.step(CallToolAction(tool_name="add", arguments={"number": 1}))
        listed = await client.step(ListToolsAction())
        return {
            "tools": tools,
            "totals": totals,
            "told": told,
            "errors": errors,
            "first": first.observation.observation,
            "stepped": [stepped.observation.result["data"], stepped.reward, stepped.done],
            "listed": [tool.name for tool in listed.observation.tools],
            "state": (await client.state()).step_count,
            "has": [await client.has_tool("tell"), await client.has_tool("state")],
        }


def call_synchronously(url: str, kwargs: list[Any]) -> list[Any]:
    """By the synchronous client."""
    with MCPToolClient(base_url=url).sync() as client:
        return [client.call_tool("add", **each) for each in kwargs]


async def call_by_mcp(url: str, kwargs: list[Any]) -> list[Any]:
    """By a client of MCP itself, which knows nothing of OpenEnv: its transport asks by HTTP, and keeps cookies."""
    from fastmcp import Client

    async with Client(f"{url}/mcp") as client:
        tools = [tool.name for tool in await client.list_tools()]
        return [tools, [(await client.call_tool("add", each)).content[0].text for each in kwargs]]


if __name__ == "__main__":
    kind, *arguments = json.loads(sys.argv[1])
    functions = {"call": call, "call_synchronously": call_synchronously, "call_by_mcp": call_by_mcp}
    found = functions[kind](*arguments)
    print(json.dumps(asyncio.run(found) if asyncio.iscoroutine(found) else found))
