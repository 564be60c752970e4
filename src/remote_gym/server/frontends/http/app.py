"""One ASGI application for all protocols, each below its own prefix."""

from __future__ import annotations

import json

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount
from starlette.types import ASGIApp

from remote_gym.config import ServerOptions
from remote_gym.config.server import HTTP_PROTOCOLS
from remote_gym.logs import get_logger
from remote_gym.server.frontends.bridge import Bridge
from remote_gym.server.frontends.http.doors import Doors
from remote_gym.server.frontends.http.images import import_pillow
from remote_gym.server.frontends.http.names import Names
from remote_gym.server.frontends.http.protocols.agentgpt import AgentGpt
from remote_gym.server.frontends.http.protocols.openenv_http import OpenEnv
from remote_gym.server.frontends.http.protocols.plain import PREFIX, Plain
from remote_gym.server.frontends.http.protocols.vagen import Vagen
from remote_gym.server.frontends.http.reading import answer
from remote_gym.server.service import Service

logger = get_logger(__name__)


def build(service: Service, bridge: Bridge, options: ServerOptions, names: Names) -> ASGIApp:
    """Put the application together.

    Args:
        service: What answers.
        bridge: Opens sessions.
        options: The server's.
        names: By which it may be asked for.

    Raises:
        ConfigError: If it needs a package that is not there.
    """
    if options.http_images != "list":
        import_pillow()
    protocols = {
        "openenv": OpenEnv(service, bridge).routes(),
        "agentgpt": AgentGpt(bridge).routes(),
        "vagen": Vagen(bridge).routes(),
    }
    routes: list[BaseRoute] = [Mount(f"/{name}", routes=found) for name, found in protocols.items()]
    routes += Plain(bridge).routes()
    if options.http_root is not None:
        # What is ours is never taken for another protocol's environment of that name, by which its key would not count.
        routes.append(Mount(PREFIX, routes=[]))
        routes += protocols[options.http_root]
    handlers = {HTTPException: _not_found, Exception: _failed}
    application = Starlette(routes=routes, exception_handlers=handlers)
    return Doors(application, service, options, names)


async def _not_found(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = error.detail
    if error.status_code == 404:
        known = ", ".join(f"/{name}" for name in HTTP_PROTOCOLS) + f", {PREFIX}"
        text = f"there is nothing at {request.url.path[:200]}; protocols are below {known}"
    return answer(json.dumps({"detail": text}).encode(), error.status_code, error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    logger.error("could not answer %s", request.url.path, exc_info=error, repeats="")
    return answer(b'{"detail": "the server has a fault, which its log tells"}', 500)
