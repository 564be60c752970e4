"""Going on with the workers of a vector environment that another process has opened."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from remote_gym.client.connect.opening import connect
from remote_gym.client.session import ClientSession
from remote_gym.client.vector.batching import Joiner
from remote_gym.client.vector.gather import in_threads, raise_failures
from remote_gym.client.vector.shard import Shard
from remote_gym.config import ClientOptions, Limits, TlsFiles
from remote_gym.errors import ConfigError
from remote_gym.logs import get_logger
from remote_gym.protocol.description import check_resumed
from remote_gym.protocol.ticket import Resumption, SessionTicket
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.errors import decode_error

logger = get_logger(__name__)


def check_tickets(resume: Iterable[SessionTicket] | None, workers: int | None) -> tuple[SessionTicket, ...] | None:
    """The tickets of all workers; None for none.

    Raises:
        ConfigError: If they are no tickets, or not one for each worker.
    """
    if resume is None:
        return None
    if not isinstance(resume, Iterable):
        raise ConfigError(
            f"is a {type(resume).__name__}; use all workers' tickets, as `RemoteVectorEnv.tickets` has them",
            field="resume",
            where="resume",
        )
    tickets = tuple(resume)
    if not tickets or not all(isinstance(ticket, SessionTicket) for ticket in tickets):
        # By their types: a ticket's token is a secret, and so may be what was given in place of one.
        found = ", ".join(type(ticket).__name__ for ticket in tickets) or "nothing"
        raise ConfigError(
            f"holds {found}; use the tickets of all workers, as `RemoteVectorEnv.tickets` has them",
            field="resume",
            where="resume",
        )
    if len({(ticket.url, ticket.port, ticket.session) for ticket in tickets}) < len(tickets):
        raise ConfigError(
            "holds a ticket twice; use the tickets of all workers, each once", field="resume", where="resume"
        )
    if workers not in (None, len(tickets)):
        raise ConfigError(
            f"holds {len(tickets)} tickets for {workers} workers; use one for each", field="resume", where="resume"
        )
    return tickets


def resume_all(
    shards: Sequence[Shard],
    tickets: Sequence[SessionTicket],
    *,
    credentials: TlsFiles | None,
    render_mode: str | None,
    options: ClientOptions,
) -> tuple[Resumption, ...]:
    """Have shards go on with the sessions of some tickets, one for each, and tell where these stand.

    Args:
        shards: Without sessions.
        tickets: In the same order.
        credentials: PEM files; None for no TLS.
        render_mode: That they were opened with.
        options: The client's.

    Raises:
        ConfigError: If a session has another number of environments, or renders otherwise.
        RemoteGymError: As `ClientSession` does, naming the environments concerned. None is resumed then, but whoever
            had them may have been cut off from some.
    """
    ticket_of = dict(zip(shards, tickets, strict=True))
    found: dict[Shard, Resumption] = {}

    given_up = threading.Event()

    def resume(each: Shard) -> None:
        ticket = ticket_of[each]
        session = ClientSession.find(connect(ticket.url, ticket.port, credentials, options), ticket, options)
        try:
            check_resumed(session.description, render_mode, each.size)
            answer = session.take_over(options.step_timeout)
            if given_up.is_set():
                session.let_go()
                return
            each.resume(session, answer)
            returned = None if answer is None else _returned(each, answer[0], options.message_limits)
            found[each] = Resumption(executed=session.ticket.answered - ticket.answered, returned=returned)
        except BaseException:
            session.let_go()  # it may be another's, or be resumed otherwise
            raise

    try:
        raise_failures(in_threads(shards, resume, given_up))
    except BaseException:
        for each in found:
            each.session.let_go()
        raise
    _warn_if_apart(shards, found)
    return tuple(found[each] for each in shards)


def _warn_if_apart(shards: Sequence[Shard], found: Mapping[Shard, Resumption]) -> None:
    """Report workers that have executed requests which others have not: their trainer died between sending the two."""
    ahead = max(each.executed for each in found.values())
    behind = [each for each in shards if found[each].executed < ahead]
    if behind:
        counts = "; ".join(f"{each}: {found[each].executed}" for each in shards)
        logger.warning(
            "the workers stand at different steps. Requests that each has executed since its ticket was taken: %s. "
            "`send` steps to %s, and `recv` them, before a `step` of all, to have them level",
            counts,
            ", ".join(map(str, behind)),
        )


def _returned(each: Shard, response: pb.Response, limits: Limits) -> Any:
    """Result of the worker's last request for its own environments, or the exception that it raised."""
    kind = response.WhichOneof("result")
    if kind == "error":
        return decode_error(response.error)
    joiner = Joiner([each.session.description], limits)
    if kind == "step":
        return joiner.transitions([each])
    if kind == "reset":
        return joiner.observations([each]), joiner.infos([each], [each])
    return None
