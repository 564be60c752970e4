"""VAGEN's protocol for remote environments: calls in parts, which a client repeats until it gets an answer."""

from __future__ import annotations

import asyncio
import base64
import binascii
import functools
import hashlib
import json
import os
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from gymnasium.error import ResetNeeded
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from remote_gym.errors import ConfigError, ServerFull, SessionLost
from remote_gym.protocol.requests import reset_request
from remote_gym.server.access.clients import Client
from remote_gym.server.frontends.bridge import Bridge
from remote_gym.server.frontends.hosted import Hosted
from remote_gym.server.frontends.http.doors import client_of
from remote_gym.server.frontends.http.protocols.multipart import boundary_of, read_parts, write_parts
from remote_gym.server.frontends.http.protocols.vagen_values import action_of, observation_of, prompt_of
from remote_gym.server.frontends.http.reading import Refused, answer, error_answer, parse_object, read_body
from remote_gym.server.frontends.http.values import JsonWriter

REMEMBERED = 1024
"""Answers of `connect`, and of what closes, that are kept for clients that repeat it. Of other calls each session keeps
its newest."""

MOST_CONFIGURATION = 4096
"""Bytes of a configuration that a session's id carries."""

_WRITER = JsonWriter()

Call = tuple[bytes, "asyncio.Task[Response]"]
"""A call's key, and what answers it."""


class Vagen:
    """Routes of the protocol.

    Args:
        bridge: Opens sessions.
    """

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._sessions: dict[str, Session] = {}
        self._answers: OrderedDict[bytes, asyncio.Task[Response]] = OrderedDict()
        self._most, self._patience = call_limits()
        self._room = asyncio.Semaphore(self._most or 2**30)

    def routes(self) -> list[BaseRoute]:
        """Below the prefix; the name of an environment, where it is not the default, stands before the rest."""
        found: list[BaseRoute] = []
        for prefix in ("", "/{environment}"):
            found += [
                Route(f"{prefix}/health", self._health, methods=["GET"]),
                Route(f"{prefix}/sessions", self._list, methods=["GET"]),
                Route(f"{prefix}/connect", functools.partial(self._answer, self._connect), methods=["POST"]),
                Route(f"{prefix}/call", functools.partial(self._answer, self._call), methods=["POST"]),
            ]
        return found

    async def _health(self, _: Request) -> Response:
        facts = {"ok": True, "service": "gym-env-service", "max_inflight": self._most or "unlimited"}
        return answer(json.dumps(facts).encode())

    async def _list(self, request: Request) -> Response:
        self._forget_lost()
        lease, identity = self._bridge.options.lease, client_of(request.scope).identity
        mine = [session.status(lease) for session in self._sessions.values() if session.client.identity == identity]
        most = self._bridge.options.max_sessions
        facts = {"num_sessions": len(mine), "max_sessions": most, "session_timeout": lease, "sessions": mine}
        return answer(json.dumps(facts).encode())

    async def _answer(self, method: Callable[..., Any], request: Request) -> Response:
        try:
            content_type = request.headers.get("content-type", "")
            boundary = boundary_of(content_type)
            body = await read_body(request, "multipart/form-data")
            data = _data_of(body, boundary)
            client = client_of(request.scope)
            # A client repeats the same bytes, its boundary among them, which it draws for each call.
            key = hashlib.sha256(f"{client.identity}\0{request.url.path}\0{boundary}\0".encode() + body).digest()
            task: asyncio.Task[Response] = method(client, request.path_params.get("environment", ""), data, key)
            # Shielded, since what is under way is answered when it is asked again.
            return await asyncio.shield(task)
        except Exception as error:  # noqa: BLE001 - the environment's, among others
            return error_answer(error)

    def _connect(self, client: Client, environment: str, data: Mapping[str, Any], key: bytes) -> asyncio.Task[Response]:
        if (known := self._answers.get(key)) is not None and not _is_free(known):
            return known
        return self._remember(key, self._begin(self._connected(client, environment, data)))

    def _remember(self, key: bytes, task: asyncio.Task[Response]) -> asyncio.Task[Response]:
        self._answers[key] = task
        if len(self._answers) > REMEMBERED:
            self._answers.popitem(last=False)
        return task

    async def _connected(self, client: Client, environment: str, data: Mapping[str, Any]) -> Response:
        config, seed = data.get("env_config") or {}, data.get("seed")
        if not isinstance(config, dict):
            raise ConfigError(f"is a {type(config).__name__}; send an object", field="env_config", where="env_config")
        session = Session(client, environment, config)
        if seed is None:
            session.hosted = await self._open(session)
            return self._keep(session, {}, [])
        return self._keep(session, *await self._reset(session, seed))

    def _keep(self, session: Session, shown: Mapping[str, Any], images: list[bytes]) -> Response:
        self._forget_lost()
        self._sessions[session.id] = session
        return _parts({"session_id": session.id, **shown}, images)

    def _call(self, client: Client, environment: str, data: Mapping[str, Any], key: bytes) -> asyncio.Task[Response]:
        session_id, method = data.get("session_id"), data.get("method")
        if not session_id or not method:
            raise Refused(400, f"{'session_id' if not session_id else 'method'} is missing")
        if (known := self._answers.get(key)) is not None:  # it has closed the session
            return known
        session = self._session(client, environment, str(session_id), str(method))
        if session.newest is not None and session.newest[0] == key and not _is_free(session.newest[1]):
            return session.newest[1]
        task = self._begin(self._called(session, str(method), data.get("params") or {}))
        session.newest = key, task
        session.used = time.time()
        return self._remember(key, task) if method == "close" else task

    async def _called(self, session: Session, method: str, params: Mapping[str, Any]) -> Response:
        if method == "reset":
            shown, images = await self._reset(session, params.get("seed"))
            return _parts(shown, images)
        hosted = session.hosted
        if hosted is None:
            raise ResetNeeded("the session is new here; reset first")
        try:
            if method == "step":
                return await self._step(hosted, params)
            if method == "system_prompt":
                return await self._system_prompt(hosted)
            if method == "close":
                self._sessions.pop(session.id, None)
                await hosted.close()
                return _parts({"closed": True}, [])
            found = await hosted.call(method, [], params, lambda value: _WRITER.write({"result": value}), size=0)
            return _parts_of(found, [])
        except AttributeError as error:
            raise Refused(400, str(error)) from None

    async def _reset(self, session: Session, seed: Any) -> tuple[dict[str, Any], list[bytes]]:
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
            raise ConfigError(f"is {seed!r}; send an integer or null", field="seed", where="seed")
        request = reset_request(seed, None, self._bridge.options.message_limits)
        if session.hosted is not None and not session.hosted.is_lost:
            hosted = session.hosted
            shown, images, info = await hosted.reset(request, functools.partial(_begun, hosted))
        else:
            session.hosted = hosted = await self._open(session, request)
            shown, images, info = await hosted.first(functools.partial(_begun, hosted))
        return {**shown, "info": info}, images

    async def _step(self, hosted: Hosted, params: Mapping[str, Any]) -> Response:
        def read(observation: Any, reward: Any, terminated: Any, truncated: Any, info: Any) -> Response:
            shown, images = observation_of(hosted.observation_space, observation)
            done = bool(terminated) or bool(truncated)
            return _parts({**shown, "reward": reward, "done": done, "info": info}, images)

        text = params.get("action_str")
        return await hosted.step(lambda: action_of(hosted.action_space, text), read, len(str(text)))

    async def _system_prompt(self, hosted: Hosted) -> Response:
        """Answer by what the environment says by its method of that name, if it exposes one; else by an empty text."""
        if all(each.name != "system_prompt" for each in hosted.description.exposed):
            return _parts({"obs": ""}, [])
        return _parts(*await hosted.call("system_prompt", [], {}, prompt_of, size=0))

    async def _open(self, session: Session, first: Any = None) -> Hosted:
        environment = {"environment": session.environment} if session.environment else {}
        return await self._bridge.open(
            session.client, {**environment, "entrypoint_kwargs": session.config}, first, render_mode=None
        )

    def _session(self, client: Client, environment: str, session_id: str, method: str) -> Session:
        """The session of that id; for a reset a new one, where it was opened by another server or is gone.

        Raises:
            SessionLost: If it is not here, and this is no reset.
        """
        session = self._sessions.get(session_id)
        if session is not None and session.client.identity == client.identity:
            if session.hosted is None or not session.hosted.is_lost or method == "reset":
                return session
            raise SessionLost(f"session {session_id[:40]} has ended; reset opens a new one")
        config = configuration_in(session_id) if session is None and method == "reset" else None
        if config is None:
            raise SessionLost(
                f"session {session_id[:40]} is not, or no longer, one of yours on this server; reset opens a new one"
            )
        session = self._sessions[session_id] = Session(client, environment, config, session_id)
        return session

    def _begin(self, coroutine: Coroutine[Any, Any, Response]) -> asyncio.Task[Response]:
        task = asyncio.ensure_future(self._admitted(coroutine))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    async def _admitted(self, coroutine: Coroutine[Any, Any, Response]) -> Response:
        try:
            await asyncio.wait_for(self._room.acquire(), self._patience)
        except asyncio.TimeoutError:
            coroutine.close()
            raise Refused(503, f"{self._most} calls are in progress, as many as GYM_MAX_INFLIGHT allows") from None
        try:
            return await coroutine
        finally:
            self._room.release()

    def _forget_lost(self) -> None:
        there = self._bridge.open_sessions()
        gone = [key for key, each in self._sessions.items() if each.hosted is not None and each.hosted.id not in there]
        for key in gone:
            del self._sessions[key]


class Session:
    """A session as its client knows it.

    Args:
        client: Whose it is.
        environment: Name of what it plays.
        config: Keyword arguments of the environment.
        session_id: The client's name for it; None for a new one.

    Attributes:
        id: That.
        hosted: The session that plays; None until it is opened, as by the reset that comes to another server.
        newest: The newest call.
        used: When the newest call came, in seconds since the epoch.
    """

    def __init__(
        self, client: Client, environment: str, config: Mapping[str, Any], session_id: str | None = None
    ) -> None:
        self.client = client
        self.environment = environment
        self.config = dict(config)
        self.id = session_id or new_id(config)
        self.hosted: Hosted | None = None
        self.newest: Call | None = None
        self.created = self.used = time.time()

    def status(self, lease: float) -> dict[str, Any]:
        """As ``/sessions`` lists it."""
        idle = time.time() - self.used
        times = {"created_at": self.created, "last_access": self.used, "idle_seconds": idle}
        return {"session_id": self.id, **times, "will_timeout_in": max(0.0, lease - idle)}


def new_id(config: Mapping[str, Any]) -> str:
    """An id that carries the configuration, by which another server opens the session anew.

    It is the client's own word, and checked as such when it comes back: it needs no seal.
    """
    written = json.dumps(config, separators=(",", ":")).encode()
    carried = base64.urlsafe_b64encode(written).decode() if len(written) <= MOST_CONFIGURATION else ""
    return f"{secrets.token_urlsafe(24)}.{carried}"


def configuration_in(session_id: str) -> dict[str, Any] | None:
    """The configuration that an id carries; None where it carries none."""
    carried = session_id.partition(".")[2]
    try:
        found = json.loads(base64.urlsafe_b64decode(carried)) if carried else None
    except (binascii.Error, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def call_limits() -> tuple[int, float]:
    """How many calls may be under way, 0 for any number, and the seconds that others wait for that.

    They are in environment variables, as for VAGEN's own server.

    Raises:
        ConfigError: If one says no number.
    """
    return int(_setting("GYM_MAX_INFLIGHT", "0")), float(_setting("GYM_ADMIT_TIMEOUT", "5.0"))


def _setting(name: str, default: str) -> str:
    text = os.environ.get(name) or default
    if not re.fullmatch(r"\d{1,9}(\.\d*)?" if "." in default else r"\d{1,9}", text.strip()):
        raise ConfigError(f"is {text!r}; use a number that is not negative, such as {default}", field=name, where=name)
    return text


def _is_free(task: asyncio.Task[Response]) -> bool:
    """Whether a call that is repeated is made anew, since nothing has come of it."""
    if not task.done():
        return False
    return task.cancelled() or isinstance(task.exception(), (Refused, ServerFull, ConfigError))


def _data_of(body: bytes, boundary: str) -> dict[str, Any]:
    for headers, content in read_parts(body, boundary):
        if 'name="data"' in headers.get("content-disposition", ""):
            return parse_object(content)
    raise Refused(400, "the body has no part with the name data")


def _begun(hosted: Hosted, observation: Any, info: Any) -> tuple[dict[str, Any], list[bytes], Any]:
    shown, images = observation_of(hosted.observation_space, observation)
    return shown, images, info


def _parts(data: Mapping[str, Any], images: list[bytes]) -> Response:
    return _parts_of(_WRITER.write(data), images)


def _parts_of(data: bytes, images: list[bytes]) -> Response:
    boundary = f"gym_env_{secrets.token_hex(16)}"
    parts = [("application/json; charset=utf-8", data), *(("image/png", image) for image in images)]
    kind = f'multipart/mixed; boundary="{boundary}"'
    return Response(write_parts(parts, boundary), headers={"content-type": kind})
