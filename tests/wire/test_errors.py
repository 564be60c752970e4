"""Every error arrives as itself, or as the environment's."""

from __future__ import annotations

import copy
import inspect
import pickle
import sys
import traceback

import pytest
from gymnasium.error import ResetNeeded

from remote_gym import errors
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.errors import TEXT_LENGTH, decode_error, encode_error
from remote_gym.wire.parse import parse

# What says that the network failed is found out by the end that it failed for.
NEVER_TRAVEL = (errors.TransportError,)
ALL = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, errors.RemoteGymError)]
LEAVES = [cls for cls in ALL if not cls.__subclasses__() and not issubclass(cls, NEVER_TRAVEL)]


def carry(error: BaseException) -> Exception:
    return decode_error(parse(pb.ErrorDetail, encode_error(error).SerializeToString()))


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001 - that is what is tested
        return caught


@pytest.mark.parametrize("cls", [*(cls for cls in LEAVES if cls is not errors.RemoteEnvironmentError), ResetNeeded])
def test_our_own_errors_arrive_as_themselves(cls: type[Exception]) -> None:
    arrived = carry(cls("what happened"))
    assert type(arrived) is cls
    assert str(arrived) == "what happened"


def test_an_error_that_already_is_an_environment_s_arrives_unchanged() -> None:
    arrived = carry(errors.RemoteEnvironmentError("a.B", "why", "Traceback"))
    assert type(arrived) is errors.RemoteEnvironmentError
    assert arrived.args == ("a.B", "why", "Traceback")


def test_no_kind_is_unmapped() -> None:
    for kind in pb.ErrorDetail.Kind.values():
        arrived = decode_error(pb.ErrorDetail(kind=kind, message="m"))
        assert (type(arrived) is errors.RemoteGymError) == (kind == pb.ErrorDetail.KIND_UNSPECIFIED)


def test_a_kind_from_the_future_tells_its_message() -> None:
    arrived = decode_error(pb.ErrorDetail(kind=99, message="the moon is full"))  # type: ignore[arg-type]
    assert type(arrived) is errors.RemoteGymError
    assert "99" in str(arrived)
    assert "the moon is full" in str(arrived)


def test_an_error_of_a_subclass_of_ours_arrives_as_ours() -> None:
    class Worse(errors.SessionLost):
        pass

    assert type(carry(Worse("x"))) is errors.SessionLost


def test_the_environment_s_exception_arrives_with_type_message_and_traceback() -> None:
    arrived = carry(raised(KeyError("speed")))
    assert isinstance(arrived, errors.RemoteEnvironmentError)
    assert arrived.remote_type == "builtins.KeyError"
    assert arrived.remote_message == "'speed'"
    assert arrived.remote_traceback.startswith("Traceback")
    assert "in raised" in arrived.remote_traceback


@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt(), ConnectionError("x"), errors.ConnectionLost("x")]
)
def test_any_other_exception_is_the_environment_s(error: BaseException) -> None:
    arrived = carry(error)
    assert isinstance(arrived, errors.RemoteEnvironmentError)
    assert arrived.remote_type.endswith(type(error).__qualname__)


def test_messages_of_a_megabyte_arrive_whole() -> None:
    arrived = carry(raised(ValueError("x" * 2**20)))
    assert isinstance(arrived, errors.RemoteEnvironmentError)
    assert arrived.remote_message == "x" * 2**20


def test_endless_messages_are_cut() -> None:
    arrived = carry(ValueError("x" * (TEXT_LENGTH + 5)))
    assert isinstance(arrived, errors.RemoteEnvironmentError)
    assert len(arrived.remote_message) < TEXT_LENGTH + 50
    assert str(TEXT_LENGTH + 5) in arrived.remote_message


class NoText(Exception):
    def __str__(self) -> str:
        raise SystemExit("no")

    __repr__ = __str__


class NoNotes(Exception):
    @property
    def __cause__(self) -> BaseException:
        raise RuntimeError("no")


def test_an_exception_without_text_arrives() -> None:
    arrived = carry(raised(NoText()))
    assert isinstance(arrived, errors.RemoteEnvironmentError)
    assert "SystemExit in str()" in arrived.remote_message


def test_an_exception_whose_traceback_cannot_be_formatted_arrives() -> None:
    arrived = carry(NoNotes("x"))
    assert isinstance(arrived, errors.RemoteEnvironmentError)
    assert "RuntimeError" in arrived.remote_traceback
    assert arrived.remote_message == "x"


def test_lone_surrogates_are_replaced() -> None:
    assert "?" in str(carry(ValueError("a\ud800")))
    assert str(carry(errors.ConfigError("a\ud800"))) == "a?"


@pytest.mark.parametrize("raised_by_str", [RuntimeError, SystemExit, KeyboardInterrupt, GeneratorExit, BaseException])
def test_whatever_an_error_raises_when_it_is_asked_for_its_text_goes_no_further(
    raised_by_str: type[BaseException],
) -> None:
    class Unprintable(Exception):
        def __str__(self) -> str:
            raise raised_by_str

    arrived = carry(raised(Unprintable()))
    assert isinstance(arrived, errors.RemoteEnvironmentError)
    assert arrived.remote_message == f"<{raised_by_str.__name__} in str() of the exception>"


@pytest.mark.parametrize("reason", errors.LossReason)
def test_a_lost_session_brings_its_reason_and_its_workers_last_lines(reason: errors.LossReason) -> None:
    for copied in (carry, lambda error: pickle.loads(pickle.dumps(error)), copy.copy):
        arrived = copied(errors.SessionLost("what happened", reason=reason, output="last\nlines"))
        assert isinstance(arrived, errors.SessionLost)
        assert (str(arrived), arrived.reason, arrived.output) == ("what happened", reason, "last\nlines")


@pytest.mark.parametrize("reason", errors.FullReason)
def test_a_full_server_says_of_what(reason: errors.FullReason) -> None:
    for copied in (carry, lambda error: pickle.loads(pickle.dumps(error)), copy.copy):
        arrived = copied(errors.ServerFull("no room", reason=reason))
        assert isinstance(arrived, errors.ServerFull)
        assert (str(arrived), arrived.reason) == ("no room", reason)


@pytest.mark.parametrize("reason", errors.DenialReason)
def test_a_denial_says_of_what(reason: errors.DenialReason) -> None:
    for copied in (carry, lambda error: pickle.loads(pickle.dumps(error)), copy.copy):
        arrived = copied(errors.NotPermitted("not you", reason=reason))
        assert isinstance(arrived, errors.NotPermitted)
        assert (str(arrived), arrived.reason) == ("not you", reason)


def test_no_reason_is_unmapped() -> None:
    assert {reason.name for reason in errors.LossReason} == set(pb.ErrorDetail.LossReason.keys())
    names = {"UNKNOWN_LIMIT" if reason is errors.FullReason.UNKNOWN else reason.name for reason in errors.FullReason}
    assert names == set(pb.ErrorDetail.FullReason.keys())
    assert {f"DENIED_{reason.name}" for reason in errors.DenialReason} == set(pb.ErrorDetail.DenialReason.keys())


def test_a_reason_from_the_future_is_unknown() -> None:
    detail = pb.ErrorDetail(kind=pb.ErrorDetail.SESSION_LOST, message="x", loss_reason=99)  # type: ignore[arg-type]
    arrived = decode_error(detail)
    assert isinstance(arrived, errors.SessionLost)
    assert arrived.reason is errors.LossReason.UNKNOWN
    full = decode_error(pb.ErrorDetail(kind=pb.ErrorDetail.SERVER_FULL, full_reason=99))  # type: ignore[arg-type]
    assert isinstance(full, errors.ServerFull)
    assert full.reason is errors.FullReason.UNKNOWN
    denied = decode_error(pb.ErrorDetail(kind=pb.ErrorDetail.NOT_PERMITTED, denial_reason=99))  # type: ignore[arg-type]
    assert isinstance(denied, errors.NotPermitted)
    assert denied.reason is errors.DenialReason.UNKNOWN


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exceptions have no notes")
def test_a_traceback_shows_a_workers_last_lines_once() -> None:
    error = carry(pickle.loads(pickle.dumps(errors.SessionLost("x", output="last lines"))))
    assert "".join(traceback.format_exception(error)).count("last lines") == 1
