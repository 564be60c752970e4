"""Health checks, as gRPC's own protocol has them: `Check` answers once, `Watch` whenever the status changes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """One status for all services of a server. Runs on its event loop.

    grpcio-health-checking has a servicer, too, whose watchers hold a lock while they write: one that does not read its
    answer keeps the status from changing, and with it a server from stopping, and all other watchers from an answer.
    Here nobody waits for a watcher.

    Args:
        services: Their names; empty for the server as a whole.
    """

    def __init__(self, services: Iterable[str]) -> None:
        self._services = frozenset(services)
        self._status: int = SERVING
        self._changed: asyncio.Future[None] | None = None

    def set(self, status: int) -> None:
        """Answer by that from now on."""
        self._status = status
        if self._changed is not None:
            self._changed.set_result(None)
            self._changed = None

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802  gRPC's name
        """Answer once; by NOT_FOUND for another service."""
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND)
        return health_pb2.HealthCheckResponse(status=self._status)

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802  gRPC's name
        """Answer now and whenever the status has changed, until the client leaves."""
        told = None
        while True:
            status = self._status if request.service in self._services else UNKNOWN
            if status != told:
                await context.write(health_pb2.HealthCheckResponse(status=status))
                told = status
                continue  # it may have changed meanwhile
            if self._changed is None:
                self._changed = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._changed])
