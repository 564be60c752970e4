"""Hosts environments in a Python that has nothing of ours: sent there as text, and run from it.

A worker starts a command that ends in a Python, from 3.6 on, and sends it this file. So it is one file, imports the
standard library and NumPy alone, and keeps to the syntax of Python 3.6. What it exchanges with the worker is written
down in ``remote_gym.worker.environment.guests.messages``; values and spaces have the form of the protocol's messages
``Value`` and ``Space``, which are read and written here by hand.
"""

import collections
import contextlib
import copy
import datetime
import decimal
import enum
import faulthandler
import fractions
import importlib
import importlib.util
import inspect
import io
import linecache
import mmap
import os
import pathlib
import reprlib
import select
import shutil
import signal
import string
import struct
import sys
import tempfile
import traceback
import types
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

GRACE = 2.0
"""Seconds to close environments in, once nobody is at the other end, until this process and its group are killed."""

GUEST = "remote_gym_guest"
"""The name under which a worker runs this file."""

KEPT = []  # type: List[Callable[[], None]]
"""Functions to call after a fork, which Python 3.6 keeps weakly."""

STACKS_SIGNAL = signal.SIGRTMAX - 2 if hasattr(signal, "SIGRTMAX") else getattr(signal, "SIGUSR2", 0)
"""Asks a process for its stacks. One that environments, and what they are made with, leave alone."""

TICK = 0.1
"""Seconds after which is looked again whether the stacks are asked for."""

PATH_BYTES = 4096
"""Bytes that the path of a folder of ours may have."""

POLLRDHUP = 0x2000  # Linux's: the other end of a socket writes no more


def watch() -> Any:
    """Fork a process that kills this one's group some time after standard input, or this process, has ended.

    It also asks this one for its stacks, by a signal, if more comes to standard input while a request is answered.

    A process rather than a thread: it works while C code holds the interpreter's lock, and no environment that forks
    finds a thread. It is forked before anything large is imported.

    In the end it removes the folder of the files that were sent.

    Returns:
        What both share: a byte, whether a request is being answered, and the path of that folder, up to a zero.
    """
    busy = mmap.mmap(-1, 1 + PATH_BYTES)
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    if os.getpgrp() != os.getpid():
        return busy  # the group is somebody else's
    alive, held = os.pipe()
    guest = os.getpid()
    if os.fork():
        os.close(alive)
        close_in_children(held)
        return busy
    try:
        os.close(held)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (1, 2):
            os.dup2(null, descriptor)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        poll = select.poll()
        poll.register(alive, 0)
        poll.register(0, POLLRDHUP if sys.platform == "linux" else 0)
        ready, was_asked = poll.poll(1000 * TICK), False
        while not ready:
            is_asked = busy[0] == 1 and bool(select.select([0], [], [], 0)[0])
            if is_asked and not was_asked and STACKS_SIGNAL:
                os.kill(guest, STACKS_SIGNAL)
            was_asked = is_asked
            ready = poll.poll(1000 * TICK)
        if alive not in dict(ready):
            poll.unregister(0)
            poll.poll(1000 * GRACE)
        group = os.getpgrp()
        os.setpgid(0, 0)  # to be there when nobody is any more that could write to the folder
        with contextlib.suppress(OSError):
            os.killpg(group, signal.SIGKILL)
        folder = busy[1:].rstrip(b"\0")
        if folder:
            remove_folder(os.fsdecode(folder))
    finally:
        os._exit(1)


def remove_folder(folder: str) -> None:
    """Remove a folder and all that is in it; what has just been killed may still write to it."""
    for _ in range(3):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.lexists(folder):
            return
        select.select([], [], [], TICK)


def close_in_children(*descriptors: int) -> None:
    """Let nothing that is forked from now on keep these open."""

    def close() -> None:
        for descriptor in descriptors:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    if hasattr(os, "register_at_fork"):  # since Python 3.7
        os.register_at_fork(after_in_child=close)
    else:
        from multiprocessing import util

        util.register_after_fork(close, lambda run: run())
        KEPT.append(close)


busy = watch() if __name__ == GUEST else bytearray(1 + PATH_BYTES)

no_numpy = ""
"""Why there is no NumPy, which `main` says to the worker."""
try:
    import numpy as np
except Exception as failure:  # ImportError, or what a NumPy of another Python raises
    if __name__ != GUEST:
        raise
    np = None  # type: ignore[assignment]
    is_absent = isinstance(failure, ImportError) and failure.name == "numpy"
    no_numpy = "has no NumPy" if is_absent else "cannot import its NumPy ({})".format(str(failure)[:1000])


# ------------------------------------------------------------------------------------------------------------
# Protocol messages, written

VARINT, FIXED64, LENGTH = 0, 1, 2


def varint(number: int) -> bytes:
    """A number from 0 on."""
    if number < 128:
        return _SMALL[number]
    groups = bytearray()
    while number > 127:
        groups.append(number & 127 | 128)
        number >>= 7
    groups.append(number)
    return bytes(groups)


_SMALL = [bytes([number]) for number in range(128)]


def tag(field: int, kind: int = LENGTH) -> bytes:
    """Beginning of a field: its number and kind."""
    return varint(field << 3 | kind)


def part(start: bytes, content: bytes) -> bytes:
    """A field of texts, bytes or a message."""
    return b"".join((start, varint(len(content)), content))


def packed_numbers(start: bytes, numbers: Any) -> bytes:
    """A repeated field of numbers from 0 on; nothing for none."""
    content = b"".join(varint(int(number)) for number in numbers)
    return part(start, content) if content else b""


def count(start: bytes, number: int) -> bytes:
    """A field of a number, which is left out where it is 0."""
    return start + varint(number & 2**64 - 1) if number else b""


def zigzag(number: int) -> int:
    """A number of either sign as one from 0 on."""
    return number << 1 if number >= 0 else (-number << 1) - 1


def text_bytes(text: str) -> bytes:
    """UTF-8, in which lone surrogates have become question marks."""
    return text.encode("utf-8", "replace")


FIRST, SECOND, THIRD, FOURTH, FIFTH, SIXTH = map(tag, range(1, 7))
"""Beginnings of texts, bytes and messages, in the fields of these numbers."""
N1, N2, N3, N4, N5, N6, N7 = (tag(field, VARINT) for field in range(1, 8))

(NONE, _, _, BIG, _, TEXT, SURROGATES, BINARY, LIST, TUPLE, DICT, ARRAY, SCALAR, OBJECTS, GRAPH, UNENCODABLE) = (
    tag(field) for field in range(1, 17)
)
(COMPLEX, BYTEARRAY, SET, FROZENSET, DEQUE, DECIMAL, FRACTION, PATH, DATE, TIME, DATETIME, TIMEDELTA, RANGE) = (
    tag(field) for field in range(17, 30)
)
MASKED, STRUCTURED, NAMED = map(tag, (30, 31, 32))
BOOLEAN, INTEGER, NUMBER = tag(2, VARINT), tag(3, VARINT), tag(5, FIXED64)

DTYPES = {
    "b1": 1,
    "i1": 2,
    "i2": 3,
    "i4": 4,
    "i8": 5,
    "u1": 6,
    "u2": 7,
    "u4": 8,
    "u8": 9,
    "f2": 10,
    "f4": 11,
    "f8": 12,
    "c8": 13,
    "c16": 14,
}
"""Numbers of the dtypes of numbers, by kind and bytes."""
OF_LENGTH = {"U": (15, 4), "S": (16, 1), "V": (17, 1)}
OF_TIME = {"M": 18, "m": 19}
LONG = {"f": 20, "c": 21}
LONG_WIDTHS = {63: 10, 112: 16}  # by the bits of the mantissa
REPR_LENGTH = 200
LARGE = 2**16
"""Bytes from which on a message is written in pieces rather than copied once more."""


class NoWireForm(Exception):
    """Why a value cannot travel."""


def type_name(value: object) -> str:
    """Module and qualified name of a value's class."""
    return "{}.{}".format(type(value).__module__, type(value).__qualname__)


def short_repr(value: object) -> str:
    """A value's ``repr``, shortened."""
    short = reprlib.Repr()
    short.maxlevel = 3
    short.maxstring = short.maxother = short.maxlong = REPR_LENGTH
    try:
        return short.repr(value)[:REPR_LENGTH]
    except BaseException as error:  # a stranger's __repr__ may raise anything
        return "<{} in repr>".format(type(error).__name__)


def dtype_fields(dtype: Any) -> bytes:
    """The fields of an Array that tell its dtype, but for its byte order."""
    kind = dtype.kind
    code = DTYPES.get("{}{}".format(kind, dtype.itemsize))
    if code is not None:
        return N1 + varint(code)
    if kind in OF_LENGTH and dtype.names is None and dtype.subdtype is None:
        code, unit = OF_LENGTH[kind]
        return N1 + varint(code) + count(N4, dtype.itemsize // unit)
    if kind in OF_TIME:
        unit_name, units = np.datetime_data(dtype)
        named = b"" if unit_name == "generic" else part(SIXTH, text_bytes(unit_name))
        return N1 + varint(OF_TIME[kind]) + named + count(N7, 0 if units == 1 else units)
    if kind in LONG and long_width():
        return N1 + varint(LONG[kind]) + count(N4, long_width())
    raise NoWireForm("dtype {} has no wire form".format(dtype))


def long_width() -> int:
    """Bytes that a long double takes without its padding; 0 where its format has no wire form."""
    return LONG_WIDTHS.get(int(np.finfo(np.longdouble).nmant), 0) if sys.byteorder == "little" else 0


def element_bytes(array: Any) -> bytes:
    """Elements in C order, little-endian."""
    dtype = array.dtype
    if dtype.kind in LONG and "{}{}".format(dtype.kind, dtype.itemsize) not in DTYPES:
        native = np.ascontiguousarray(array, np.clongdouble if dtype.kind == "c" else np.longdouble)
        size = np.dtype(np.longdouble).itemsize
        rows = native.reshape(-1).view(np.uint8).reshape(-1, size)
        return bytes(rows[:, : long_width()].tobytes())
    if dtype.byteorder == ">" or sys.byteorder != "little":
        return bytes(array.astype(dtype.newbyteorder("<")).tobytes())
    return bytes(array.tobytes())


def array_head(array: Any) -> bytes:
    """All of an Array but its elements."""
    big = N5 + b"\1" if array.dtype.byteorder == ">" else b""
    return dtype_fields(array.dtype) + packed_numbers(SECOND, array.shape) + big


def room_of(array: Any) -> int:
    """Bytes of an array, where an axis of length 0 counts as one of 1, so that no other is giant."""
    room = array.dtype.itemsize or 1  # type: int
    for length in array.shape:
        room *= length or 1
    return room


class Writer:
    """Writes values, and puts a short description where one has no wire form.

    Args:
        limits: Bounds of the worker: ``depth``, ``items``, ``text_length``, ``array_bytes``.
    """

    def __init__(self, limits: Dict[str, int]) -> None:
        self.depth = limits["depth"]
        self.most_items = limits["items"]
        self.text_length = limits["text_length"]
        self.array_bytes = limits["array_bytes"]
        self.tried = []  # type: List[Tuple[str, bytes, List[bytes]]]
        """Spaces of unknown classes: the class, the space that each travels as, and samples of it."""
        self.items = 0
        self.entered = []  # type: List[int]
        self.strict = False

    def write(self, value: Any, strict: bool = False) -> bytes:
        """Write a message ``Value``.

        Args:
            value: Anything.
            strict: Whether what has no wire form raises; else a short description takes its place.
        """
        self.strict = strict
        self.items = self.most_items - 1
        del self.entered[:]
        return self.value(value)

    def value(self, value: Any) -> bytes:
        """Write a value within another."""
        level = len(self.entered)
        try:
            write = WRITERS.get(type(value), write_other)  # type: Callable[[Any, Any], bytes]
            return write(self, value)
        except Exception as error:  # NoWireForm, or what a stranger's class raises when it is read
            del self.entered[level:]
            if self.strict:
                if isinstance(error, NoWireForm):
                    raise
                raise NoWireForm("a {} that raises {} when it is read".format(type_name(value), type_name(error)))
        names = part(FIRST, text_bytes(type_name(value))) + part(SECOND, text_bytes(short_repr(value)))
        return part(UNENCODABLE, names)

    def check_length(self, what: str, length: int, unit: str) -> None:
        """Refuse a text that is too long, with `NoWireForm`."""
        if length > self.text_length:
            raise NoWireForm("{} of {:,} {} is over the limit (Limits.text_length)".format(what, length, unit))

    def check_bytes(self, what: str, length: int) -> None:
        """Refuse too many bytes, with `NoWireForm`."""
        if length > self.array_bytes:
            raise NoWireForm("{} of {:,} bytes is over the limit (Limits.array_bytes)".format(what, length))

    def enter(self, container: object, size: int) -> None:
        """Go a level deeper, into so many items."""
        if id(container) in self.entered or len(self.entered) >= self.depth or size > self.items:
            raise NoWireForm("a {} contains itself, or is too deep or too large".format(type_name(container)))
        self.items -= size
        self.entered.append(id(container))

    def list_items(self, start: bytes, owner: object, values: Any) -> bytes:
        """A repeated field of values."""
        self.enter(owner, len(values))
        write = self.value
        content = b"".join([part(start, write(item)) for item in values])
        self.entered.pop()
        return content

    def dict_content(self, owner: object, entries: Dict[Any, Any]) -> bytes:
        """The content of a message ``Dict``."""
        self.enter(owner, len(entries))
        write = self.value
        if all(type(key) is str and len(key) <= self.text_length for key in entries):
            try:
                keys = [part(FIRST, key.encode("utf-8")) for key in entries]
            except UnicodeEncodeError:
                keys = [part(SECOND, write(key)) for key in entries]
        else:
            keys = [part(SECOND, write(key)) for key in entries]
        content = b"".join(keys + [part(THIRD, write(item)) for item in entries.values()])
        self.entered.pop()
        return content

    def named(self, value: object, plain: bytes, form: int = 0, fields: Any = (), member: str = "") -> bytes:
        """A value of a class that the worker does not have, as the nearest that it has."""
        names = b"".join(part(FOURTH, text_bytes(name)) for name in fields)
        head = part(FIRST, text_bytes(type_name(value))) + count(N2, form) + part(THIRD, plain) + names
        return part(NAMED, head + (part(FIFTH, text_bytes(member)) if member else b""))


def write_int(writer: Writer, value: int) -> bytes:
    """Write an int of any size."""
    if -(2**63) <= value < 2**63:
        return INTEGER + varint(zigzag(value))
    size = value.bit_length() // 8 + 1
    writer.check_length("an int", size, "bytes")
    return part(BIG, value.to_bytes(size, "little", signed=True))


def write_text(writer: Writer, value: str) -> bytes:
    """Write a text, with lone surrogates where it has any."""
    writer.check_length("a str", len(value), "characters")
    try:
        return part(TEXT, value.encode("utf-8"))
    except UnicodeEncodeError:
        return part(SURROGATES, value.encode("utf-8", "surrogatepass"))


def write_array(writer: Writer, value: Any) -> bytes:
    """Write an array of numbers, texts, times or objects."""
    writer.check_bytes("an array", room_of(value))
    if value.ndim > 32:
        raise NoWireForm("an array of {} axes has no wire form".format(value.ndim))
    if value.dtype.names is not None:
        return write_structured(writer, value, value)
    if value.dtype.kind == "O":
        content = packed_numbers(FIRST, value.shape)
        return part(OBJECTS, content + writer.list_items(SECOND, value, value.ravel().tolist()))
    head = array_head(value)
    return part(ARRAY, head + part(THIRD, element_bytes(value)))


def write_structured(writer: Writer, owner: Any, array: Any) -> bytes:
    """Write an array of named fields, column by column."""
    fields = [(name,) + tuple(array.dtype.fields[name][:2]) for name in array.dtype.names]
    end = total = 0
    for _, field, offset in sorted(fields, key=lambda each: int(each[2])):
        if offset < end:
            raise NoWireForm("fields of a structured array overlap")
        end, total = offset + field.itemsize, total + field.itemsize
    if array.dtype.itemsize > 3 * total:
        raise NoWireForm("fields of a structured array have more between them than they take")
    writer.enter(owner, len(fields))
    columns = b"".join(part(FOURTH, write_array(writer, array[name])) for name, _, _ in fields)
    writer.entered.pop()
    names = b"".join(part(SECOND, text_bytes(name)) for name, _, _ in fields)
    offsets = packed_numbers(THIRD, [offset for _, _, offset in fields])
    sizes = count(N5, array.dtype.itemsize) + count(N6, owner is not array)
    return part(STRUCTURED, packed_numbers(FIRST, array.shape) + names + offsets + columns + sizes)


def write_masked(writer: Writer, value: Any) -> bytes:
    """Write a masked array with its mask, fill value, and whether the mask is hard."""
    if value is np.ma.masked:
        return part(MASKED, b"")
    writer.enter(value, 3)
    content = part(FIRST, write_array(writer, value.data))
    if value.mask is not np.ma.nomask:
        content += part(SECOND, write_array(writer, np.asarray(value.mask)))
    if not value.dtype.hasobject:
        filling, usual = (np.asarray(each.fill_value) for each in (value, np.ma.MaskedArray(np.empty(0, value.dtype))))
        if filling.dtype != usual.dtype or filling.tobytes() != usual.tobytes():
            content += part(THIRD, write_array(writer, filling))
    writer.entered.pop()
    return part(MASKED, content + count(N4, bool(value.hardmask)))


def write_scalar(writer: Writer, value: Any) -> bytes:
    """A NumPy number, text or time."""
    writer.check_bytes("a scalar", value.nbytes)
    if value.dtype.names is not None:
        return write_structured(writer, value, np.asarray(value))
    if isinstance(value, (np.str_, np.bytes_)):
        writer.check_length("a {}".format(type_name(value)), len(value), "characters")
    if isinstance(value, np.str_):  # not by way of an array, which drops NUL characters at the end
        content = N1 + b"\x0f" + count(N4, len(value)) + part(THIRD, value.encode("utf-32-le", "surrogatepass"))
    elif isinstance(value, np.bytes_):
        content = N1 + b"\x10" + count(N4, len(value)) + part(THIRD, bytes(value))
    else:
        array = np.asarray(value)
        content = array_head(array) + part(THIRD, element_bytes(array))
    return part(SCALAR, content)


def write_graph(writer: Writer, value: Any) -> bytes:
    """An element of a Graph space."""
    writer.enter(value, 3)
    content = part(FIRST, writer.value(value.nodes))
    for start, member in ((SECOND, value.edges), (THIRD, value.edge_links)):
        if member is not None:
            content += part(start, writer.value(member))
    writer.entered.pop()
    return part(GRAPH, content)


def write_deque(writer: Writer, value: Any) -> bytes:
    """Write a deque with its bound."""
    bound = b"" if value.maxlen is None else N2 + varint(value.maxlen)
    return part(DEQUE, writer.list_items(FIRST, value, value) + bound)


def write_fraction(_writer: Writer, value: fractions.Fraction) -> bytes:
    """Write a fraction of whole numbers up to 1 KiB."""
    numbers = [
        number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
        for number in (value.numerator, value.denominator)
    ]
    if max(map(len, numbers)) > 1024:
        raise NoWireForm("too long")
    return part(FRACTION, part(FIRST, numbers[0]) + part(SECOND, numbers[1]))


def write_bytes(writer: Writer, value: Any) -> bytes:
    """Write bytes, or a bytearray."""
    writer.check_bytes("a {}".format(type(value).__name__), len(value))
    return part(BINARY if type(value) is bytes else BYTEARRAY, bytes(value))


def write_decimal(writer: Writer, value: decimal.Decimal) -> bytes:
    """Write a Decimal."""
    text = str(value)
    writer.check_length("a Decimal", len(text), "digits")
    return part(DECIMAL, text_bytes(text))


def write_path(writer: Writer, value: Any) -> bytes:
    """Write a path of this system, or of any."""
    windows = isinstance(value, pathlib.PureWindowsPath)
    writer.check_length("a path", len(str(value)), "characters")
    text = str(value).encode("utf-8", "surrogatepass")
    return part(PATH, part(FIRST, text) + count(N2, windows) + count(N3, not isinstance(value, pathlib.Path)))


def date_content(value: Any) -> bytes:
    """The content of a message ``Date``."""
    return N1 + varint(value.year) + N2 + varint(value.month) + N3 + varint(value.day)


def time_content(value: Any) -> bytes:
    """The content of a message ``Time``."""
    content = count(N1, value.hour) + count(N2, value.minute) + count(N3, value.second) + count(N4, value.microsecond)
    content += count(N5, value.fold)
    if value.tzinfo is None:
        return content
    offset = value.utcoffset()
    zone = b"" if offset is None else N1 + varint(zigzag(offset // datetime.timedelta(microseconds=1)))
    name = value.tzname()
    if name and not name.startswith("UTC"):
        zone += part(SECOND, text_bytes(name))
    return content + part(SIXTH, zone)


def write_datetime(_writer: Writer, value: Any) -> bytes:
    """Write a time of a day, with its offset from UTC where it has one."""
    return part(DATETIME, part(FIRST, date_content(value)) + part(SECOND, time_content(value)))


def write_timedelta(_writer: Writer, value: datetime.timedelta) -> bytes:
    """Write a difference in days, seconds and microseconds."""
    content = count(N1, zigzag(value.days)) + count(N2, value.seconds) + count(N3, value.microseconds)
    return part(TIMEDELTA, content)


def write_range(_writer: Writer, value: range) -> bytes:
    """Write a range of numbers of 64 bits."""
    numbers = (value.start, value.stop, value.step)
    if not all(-(2**63) <= number < 2**63 for number in numbers):
        raise NoWireForm("too large")
    return part(RANGE, b"".join(count(start, zigzag(number)) for start, number in zip((N1, N2, N3), numbers)))


def write_other(writer: Writer, value: Any) -> bytes:
    """An instance of any other class, as the nearest plain value."""
    cls = type(value)
    if issubclass(cls, np.generic):
        return write_scalar(writer, value)
    if issubclass(cls, np.ndarray):
        if isinstance(value, np.ma.MaskedArray):
            if cls is not np.ma.MaskedArray and value is not np.ma.masked:
                raise NoWireForm("a {} has no wire form".format(type_name(value)))
            return write_masked(writer, value)
        return writer.named(value, write_array(writer, np.asarray(value)))
    if cls.__name__ == "GraphInstance" and all(hasattr(value, name) for name in ("nodes", "edges", "edge_links")):
        return write_graph(writer, value)
    array = array_of(value)
    if array is not None:
        return write_array(writer, array)
    if issubclass(cls, pathlib.PurePath):
        return write_path(writer, value)
    level = object()  # `value` itself is entered once it is a container
    writer.enter(level, 1)
    found = write_nearest(writer, cls, value)
    writer.entered.pop()
    return found


def write_nearest(writer: Writer, cls: type, value: Any) -> bytes:
    """An instance of a subclass of Python's own types, of an enumeration, a dataclass or a collection."""
    member = str(getattr(value, "_name_", "") or "") if issubclass(cls, enum.Enum) else ""
    for base, plain in SUBCLASSED:
        if issubclass(cls, base):
            if base is tuple:
                names = getattr(value, "_fields", None)
                form = 1 if type(names) is tuple and len(names) == len(value) else 0
                content = part(TUPLE, writer.list_items(FIRST, value, tuple(value)))
                return writer.named(value, content, form, names if form else ())
            if base is dict:
                return writer.named(value, part(DICT, writer.dict_content(value, dict(value.items()))))
            if base is list:
                return writer.named(value, part(LIST, writer.list_items(FIRST, value, list(value))))
            return writer.named(value, writer.value(plain(value)), member=member)
    if issubclass(cls, enum.Enum):
        return writer.named(value, writer.value(value.value), 3, member=member)
    names = getattr(cls, "__dataclass_fields__", None)
    if names is not None or issubclass(cls, types.SimpleNamespace):
        kept = {
            name: getattr(value, name) for name in (vars(value) if names is None else names) if hasattr(value, name)
        }
        return writer.named(value, part(DICT, writer.dict_content(value, kept)), 2)
    if issubclass(cls, collections.abc.Mapping):
        return writer.named(value, part(DICT, writer.dict_content(value, {key: value[key] for key in value})))
    if issubclass(cls, (collections.abc.Set, collections.abc.Sequence)) and len(value) <= writer.items:
        start = SET if issubclass(cls, collections.abc.Set) else LIST
        return writer.named(value, part(start, writer.list_items(FIRST, value, list(value))))
    raise NoWireForm("a value of type {} has no wire form".format(type_name(value)))


def array_of(value: Any) -> Any:
    """An array of another library as NumPy's; None for what is none."""
    cls = type(value)
    if cls.__module__.partition(".")[0] == "torch" and hasattr(value, "detach"):
        return value.detach().cpu().numpy()
    if hasattr(cls, "__array__") or hasattr(cls, "__array_interface__"):
        return np.asarray(value)
    return None


SUBCLASSED = (
    (int, int.__index__),
    (float, float.__float__),
    (str, str.__str__),
    (bytes, bytes),
    (list, list),
    (tuple, tuple),
    (dict, dict),
    (set, set),
    (frozenset, frozenset),
    (complex, lambda value: complex(value.real, value.imag)),
    (bytearray, bytearray),
)  # type: Tuple[Tuple[type, Callable[[Any], Any]], ...]

WRITERS = {
    type(None): lambda _writer, _value: NONE + b"\0",
    bool: lambda _writer, value: BOOLEAN + (b"\1" if value else b"\0"),
    int: write_int,
    float: lambda _writer, value: NUMBER + struct.pack("<d", value),
    str: write_text,
    bytes: write_bytes,
    list: lambda writer, value: part(LIST, writer.list_items(FIRST, value, value)),
    tuple: lambda writer, value: part(TUPLE, writer.list_items(FIRST, value, value)),
    dict: lambda writer, value: part(DICT, writer.dict_content(value, value)),
    set: lambda writer, value: part(SET, writer.list_items(FIRST, value, value)),
    frozenset: lambda writer, value: part(FROZENSET, writer.list_items(FIRST, value, value)),
    complex: lambda _writer, value: part(COMPLEX, struct.pack("<BdBd", 9, value.real, 17, value.imag)),
    bytearray: write_bytes,
    collections.deque: write_deque,
    decimal.Decimal: write_decimal,
    fractions.Fraction: write_fraction,
    datetime.date: lambda _writer, value: part(DATE, date_content(value)),
    datetime.time: lambda _writer, value: part(TIME, time_content(value)),
    datetime.datetime: write_datetime,
    datetime.timedelta: write_timedelta,
    range: write_range,
}  # type: Dict[type, Callable[[Any, Any], bytes]]
if np is not None:
    WRITERS[np.ndarray] = write_array
    for scalar_type in (np.float64, np.float32, np.int64, np.int32, np.uint8, np.bool_):
        WRITERS[scalar_type] = write_scalar


# ------------------------------------------------------------------------------------------------------------
# Protocol messages, read. They come of our own worker, which has held their contents against its limits.


def read_varint(data: bytes, at: int) -> Tuple[int, int]:
    """A number, and where the next byte is."""
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7


def read_fields(data: bytes) -> Iterator[Tuple[int, Any]]:
    """Number and content of each field: an int, a float, or bytes."""
    at, end = 0, len(data)
    while at < end:
        key, at = read_varint(data, at)
        kind = key & 7
        content = None  # type: Any
        if kind == VARINT:
            content, at = read_varint(data, at)
        elif kind == FIXED64:
            (content,) = struct.unpack_from("<d", data, at)
            at += 8
        elif kind == LENGTH:
            size, at = read_varint(data, at)
            content = data[at : at + size]
            at += size
        else:
            raise ValueError("a field of kind {}".format(kind))
        yield key >> 3, content


def read_message(data: bytes, repeated: Tuple[int, ...] = ()) -> Dict[int, Any]:
    """The fields of a message by their numbers; those of `repeated` are lists."""
    found = {number: [] for number in repeated}  # type: Dict[int, Any]
    for number, content in read_fields(data):
        if number in repeated:
            found[number].append(content)
        else:
            found[number] = content
    return found


def read_numbers(content: Any) -> Tuple[int, ...]:
    """A repeated field of numbers, which is packed."""
    numbers, at, data = [], 0, content or b""
    while at < len(data):
        number, at = read_varint(data, at)
        numbers.append(number)
    return tuple(numbers)


def unzigzag(number: int) -> int:
    """A number of either sign."""
    return number >> 1 if number & 1 == 0 else -((number + 1) >> 1)


def signed(data: bytes) -> int:
    """A number in two's complement."""
    return int.from_bytes(data, "little", signed=True)


def read_value(data: bytes) -> Any:
    """Read a message ``Value``."""
    for number, content in read_fields(data):
        return READERS[number](content)
    raise ValueError("a value of no kind")


def read_items(data: bytes, field: int = 1) -> List[Any]:
    """The values of a repeated field."""
    return [read_value(content) for number, content in read_fields(data) if number == field]


def read_dict(data: bytes) -> Dict[Any, Any]:
    """Read a message ``Dict``."""
    found = read_message(data, (1, 2, 3))
    keys = [name.decode("utf-8") for name in found[1]] or [read_value(key) for key in found[2]]
    return dict(zip(keys, map(read_value, found[3])))


def read_dtype(found: Dict[int, Any]) -> Any:
    """The dtype that the fields of an Array tell."""
    code = found.get(1, 0)
    for name, each in DTYPES.items():
        if each == code:
            return np.dtype(name)
    for kind, (each, _) in OF_LENGTH.items():
        if each == code:
            return np.dtype("{}{}".format(kind, found.get(4, 0)))
    for kind, each in OF_TIME.items():
        if each == code:
            unit = found.get(6, b"").decode("ascii")
            return np.dtype("{}8[{}{}]".format(kind, found.get(7, 1), unit) if unit else "{}8".format(kind))
    raise ValueError("arrays of the dtype numbered {} cannot be read in a guest".format(code))


def read_array(data: bytes) -> Any:
    """Read a message ``Array``."""
    found = read_message(data)
    shape = read_numbers(found.get(2))
    if found.get(1) in LONG.values():
        return read_long(found, shape)
    dtype = read_dtype(found)
    little = dtype if sys.byteorder == "little" else dtype.newbyteorder("<")
    array = np.ndarray(shape, little, found.get(3, b"") or bytes(1)).astype(dtype)
    return array.astype(dtype.newbyteorder(">")) if found.get(5) else array


def read_long(found: Dict[int, Any], shape: Tuple[int, ...]) -> Any:
    """An array of long doubles, or of pairs of them, from a machine that has them as wide, or as wide as a float64."""
    width, data = found.get(4, 0), found.get(3, b"")
    if width == long_width():
        rows = np.frombuffer(data, np.uint8).reshape(-1, width)
        whole = np.zeros((len(rows), np.dtype(np.longdouble).itemsize), np.uint8)
        whole[:, :width] = rows
        array = whole.reshape(-1).view(np.longdouble)  # type: Any
    elif width == 8:
        array = np.frombuffer(data, "<f8").astype(np.longdouble)
    else:
        raise ValueError("long doubles of {} bytes cannot be read here, where they have another format".format(width))
    if found[1] == LONG["c"]:
        array = array.view(np.clongdouble)
    array = array.reshape(shape)
    return array.astype(array.dtype.newbyteorder(">")) if found.get(5) else array


def read_objects(data: bytes) -> Any:
    """Read a message ``ObjectArray``."""
    array = np.empty(read_numbers(read_message(data, (2,)).get(1)), object)
    flat = array.reshape(-1)
    for index, item in enumerate(read_items(data, 2)):
        flat[index] = item
    return array


def read_graph(data: bytes) -> Any:
    """An element of a Graph space, of the library's own class."""
    found = read_message(data)
    members = [read_value(found[number]) if number in found else None for number in (1, 2, 3)]
    for name in ("gymnasium", "gym"):
        spaces = sys.modules.get(name + ".spaces")
        if hasattr(spaces, "GraphInstance"):
            return spaces.GraphInstance(*members)  # type: ignore[union-attr]
    raise ValueError("this Gym has no Graph spaces")


def read_deque(data: bytes) -> Any:
    """Read a message ``Deque``."""
    return collections.deque(read_items(data), read_message(data).get(2))


def read_fraction(data: bytes) -> fractions.Fraction:
    """Read a message ``Fraction``."""
    found = read_message(data)
    return fractions.Fraction(signed(found[1]), signed(found[2]))


def read_path(data: bytes) -> Any:
    """A path; of another system, one that need not be this one's."""
    found = read_message(data)
    text = found.get(1, b"").decode("utf-8", "surrogatepass")
    if found.get(2):
        return pathlib.PureWindowsPath(text)
    return pathlib.PurePosixPath(text) if found.get(3) or os.name != "posix" else pathlib.Path(text)


def read_date(data: bytes) -> datetime.date:
    """Read a message ``Date``."""
    found = read_message(data)
    return datetime.date(found[1], found[2], found[3])


def read_time(data: bytes) -> datetime.time:
    """Read a message ``Time``; its zone is a fixed offset."""
    found = read_message(data)
    zone = None
    if 6 in found:
        offset = datetime.timedelta(microseconds=unzigzag(read_message(found[6]).get(1, 0)))
        zone = datetime.timezone(offset)
    hour, minute, second, microsecond, fold = [found.get(number, 0) for number in (1, 2, 3, 4, 5)]
    return datetime.time(hour, minute, second, microsecond, zone, fold=fold)


def read_datetime(data: bytes) -> datetime.datetime:
    """Read a message ``DateTime``."""
    found = read_message(data)
    return datetime.datetime.combine(read_date(found[1]), read_time(found.get(2, b"")))


def read_timedelta(data: bytes) -> datetime.timedelta:
    """Read a message ``TimeDelta``."""
    found = read_message(data)
    return datetime.timedelta(unzigzag(found.get(1, 0)), found.get(2, 0), found.get(3, 0))


def read_range(data: bytes) -> range:
    """Read a message ``Range``."""
    found = read_message(data)
    return range(*(unzigzag(found.get(number, 0)) for number in (1, 2, 3)))


def read_complex(data: bytes) -> complex:
    """Read a message ``Complex``."""
    found = read_message(data)
    return complex(found.get(1, 0.0), found.get(2, 0.0))


def read_named(data: bytes) -> Any:
    """The plain value of an instance of a class that only the client has; attributes of a record as a namespace."""
    found = read_message(data, (4,))
    value = read_value(found[3])
    return types.SimpleNamespace(**value) if found.get(2) == 2 else value


def read_structured(data: bytes) -> Any:
    """A structured array, or a scalar of one."""
    found = read_message(data, (2, 4))
    shape = read_numbers(found.get(1))
    columns = [read_value(column) for column in found[4]]
    names = [name.decode("utf-8") for name in found[2]]
    formats = [(column.dtype, column.shape[len(shape) :]) for column in columns]
    offsets = list(read_numbers(found.get(3)))
    dtype = np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": found.get(5, 0)})
    array = np.zeros(shape, dtype)
    for name, column in zip(names, columns):
        array[name] = column
    return array[()] if found.get(6) else array


def read_masked(data: bytes) -> Any:
    """A masked array, or NumPy's constant `masked`."""
    found = read_message(data)
    if 1 not in found:
        return np.ma.masked
    mask = read_value(found[2]) if 2 in found else np.ma.nomask
    filling = read_value(found[3])[()] if 3 in found else None
    return np.ma.MaskedArray(read_value(found[1]), mask=mask, fill_value=filling, hard_mask=bool(found.get(4)))


def read_unknown(_data: bytes) -> Any:
    """Refuse what cannot be read here."""
    raise ValueError("what had no wire form at the other end cannot be read")


READERS = {
    1: lambda _content: None,
    2: bool,
    3: unzigzag,
    4: signed,
    5: lambda content: content,
    6: lambda content: content.decode("utf-8"),
    7: lambda content: content.decode("utf-8", "surrogatepass"),
    8: lambda content: content,
    9: read_items,
    10: lambda content: tuple(read_items(content)),
    11: read_dict,
    12: read_array,
    13: lambda content: read_array(content)[()],
    14: read_objects,
    15: read_graph,
    16: read_unknown,
    17: read_complex,
    18: bytearray,
    19: lambda content: set(read_items(content)),
    20: lambda content: frozenset(read_items(content)),
    21: read_deque,
    22: lambda content: decimal.Decimal(content.decode("ascii")),
    23: read_fraction,
    24: read_path,
    25: read_date,
    26: read_time,
    27: read_datetime,
    28: read_timedelta,
    29: read_range,
    30: read_masked,
    31: read_structured,
    32: read_named,
}  # type: Dict[int, Callable[[Any], Any]]


# ------------------------------------------------------------------------------------------------------------
# Spaces


def library_class(thing: object, names: Any) -> str:
    """The name of the nearest class of Gym's or Gymnasium's that a thing is of, among some; empty for none."""
    for cls in type(thing).__mro__:
        if cls.__module__.partition(".")[0] in ("gym", "gymnasium") and cls.__name__ in names:
            return cls.__name__
    return ""


def write_space(space: Any, writer: Writer, depth: int = 0) -> bytes:
    """Write a message ``Space``."""
    if depth > writer.depth:
        raise ConfigError("a space is nested deeper than {} levels (Limits.depth)".format(writer.depth))
    name = library_class(space, SPACES)
    if not name:
        return write_texts(space, writer)
    field, write = SPACES[name]
    message = part(tag(field), write(space, writer, depth + 1))
    cls = type(space)
    if cls.__name__ != name or cls.__module__.partition(".")[0] not in ("gym", "gymnasium"):
        try:
            packed = [writer.write(sample, True) for sample in samples_of(space)]
        except NoWireForm as error:
            raise ConfigError("a space of type {} has a sample that cannot travel: {}".format(type_name(space), error))
        writer.tried.append((type_name(space), message, packed))
    return message


TRIALS = 32
"""Samples of a space of an unknown class that have to be elements of the one that it travels as."""
TRIAL_BYTES = 2**24
"""Bytes after which no more of them are drawn."""


def samples_of(space: Any) -> Iterator[Any]:
    """Elements drawn from a copy, so that the space's own generator does not move."""
    shared = getattr(sys.modules.get("gym.spaces.prng"), "np_random", None)  # before Gym 0.12, whose spaces have none
    state = None if shared is None else shared.get_state()
    try:
        twin, size = copy.deepcopy(space), 0
        if hasattr(twin, "seed"):
            twin.seed(0)
        for _ in range(TRIALS):
            sample = twin.sample()
            yield sample
            size += getattr(sample, "nbytes", 0)
            if size > TRIAL_BYTES:
                break
    except Exception as error:
        raise ConfigError("a space of type {} cannot be copied and sampled: {!r}".format(type_name(space), error))
    finally:
        if shared is not None:
            shared.set_state(state)


def write_texts(space: Any, writer: Writer) -> bytes:
    """Write a space of an unknown class whose samples are texts, as a message ``TextSpace`` with room for any."""
    samples = list(samples_of(space)) if library_class(space, ("Space",)) else [None]  # type: List[Any]
    if not all(isinstance(sample, str) for sample in samples):
        raise ConfigError("a space of type {} has no wire form; use one of Gym's own".format(type_name(space)))
    longest = min(max([TEXT_ROOM] + [4 * len(sample) for sample in samples]), writer.text_length)
    usual = string.digits + string.ascii_letters + string.punctuation + " \n\t"
    characters = usual + "".join(sorted(set().union(*samples) - set(usual)))
    return part(tag(5), count(N2, longest) + part(THIRD, text_bytes(characters)))


TEXT_ROOM = 4096
"""Characters that a text of unknown length may have, at least."""


def number_code(dtype: Any) -> bytes:
    """The field of a space's dtype."""
    code = DTYPES.get("{}{}".format(np.dtype(dtype).kind, np.dtype(dtype).itemsize))
    if code is None:
        raise ConfigError("a space has the dtype {!r}; use one of numbers".format(dtype))
    return varint(code)


def bounds(array: Any) -> bytes:
    """One element where all are equal, all of them otherwise."""
    data = element_bytes(array)
    first = data[: array.itemsize]
    return first if first * array.size == data else data


def write_box(space: Any, _writer: Writer, _depth: int) -> bytes:
    """The content of a message ``BoxSpace``."""
    dtype = np.dtype(space.dtype)
    low, high = np.asarray(space.low, dtype), np.asarray(space.high, dtype)
    below, above = getattr(space, "bounded_below", None), getattr(space, "bounded_above", None)
    if below is None or above is None:  # before Gym 0.14
        below, above = -np.inf < low, high < np.inf
    content = N1 + number_code(dtype) + packed_numbers(SECOND, low.shape)
    parts = (low, high, np.asarray(below, bool), np.asarray(above, bool))
    return content + b"".join(part(tag(field), bounds(array)) for field, array in enumerate(parts, 3))


def write_discrete(space: Any, _writer: Writer, _depth: int) -> bytes:
    """The content of a message ``DiscreteSpace``."""
    dtype = np.dtype(getattr(space, "dtype", None) or np.int64)
    if dtype.kind not in "iu":
        dtype = np.dtype(np.int64)
    return count(N1, int(space.n)) + count(N2, int(getattr(space, "start", 0))) + N3 + number_code(dtype)


def write_multi_discrete(space: Any, _writer: Writer, _depth: int) -> bytes:
    """The content of a message ``MultiDiscreteSpace``."""
    nvec = np.asarray(space.nvec)
    dtype = np.dtype(space.dtype or np.int64)
    if nvec.size and nvec.max() > np.iinfo(dtype).max:  # of old Gyms, whose elements overflow as well
        dtype = np.dtype(np.int64)
    start = np.asarray(getattr(space, "start", np.zeros(nvec.shape)), dtype)
    content = N1 + number_code(dtype) + packed_numbers(SECOND, nvec.shape)
    return content + part(THIRD, element_bytes(nvec.astype(dtype))) + part(FOURTH, element_bytes(start))


def write_multi_binary(space: Any, _writer: Writer, _depth: int) -> bytes:
    """The content of a message ``MultiBinarySpace``."""
    is_number = isinstance(space.n, (int, np.integer))
    return packed_numbers(FIRST, (space.n,) if is_number else tuple(space.n)) + count(N2, is_number)


def write_text_space(space: Any, _writer: Writer, _depth: int) -> bytes:
    """The content of a message ``TextSpace``."""
    lengths = count(N1, int(space.min_length)) + count(N2, int(space.max_length))
    return lengths + part(THIRD, "".join(space.character_list).encode("utf-8"))


def write_dict_space(space: Any, writer: Writer, depth: int) -> bytes:
    """The content of a message ``DictSpace``."""
    content = b"".join(part(FIRST, writer.write(key)) for key in space.spaces)
    content += b"".join(part(SECOND, write_space(member, writer, depth)) for member in space.spaces.values())
    return content + count(N3, not getattr(space, "sort_keys", True))


def write_members(space: Any, writer: Writer, depth: int) -> bytes:
    """The content of a message ``TupleSpace`` or ``OneOfSpace``."""
    return b"".join(part(FIRST, write_space(member, writer, depth)) for member in space.spaces)


def write_sequence(space: Any, writer: Writer, depth: int) -> bytes:
    """The content of a message ``SequenceSpace``."""
    return part(FIRST, write_space(space.feature_space, writer, depth)) + count(
        N2, bool(getattr(space, "stack", False))
    )


def write_graph_space(space: Any, writer: Writer, depth: int) -> bytes:
    """The content of a message ``GraphSpace``."""
    content = part(FIRST, write_space(space.node_space, writer, depth))
    if space.edge_space is None:
        return content
    return content + part(SECOND, write_space(space.edge_space, writer, depth))


SPACES = {
    "Box": (1, write_box),
    "Discrete": (2, write_discrete),
    "MultiDiscrete": (3, write_multi_discrete),
    "MultiBinary": (4, write_multi_binary),
    "Text": (5, write_text_space),
    "Dict": (6, write_dict_space),
    "Tuple": (7, write_members),
    "Sequence": (8, write_sequence),
    "Graph": (9, write_graph_space),
    "OneOf": (10, write_members),
}  # type: Dict[str, Tuple[int, Callable[[Any, Writer, int], bytes]]]

Packing = Tuple[int, Callable[[Any], Optional[bytes]], Callable[[bytes, int], Any]]
"""Bytes of a packed element, what packs one that is canonical, and what reads one from there on."""


def whole_bytes(array: Any) -> Any:
    """The elements of a large array: its own memory, if they lie there as they travel."""
    return memoryview(array).cast("B") if array.flags.c_contiguous else array.tobytes()


def packing(space: Any) -> Optional[Packing]:
    """How elements of a space are packed, as ``remote_gym.wire.spaces.layout`` has it; None where they are not."""
    name = library_class(space, SPACES)
    if name in ("Box", "MultiDiscrete", "MultiBinary"):
        return packing_of_array(tuple(space.shape), np.dtype(space.dtype))
    if name == "Discrete":
        return packing_of_number(np.dtype(getattr(space, "dtype", None) or np.int64))
    if name in ("Dict", "Tuple"):
        keys = tuple(space.spaces) if name == "Dict" else None
        members = [packing(member) for member in (space.spaces.values() if keys is not None else space.spaces)]
        known = [member for member in members if member is not None]
        return packing_of_members(keys, known) if len(known) == len(members) else None
    return None


def packing_of_array(shape: Tuple[int, ...], dtype: Any) -> Optional[Packing]:
    """Pack arrays of numbers."""
    if not dtype.isnative or "{}{}".format(dtype.kind, dtype.itemsize) not in DTYPES or sys.byteorder != "little":
        return None
    size = dtype.itemsize
    for length in shape:
        size *= int(length)

    def pack(element: Any) -> Optional[bytes]:
        if type(element) is not np.ndarray or element.dtype != dtype or element.shape != shape:
            return None
        return whole_bytes(element) if size >= LARGE else bytes(element.tobytes())

    def read(data: bytes, at: int) -> Any:
        return np.ndarray(shape, dtype, data, at).copy() if size else np.zeros(shape, dtype)

    return size, pack, read


def packing_of_number(dtype: Any) -> Optional[Packing]:
    """Pack NumPy integers."""
    if dtype.kind not in "iu" or sys.byteorder != "little":
        return None
    scalar, size, is_signed = dtype.type, dtype.itemsize, dtype.kind == "i"

    def pack(element: Any) -> Optional[bytes]:
        return element.tobytes() if type(element) is scalar else None

    known = {}  # type: Dict[bytes, Any]

    def read(data: bytes, at: int) -> Any:
        packed = data[at : at + size]
        found = known.get(packed)
        if found is None:
            found = scalar(int.from_bytes(packed, "little", signed=is_signed))
            if len(known) < 256:
                known[packed] = found
        return found

    return size, pack, read


def packing_of_members(keys: Optional[Tuple[Any, ...]], members: List[Packing]) -> Packing:
    """Pack dicts, or tuples where there are no keys."""

    def pack(element: Any) -> Optional[bytes]:
        if keys is None:
            if type(element) is not tuple or len(element) != len(members):
                return None
            items = element  # type: Any
        else:
            if type(element) not in (dict, collections.OrderedDict) or tuple(element) != keys:
                return None
            items = element.values()
        pieces = []
        for (_, pack_member, _), item in zip(members, items):
            piece = pack_member(item)
            if piece is None:
                return None
            pieces.append(piece)
        return b"".join(pieces)

    def read(data: bytes, at: int) -> Any:
        found = []
        for size, _, read_member in members:
            found.append(read_member(data, at))
            at += size
        return tuple(found) if keys is None else dict(zip(keys, found))

    return sum(member[0] for member in members), pack, read


def packing_of_batch(space: Any, num_envs: int) -> Optional[Packing]:
    """How elements of ``gymnasium.vector.utils.batch_space(space, num_envs)`` are packed, given the space of one."""
    name = library_class(space, SPACES)
    if name in ("Box", "Discrete", "MultiDiscrete", "MultiBinary"):
        dtype = np.dtype(getattr(space, "dtype", None) or np.int64)
        return packing_of_array((num_envs,) + tuple(space.shape or ()), dtype)
    if name in ("Dict", "Tuple"):
        keys = tuple(space.spaces) if name == "Dict" else None
        members = [
            packing_of_batch(each, num_envs) for each in (space.spaces.values() if keys is not None else space.spaces)
        ]
        known = [member for member in members if member is not None]
        return packing_of_members(keys, known) if len(known) == len(members) else None
    return None


# ------------------------------------------------------------------------------------------------------------
# Environments


class ConfigError(Exception):
    """A fault of the server's configuration, which its owner has to mend."""


def library_of(environment: Any) -> str:
    """``"gymnasium"`` or ``"gym"``, whose environment it is; empty for neither's."""
    return module_of(environment, "Env")


def module_of(environment: Any, class_name: str) -> str:
    """Which of Gymnasium and Gym the class of that name is from that an environment is of; empty for neither."""
    for cls in type(environment).__mro__:
        name = cls.__module__.partition(".")[0]
        if cls.__name__ == class_name and name in ("gym", "gymnasium"):
            return name
    return ""


def version_of(library: str) -> Tuple[int, ...]:
    """Its version, as numbers."""
    module = sys.modules[library]
    text = str(getattr(module, "__version__", None) or getattr(sys.modules.get(library + ".version"), "VERSION", "0"))
    return tuple(int(word) for word in text.split(".")[:2] if word.isdigit())


def layers_of(environment: Any) -> List[Any]:
    """The environment and all that it wraps, outermost first."""
    layers = [environment]
    wrappers = ("Wrapper", "VectorWrapper", "VectorEnvWrapper")
    while library_class(layers[-1], wrappers) and hasattr(layers[-1], "env"):
        layers.append(layers[-1].env)
    return layers


def takes(function: Any, name: str) -> bool:
    """Whether a function names a parameter."""
    try:
        return name in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False


def passes_on(function: Any, name: str) -> bool:
    """Whether a function names a parameter, or takes any."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False
    return name in parameters or any(each.kind is each.VAR_KEYWORD for each in parameters.values())


class Hosted:
    """One environment, with the interface that Gymnasium's have now.

    Args:
        environment: Of Gymnasium from 0.26 on, or of Gym from 0.10 on.
        render_mode: What it was asked to render as, where its own attribute does not say.
    """

    num_envs = 0
    """How many there are, where it is a vector environment."""

    def __init__(self, environment: Any, render_mode: Optional[str]) -> None:
        self.environment = environment
        library = library_of(environment)
        self.is_old = library == "gym" and version_of(library) < (0, 26)
        self.asked_mode = render_mode
        self.ended = False  # whether the last step has ended an episode, of an environment that is stepped with others
        self.observation = packing(environment.observation_space)
        self.action = packing(environment.action_space)
        self.layers = layers_of(environment)
        self.step = self.step_old if self.is_old else environment.step  # type: Callable[[Any], Any]

    def resets_by(self, name: str) -> bool:
        """Whether a parameter of ``reset`` reaches the environment below all its wrappers."""
        *wrappers, innermost = [layer.reset for layer in self.layers]
        return takes(innermost, name) and all(passes_on(reset, name) for reset in wrappers)

    def reset(self, seed: Any, options: Any) -> Any:
        """Observation and info, as Gymnasium's ``reset(seed=, options=)`` returns them."""
        if not self.is_old:
            return self.environment.reset(seed=seed, options=options)
        arguments = {}  # type: Dict[str, Any]
        if seed is not None:
            if self.resets_by("seed"):
                arguments["seed"] = seed
            else:
                self.environment.seed(seed)
        if options:
            if not self.resets_by("options"):
                raise TypeError("this environment's reset() takes no options, as is so before Gym 0.22")
            arguments["options"] = options
        if self.resets_by("return_info"):
            arguments["return_info"] = True
        return self.with_info(self.environment.reset(**arguments), "return_info" in arguments)

    def with_info(self, returned: Any, asked: bool) -> Any:
        """Observation and info of what a reset returned, which may be the observation alone."""
        is_pair = isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[1], dict)
        if is_pair and (asked or not library_class(self.environment.observation_space, ("Tuple",))):
            return returned
        return returned, {}

    def step_old(self, action: Any) -> Any:
        """The five values of Gymnasium's ``step``."""
        returned = self.environment.step(action)
        if not isinstance(returned, tuple) or len(returned) != 4:
            return returned
        observation, reward, done, info = returned
        if isinstance(info, dict) and info.get("TimeLimit.truncated"):
            return observation, reward, False, True, info
        return observation, reward, done, False, info

    @property
    def render_mode(self) -> Optional[str]:
        """As the environment says, or as it was asked for where it says nothing."""
        mode = getattr(self.environment, "render_mode", None)
        return self.asked_mode if mode is None and self.is_old else mode

    def render(self) -> Any:
        """Render in the mode that was asked for."""
        if self.is_old and getattr(self.environment, "render_mode", None) is None:
            return None if self.asked_mode is None else self.environment.render(mode=self.asked_mode)
        return self.environment.render()

    def metadata(self) -> Dict[Any, Any]:
        """Metadata under the names that Gymnasium has for them."""
        found = dict(getattr(self.environment, "metadata", None) or {})
        for old, new in (("render.modes", "render_modes"), ("video.frames_per_second", "render_fps")):
            if old in found:
                found.setdefault(new, found[old])
        return found

    def spec(self) -> Any:
        """The parts of its spec that a client may know; None if it has none."""
        spec = getattr(self.environment, "spec", None)
        if spec is None:
            return None
        threshold, most = getattr(spec, "reward_threshold", None), getattr(spec, "max_episode_steps", None)
        if most is None:
            most = getattr(spec, "tags", {}).get("wrapper_config.TimeLimit.max_episode_steps")  # Gym before 0.12
        is_random = bool(getattr(spec, "nondeterministic", False))
        return (
            str(spec.id),
            None if threshold is None else float(threshold),
            is_random,
            None if most is None else int(most),
        )

    # Attributes that the entrypoint exposes, as ``remote_gym.worker.environment.exposure`` finds them

    def layer_with(self, name: str) -> Any:
        """The outermost layer that has an attribute."""
        if name == RANDOM:
            return self.environment.unwrapped
        for layer in self.layers:
            if has(layer, name):
                return layer
        raise AttributeError("the environment has no {!r}".format(name))

    def find(self, name: str) -> Any:
        """An attribute, or one of an attribute; of the random generator, its state."""
        first, *rest = name.split(".")
        found = getattr(self.layer_with(first), first)
        for each in rest:
            found = getattr(found, each)
        return generator_state(found) if name == RANDOM else found

    def kind_of(self, name: str) -> Optional[bool]:
        """Whether an attribute is a method; None if there is none of that name."""
        try:
            if name == RANDOM:
                self.find(name)
                return False
            if "." in name:
                return callable(self.find(name))
            static = inspect.getattr_static(self.layer_with(name), name)
            return isinstance(static, (staticmethod, classmethod)) or callable(static)
        except (AttributeError, TypeError):
            return None

    def assign(self, name: str, value: Any) -> None:
        """Set an attribute of the layer that has it."""
        holder, _, last = name.rpartition(".")
        layer = self.find(holder) if holder else self.layer_with(last)
        if name == RANDOM:
            layer.np_random.bit_generator.state = value
        else:
            setattr(layer, last, value)


class HostedVector(Hosted):
    """A vector environment, with the interface that Gymnasium's have now.

    Args:
        environment: Of ``gym.vector`` or ``gymnasium.vector``, or one like these whose spaces are one environment's.
        render_mode: What it was asked to render as, where its own attribute does not say.
    """

    single_observation_space = None  # type: Any
    single_action_space = None  # type: Any

    def __init__(self, environment: Any, render_mode: Optional[str]) -> None:
        self.num_envs = int(environment.num_envs)
        for name in ("observation_space", "action_space"):
            single = getattr(environment, "single_" + name, None)
            setattr(self, "single_" + name, getattr(environment, name) if single is None else single)
        super().__init__(environment, render_mode)
        library = module_of(environment, "VectorEnv")
        version = version_of(library) if library else (0,)
        self.is_old = library != "gymnasium" and not (library == "gym" and version >= (0, 26))
        self.is_new = library == "gymnasium" and version >= (1, 0)
        self.takes_rows = library == "gym" and version < (0, 22)  # its actions are a tuple of them
        self.masks = library == "gymnasium" and version >= (1, 1)
        self.mode = self.mode_of(library, version)
        if not self.is_new:
            self.observation = packing_of_batch(self.single_observation_space, self.num_envs)
            self.action = packing_of_batch(self.single_action_space, self.num_envs)
        self.step = self.step_all

    def mode_of(self, library: str, version: Tuple[int, ...]) -> Optional[str]:
        """When it resets environments whose episodes have ended, in Gymnasium's words; None if nothing says so."""
        mode = (getattr(self.environment, "metadata", None) or {}).get("autoreset_mode")
        if mode is not None:
            return str(getattr(mode, "value", mode))
        if library_class(self.layers[-1], ("SyncVectorEnv", "AsyncVectorEnv")):
            return "NextStep" if library == "gymnasium" and version >= (1, 0) else "SameStep"
        return None

    def reset(self, seed: Any, options: Any) -> Any:
        """Observations and infos, as Gymnasium's ``reset(seed=, options=)`` returns them."""
        if options and "reset_mask" in options and not self.masks:
            raise ConfigError(
                "a reset_mask of some of these environments needs gymnasium 1.1 in their Python; reset all of them"
            )
        takes_seed = not self.is_old or self.resets_by("seed") or callable(getattr(self.environment, "seed", None))
        if seed is not None and not takes_seed:
            print("these environments take no seed, so that of a reset does nothing", flush=True)
            seed = None
        observations, infos = super().reset(seed, options)
        return observations, infos if self.is_new else self.infos_of_each(infos, None)

    def with_info(self, returned: Any, asked: bool) -> Any:
        """Observations and infos of what a reset returned, which may be the observations alone."""
        is_pair = isinstance(returned, tuple) and len(returned) == 2
        if is_pair and (asked or not library_class(self.single_observation_space, ("Tuple",))):
            return returned
        return returned, {}

    def step_all(self, actions: Any) -> Any:
        """The five values of Gymnasium's ``step``, with infos of each environment where Gymnasium merged otherwise."""
        if self.takes_rows:
            actions = rows_of(self.single_action_space, actions, self.num_envs)
        returned = self.environment.step(actions)
        if self.is_new or not isinstance(returned, tuple) or len(returned) not in (4, 5):
            return returned
        if len(returned) == 5:
            observations, rewards, terminated, truncated, infos = returned
            infos = self.infos_of_each(infos, np.logical_or(flags_of(terminated), flags_of(truncated)))
            return observations, rewards, terminated, truncated, infos
        observations, rewards, dones, infos = returned
        dones = flags_of(dones)
        cut = np.logical_and(dones, self.cut_by_time(infos))
        infos = self.infos_of_each(infos, dones)
        return observations, rewards, np.logical_and(dones, np.logical_not(cut)), cut, infos

    def cut_by_time(self, infos: Any) -> Any:
        """Which environments' infos say that the time was over."""
        if isinstance(infos, (list, tuple)):
            return np.array([bool(info.get("TimeLimit.truncated")) for info in infos])
        return flags_of(infos.get("TimeLimit.truncated", np.zeros(self.num_envs, bool)))

    def infos_of_each(self, infos: Any, ended: Any) -> Any:
        """An info for each environment; as they are where they are not told apart.

        Args:
            infos: A sequence of dicts, as before Gym 0.24, or a dict of arrays and masks.
            ended: Which environments' episodes have ended; None of a reset. What such a one's info holds is the last
                one's of its episode where the environment was reset since without an info, as before Gym 0.26.
        """
        if isinstance(infos, dict):
            if ended is not None and "_TimeLimit.truncated" not in infos and "TimeLimit.truncated" in infos:
                infos = dict(infos)  # which Gym 0.25 adds without a mask
                infos["_TimeLimit.truncated"] = ended
            split = split_infos(infos, self.num_envs)
            if split is None:
                return infos
            each = split
        else:
            each = [dict(info) for info in infos]
        if ended is None or self.mode != "SameStep":
            return each
        for index in np.flatnonzero(ended):
            info = each[index]
            if "final_info" not in info:
                final = {}
                for name in ("final_observation", "terminal_observation"):
                    if name in info:
                        final["final_observation"] = info.pop(name)
                final["final_info"] = info
                each[index] = final
        return each


def flags_of(values: Any) -> Any:
    """An array of bools, of one of NumPy's or of another library's."""
    array = array_of(values)
    return np.asarray(values if array is None else array, bool)


def split_infos(infos: Dict[Any, Any], num_envs: int) -> Optional[List[Dict[Any, Any]]]:
    """Infos of each environment, of those that were merged into arrays with masks; None if one has no mask."""
    each = [{} for _ in range(num_envs)]  # type: List[Dict[Any, Any]]
    for key, values in infos.items():
        if isinstance(key, str) and key.startswith("_") and key[1:] in infos:
            continue
        mask = infos.get("_{}".format(key))
        if not isinstance(mask, np.ndarray) or mask.shape != (num_envs,) or len(values) != num_envs:
            return None
        if isinstance(values, np.ndarray) and values.dtype in (np.int64, np.float64, np.bool_):
            values = values.tolist()  # what Python's own numbers have become
        for index in np.flatnonzero(mask):
            each[index][key] = values[index]
    return each


def rows_of(space: Any, actions: Any, num_envs: int) -> Any:
    """A sequence of actions, of a batch of them."""
    name = library_class(space, SPACES)
    if name == "Dict":
        members = {key: rows_of(each, actions[key], num_envs) for key, each in space.spaces.items()}
        return tuple(
            collections.OrderedDict((key, members[key][index]) for key in members) for index in range(num_envs)
        )
    if name == "Tuple":
        columns = [rows_of(each, column, num_envs) for each, column in zip(space.spaces, actions)]
        return tuple(tuple(column[index] for column in columns) for index in range(num_envs))
    return tuple(actions)


RANDOM = "np_random"
ATARI = ("get_action_meanings", "_frameskip", "ale.lives", "ale.getScreenGrayscale", "ale.getScreenRGB")


def has(layer: object, name: str) -> bool:
    """Whether a layer itself has an attribute, without running a property or a wrapper's ``__getattr__``."""
    missing = object()
    return inspect.getattr_static(layer, name, missing) is not missing


def generator_state(generator: Any) -> Dict[str, Any]:
    """Everything that a generator's next numbers follow from."""
    state = getattr(getattr(generator, "bit_generator", None), "state", None)
    if not isinstance(state, dict):
        raise TypeError("np_random is a {}; use a numpy.random.Generator".format(type(generator).__name__))
    return dict(state)


# ------------------------------------------------------------------------------------------------------------
# Entrypoints


def create(order: Dict[str, Any]) -> Tuple[Hosted, Tuple[str, ...]]:
    """Create one environment, and say what of it may be used."""
    enter(order)
    for name in order["imports"]:  # which the server's own Python may need, and this one not have
        if importlib.util.find_spec(name.partition(".")[0]) is not None:
            importlib.import_module(name)
    kwargs, mode = order["kwargs"], order["render_mode"]
    if order["entrypoint"] is None:
        made = make(dict(kwargs), mode)
        hosted = Hosted(made, mode)
        names = (RANDOM,) + (ATARI if hasattr(made.unwrapped, "ale") else ())
        return hosted, tuple(name for name in names if hosted.kind_of(name) is not None)
    module = load(order)
    file = order["entrypoint"]
    function = getattr(module, VECTOR, None)
    if order["num_envs"] and function is not None:
        return create_vector(order, function), exposed_names(module, file)
    function = getattr(module, "create_environment", None)
    if not callable(function):
        raise ConfigError(
            "{} does not define create_environment; write 'def create_environment(**kwargs): ...'".format(file)
        )
    injected = {"enable_rendering": bool(mode), "render_mode": mode, "env_id": order["env_id"]}
    environment = function(**arguments(function, file, kwargs, injected))
    if not library_of(environment):
        raise ConfigError(
            "{}: create_environment returned the type {}; return an environment of Gymnasium's or Gym's "
            "(those of texts, with asynchronous methods, are hosted in the server's own Python alone)".format(
                file, type_name(environment)
            )
        )
    return Hosted(environment, mode), exposed_names(module, file)


VECTOR = "create_vector_environment"
"""The function of an entrypoint that creates several environments at once."""


def create_vector(order: Dict[str, Any], function: Any) -> HostedVector:
    """Create a vector environment by the entrypoint's own function."""
    file, mode, kwargs = order["entrypoint"], order["render_mode"], dict(order["kwargs"], num_envs=order["num_envs"])
    autoreset = order["autoreset_mode"]
    modes = getattr(sys.modules.get("gymnasium.vector"), "AutoresetMode", None)
    injected = {
        "enable_rendering": bool(mode),
        "render_mode": mode,
        "env_id": order["env_id"],
        "autoreset_mode": autoreset if modes is None or autoreset is None else modes(autoreset),
    }
    environment = function(**arguments(function, file, kwargs, injected, VECTOR))
    is_vector = all(hasattr(environment, name) for name in ("num_envs", "observation_space", "action_space"))
    if not is_vector or hasattr(environment, "env_method"):  # which stable-baselines3's have, of another interface
        raise ConfigError(
            "{}: {} returned the type {}; return a VectorEnv of Gymnasium's or Gym's".format(
                file, VECTOR, type_name(environment)
            )
        )
    return HostedVector(environment, mode)


def enter(order: Dict[str, Any]) -> None:
    """Let modules be imported from where the entrypoint is, and go to its root, as far as these are here."""
    root, file = order["root"], order["entrypoint"]
    if order.get("included"):
        root = INCLUDED.folder
        if file:
            order["entrypoint"] = file = os.path.join(root, *file.split("/"))
    elif file and order["source"] is None:
        order["entrypoint"] = file = os.path.abspath(file)
        root = None  # which is the server's
    folders = [os.getcwd()]
    if root and os.path.isdir(root):
        folders = [root, os.path.join(root, "src")]
        os.chdir(root)
    sys.path[:0] = [folder for folder in folders if folder not in sys.path and os.path.isdir(folder)]
    for folder in (package_of(file)[0], os.path.dirname(file)) if file else ():
        if folder not in sys.path and os.path.isdir(folder):
            sys.path.append(folder)
    importlib.invalidate_caches()


class Sent:
    """Files that were sent along with an entrypoint, in a folder of their own until the end."""

    def __init__(self) -> None:
        self.folder = ""
        self.owner = 0

    def unpack(self, data: bytes) -> None:
        """Write files, each a message of path, content and whether it can be run."""
        for _, content in read_fields(data):
            found = read_message(content)
            parts = found[1].decode("utf-8", "surrogateescape").split("/")
            if any(part in ("", ".", "..") or "\0" in part for part in parts):
                raise ConfigError("{!r} is no path of a file to be sent along".format("/".join(parts)))
            try:
                self.write(parts, found.get(2, b""), bool(found.get(3)))
            except OSError as error:
                raise ConfigError(
                    "{} cannot be written where the files go that were sent: {}".format("/".join(parts), error)
                )

    def write(self, parts: List[str], content: bytes, executable: bool) -> None:
        """Write one file, in the folder, which nobody else can read."""
        if not self.folder:
            folder = os.path.join(tempfile.gettempdir(), "remote_gym-" + os.urandom(16).hex())
            path = os.fsencode(folder)
            busy[1 : 1 + len(path)] = path  # before it is there, so that it is removed however this ends
            os.mkdir(folder, 0o700)
            self.folder, self.owner = os.path.realpath(folder), os.getpid()
        path_of_file = os.path.join(self.folder, *parts)
        os.makedirs(os.path.dirname(path_of_file), exist_ok=True)
        with io.open(path_of_file, "wb") as stream:
            stream.write(content)
        if executable:
            os.chmod(path_of_file, 0o700)

    def remove(self) -> None:
        """Remove the folder, unless this is a process that the environment has forked."""
        if self.folder and self.owner == os.getpid():
            os.chdir(os.sep)
            remove_folder(self.folder)


INCLUDED = Sent()


def package_of(file: str) -> Tuple[str, str]:
    """The folder in which the outermost package that a file is in lies, and the file's module within it."""
    folder, name = os.path.split(os.path.splitext(file)[0])
    while os.path.isfile(os.path.join(folder, "__init__.py")) and os.path.dirname(folder) != folder:
        folder, package = os.path.split(folder)
        name = "{}.{}".format(package, name)
    return folder, name


def load(order: Dict[str, Any]) -> types.ModuleType:
    """Run an entrypoint file: the one that is here, or the one that was sent."""
    file, source = order["entrypoint"], order["source"]
    if file in LOADED:
        return LOADED[file]
    here = None
    if os.path.isfile(file):
        with io.open(file, "rb") as stream:
            here = stream.read()
    if source is None and here is None:
        raise ConfigError("entrypoint {!r} does not exist where its Python runs, in {}".format(file, os.getcwd()))
    name = package_of(file)[1]
    if here is not None and source in (None, here) and is_found_as(name, file):
        module = importlib.import_module(name)
    else:
        module = run(file, source or here or b"")
    LOADED[file] = module
    return module


LOADED = {}  # type: Dict[str, types.ModuleType]
"""Entrypoints by their files."""


def is_found_as(name: str, file: str) -> bool:
    """Whether an import by that name finds the file, so that other processes find its classes, too."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # no such package, or a module that tells nothing about itself
        return False
    origin = None if spec is None else spec.origin
    return origin is not None and os.path.realpath(origin) == os.path.realpath(file)


def run(file: str, source: bytes) -> types.ModuleType:
    """Run what is in a file as a module that nothing finds by its name.

    It is the entrypoint that the server was told to serve, over the pipe of the one who started this: never a client's.
    """
    module = types.ModuleType("remote_gym_entrypoint")
    module.__file__ = file
    code = compile(source, file, "exec")
    if not os.path.isfile(file):  # for tracebacks to show its lines
        lines = source.decode("utf-8", "replace").splitlines(True)
        linecache.cache[file] = (len(source), None, lines, file)
    sys.modules[module.__name__] = module
    exec(code, module.__dict__)
    return module


def arguments(
    function: Any, file: str, kwargs: Dict[str, Any], injected: Dict[str, Any], name: str = "create_environment"
) -> Dict[str, Any]:
    """Arguments for the function: `kwargs`, and of `injected` those that its signature names."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # callables written in C may have none
        return kwargs
    named = [
        each.name
        for each in signature.parameters.values()
        if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
    ]
    found = {each: value for each, value in injected.items() if each in named}
    found.update(kwargs)
    if "env_id" in named:
        found["env_id"] = injected["env_id"]
    try:
        signature.bind(**found)
    except TypeError as error:
        passed = ", ".join(sorted(found)) or "no arguments"
        raise ConfigError("{}: {}{} was to be called with {}: {}".format(file, name, signature, passed, error))
    return found


def exposed_names(module: Any, file: str) -> Tuple[str, ...]:
    """The entrypoint's ``EXPOSED``."""
    names = getattr(module, "EXPOSED", ())
    if not isinstance(names, (tuple, list)):
        raise ConfigError("{}: EXPOSED is {!r}; use a tuple of names, such as ('action_masks',)".format(file, names))
    for name in names:
        if not isinstance(name, str) or not all(each.isidentifier() for each in name.split(".")):
            raise ConfigError("{}: EXPOSED holds {!r}; use names of methods and attributes".format(file, name))
    return tuple(dict.fromkeys(names))


def make(kwargs: Dict[str, Any], mode: Optional[str]) -> Any:
    """Make a registered environment, of Gymnasium or else of Gym."""
    name = kwargs.pop("id", None)
    if not isinstance(name, str):
        raise ConfigError("an environment of another Python needs an entrypoint, or an id that the server names")
    module, _, name = name.rpartition(":")
    if module:
        importlib.import_module(module)
    found = []
    for library in ("gymnasium", "gym"):
        try:
            found.append(importlib.import_module(library))
        except ImportError:
            continue
    if not found:
        raise ConfigError("this Python, {}, has neither gymnasium nor gym; install one".format(sys.executable))
    for gym in found:
        if mode and (gym.__name__ == "gymnasium" or version_of("gym") >= (0, 26)):
            kwargs.setdefault("render_mode", mode)
        try:
            return gym.make(name, **kwargs)
        except Exception as error:
            if gym is found[-1] or not type(error).__name__.startswith(("Unregistered", "NameNotFound", "Namespace")):
                raise
    return None


# ------------------------------------------------------------------------------------------------------------
# The other end

HEAD = struct.Struct("<I")
REQUEST = struct.Struct("<BH")
PACKED = struct.Struct("<BdB")
ENTRY = struct.Struct("<BHI")
STEP_PACKED, STEP, RESET, RENDER, FIND, CALL, ASSIGN, CREATE, CLOSE, SEVERAL, REST, UNPACK = b"pvrfgmacqnoi"
IS_PACKED, IS_VALUE, IS_ARRAY, IS_ERROR, IS_BATCH, IS_SEVERAL = b"pvaebn"
RESETS_ENDED = 1
"""In place of an environment's number in `SEVERAL`: whether one whose episode a step has ended is reset at once."""
SEVERAL_HEAD = 2 + ENTRY.size
"""Bytes of an answer to several requests that holds the answer to one."""
RAISED, CONFIG, ENCODING = range(3)
"""Kinds of errors: the environment's own, of what the server's owner configured, of what cannot travel."""
TERMINATED, TRUNCATED, NUMPY_TERMINATED, NUMPY_TRUNCATED, NUMPY_REWARD = 1, 2, 4, 8, 16


def has_ended(returned: Any) -> bool:
    """Whether a step has ended its episode. Of flags that are no bools the worker decides, and asks for a reset."""
    if not isinstance(returned, (tuple, list)) or len(returned) != 5:
        return False
    return any(type(flag) in (bool, np.bool_) and bool(flag) for flag in returned[2:4])


def beyond_ours(trace: Any) -> Any:
    """A traceback from the first frame on that is not of this file; all of it if there is no such frame."""
    inner = trace
    while inner is not None and inner.tb_frame.f_code.co_filename == __file__:
        inner = inner.tb_next
    return trace if inner is None else inner


class TooLarge(Exception):
    """An answer over the worker's limit."""


class Channel:
    """Messages both ways, each after its length.

    Args:
        source: Descriptor to read from.
        target: Descriptor to write to.
    """

    def __init__(self, source: int, target: int) -> None:
        self.source = source
        self.target = target

    def receive(self, begun: bytes = b"") -> Optional[bytes]:
        """The next message, of which some may have been read; None at the end."""
        data = begun or os.read(self.source, LARGE)
        while len(data) < 4:
            more = os.read(self.source, LARGE) if data else b""
            if not more:
                return None
            data += more
        (size,) = HEAD.unpack_from(data)
        if len(data) == size + 4 and size:
            return data[4:]
        if size == 0:  # only asks where a request is that takes long
            return self.receive(data[4:])
        pieces, missing = [data[4:]], size + 4 - len(data)
        while missing > 0:
            more = os.read(self.source, min(missing, 2**20))
            if not more:
                return None
            pieces.append(more)
            missing -= len(more)
        return b"".join(pieces)

    def send(self, pieces: Tuple[bytes, ...]) -> None:
        """Write one message, which is in pieces."""
        size = sum(map(len, pieces)) if len(pieces) > 1 else len(pieces[0])
        whole = (HEAD.pack(size),) + pieces
        if size < LARGE:
            whole = (b"".join(whole),)
        for piece in whole:
            written = os.write(self.target, piece)
            if written < len(piece):
                rest = memoryview(piece)[written:]
                while rest:
                    rest = rest[os.write(self.target, rest) :]


class Guest:
    """Answers what a worker asks of environments."""

    def __init__(self) -> None:
        self.hosted = {}  # type: Dict[int, Hosted]
        self.writer = Writer({"depth": 32, "items": 2**20, "text_length": 2**24, "array_bytes": 2**28})
        self.message_bytes = 2**28
        self.answered = []  # type: List[Tuple[bytes, ...]]
        """Answers to several requests that were not sent yet."""
        self.operations = {
            STEP: lambda hosted, body: self.stepped(hosted, hosted.step(read_value(body))),
            RESET: self.reset,
            RENDER: self.render,
            FIND: lambda hosted, body: self.value(hosted.find(read_value(body))),
            CALL: self.call,
            ASSIGN: self.assign,
        }  # type: Dict[int, Callable[[Hosted, bytes], Tuple[bytes, ...]]]

    def answer(self, data: bytes) -> Tuple[bytes, ...]:
        """The answer to a request, in pieces."""
        operation, index = REQUEST.unpack_from(data)
        try:
            if operation == STEP_PACKED:
                pieces = self.step_packed(self.hosted[index], data)
                if len(pieces) == 1 and len(pieces[0]) < 4096 <= self.message_bytes:
                    return pieces
            elif operation == CREATE:
                pieces = self.create(index, read_value(data[3:]))
            elif operation == CLOSE:
                pieces = self.close(index)
            elif operation == UNPACK:
                INCLUDED.unpack(data[REQUEST.size :])
                pieces = self.value(None)
            elif operation == SEVERAL:
                return self.several(index, data)
            elif operation == REST:
                return self.rest()
            else:
                pieces = self.operations[operation](self.hosted[index], data[3:])
            size = sum(map(len, pieces))
            if size > self.message_bytes:
                raise TooLarge(
                    "what the environment returned takes {:,} bytes, and the server's limit is {:,}; raise "
                    "Limits.message_bytes at both ends".format(size, self.message_bytes)
                )
            return pieces
        except BaseException as error:
            return self.error(error)

    def several(self, resets: int, data: bytes) -> Tuple[bytes, ...]:
        """Answer several requests, one after the other, up to the first that raises."""
        at, end, self.answered = REQUEST.size, len(data), []
        self.message_bytes -= SEVERAL_HEAD  # for each to fit into an answer with this around it
        try:
            while at < end:
                operation, index, size = ENTRY.unpack_from(data, at)
                at += ENTRY.size
                if self.answer_one(operation, index, data[at : at + size]):
                    break
                at += size
                is_reset = resets and operation != RESET and self.hosted[index].ended
                if is_reset and self.answer_one(RESET, index, AUTORESET):
                    break
        finally:
            self.message_bytes += SEVERAL_HEAD
        return self.rest()

    def answer_one(self, operation: int, index: int, body: bytes) -> bool:
        """Answer one of several requests; return whether it has raised."""
        pieces = self.answer(REQUEST.pack(operation, index) + body)
        self.answered.append((ENTRY.pack(operation, index, sum(map(len, pieces))),) + pieces)
        return pieces[0][0] == IS_ERROR

    def rest(self) -> Tuple[bytes, ...]:
        """As many answers as one message may hold; the worker asks for more of them."""
        pieces = []  # type: List[bytes]
        room = self.message_bytes - 2
        for taken, answer in enumerate(self.answered):
            size = sum(map(len, answer))
            if pieces and size > room:
                del self.answered[:taken]
                return (bytes([IS_SEVERAL, 1]),) + tuple(pieces)
            pieces.extend(answer)
            room -= size
        self.answered = []
        return (bytes([IS_SEVERAL, 0]),) + tuple(pieces)

    def value(self, value: Any) -> Tuple[bytes, ...]:
        """A value as an answer."""
        return (bytes([IS_VALUE]), self.writer.write(value, True))

    def lax(self, value: Any) -> Tuple[bytes, ...]:
        """A value as an answer, parts of which may have no wire form."""
        return (bytes([IS_VALUE]), self.writer.write(value))

    def returned(self, values: Any, info: Any) -> Tuple[bytes, ...]:
        """Values of ``reset`` or ``step`` as an answer: only in the info may something have no wire form."""
        items = [self.writer.write(value, True) for value in values] + [self.writer.write(info)]
        return (bytes([IS_VALUE]), part(TUPLE, b"".join(part(FIRST, item) for item in items)))

    def error(self, error: BaseException) -> Tuple[bytes, ...]:
        """An exception as an answer."""
        try:
            message = str(error)
        except BaseException as failure:
            message = "<{} in str() of the exception>".format(type(failure).__name__)
        try:
            text = "".join(traceback.format_exception(type(error), error, beyond_ours(error.__traceback__)))
        except BaseException as failure:
            text = "<{} while the traceback was formatted>".format(type(failure).__name__)
        most = min(4 * 2**20, self.message_bytes // 32)
        kind = RAISED
        if isinstance(error, ConfigError):
            kind = CONFIG
        elif isinstance(error, (TooLarge, NoWireForm)):
            kind = ENCODING
        content = (kind, type_name(error), message[:most], text[-most:])
        return (bytes([IS_ERROR]), self.writer.write(content))

    def create(self, index: int, order: Dict[str, Any]) -> Tuple[bytes, ...]:
        """Create an environment, and describe it."""
        self.writer = Writer(order["limits"])
        self.message_bytes = order["limits"]["message_bytes"]
        hosted, names = create(order)
        self.hosted[index] = hosted
        environment = hosted.environment
        described = {}  # type: Dict[str, Any]
        for name in ("observation_space", "action_space"):
            is_batched = isinstance(hosted, HostedVector) and not hosted.is_new  # by the worker, from one's
            described[name] = None if is_batched else write_space(getattr(environment, name), self.writer)
        if isinstance(hosted, HostedVector):
            described.update(num_envs=hosted.num_envs, autoreset_mode=hosted.mode)
            for name in ("single_observation_space", "single_action_space"):
                described[name] = write_space(getattr(hosted, name), self.writer)
        return self.lax(
            {
                "observation_size": None if hosted.observation is None else hosted.observation[0],
                "action_size": None if hosted.action is None else hosted.action[0],
                "metadata": hosted.metadata(),
                "render_mode": hosted.render_mode,
                "spec": hosted.spec(),
                "exposed": [(name, hosted.kind_of(name)) for name in names],
                "tried": self.writer.tried,
                **described,
            }
        )

    def step_packed(self, hosted: Hosted, data: bytes) -> Tuple[bytes, ...]:
        """Step by an action in its space's packed form, after the request's head."""
        if hosted.action is None:
            raise ValueError("an action came packed, and its space has no packed form")
        return self.stepped(hosted, hosted.step(hosted.action[2](data, REQUEST.size)))

    def stepped(self, hosted: Hosted, returned: Any) -> Tuple[bytes, ...]:
        """The answer to a step: packed where it is as usual."""
        if hosted.num_envs:
            return self.stepped_together(hosted, returned)
        if hosted.observation is None or type(returned) is not tuple or len(returned) != 5:
            hosted.ended = has_ended(returned)
            is_usual = isinstance(returned, (tuple, list)) and len(returned) == 5
            return self.returned(returned[:4], returned[4]) if is_usual else self.lax(returned)
        observation, reward, terminated, truncated, info = returned
        flags = FLAGS.get((type(reward), type(terminated), type(truncated)))
        packed = None if flags is None else hosted.observation[1](observation)
        if packed is None or flags is None:
            hosted.ended = has_ended(returned)
            return self.returned(returned[:4], info)
        if terminated:
            flags |= TERMINATED
        if truncated:
            flags |= TRUNCATED
        hosted.ended = flags & 3 != 0
        head = PACKED.pack(IS_PACKED, reward, flags)
        if not info and type(info) is dict:
            return (head + packed,) if len(packed) < LARGE else (head, packed)
        return (head, packed, self.writer.write(info))

    def stepped_together(self, hosted: Hosted, returned: Any) -> Tuple[bytes, ...]:
        """The answer to a step of a vector environment: with its observations packed where they are as usual."""
        is_usual = isinstance(returned, (tuple, list)) and len(returned) == 5
        packed = hosted.observation[1](returned[0]) if is_usual and hosted.observation is not None else None
        if packed is None:
            return self.returned(returned[:4], returned[4]) if is_usual else self.lax(returned)
        _, content = self.returned(returned[1:4], returned[4])
        return (bytes([IS_BATCH]), packed, content)

    def reset(self, hosted: Hosted, body: bytes) -> Tuple[bytes, ...]:
        """Reset by a seed and options."""
        seed, options = read_value(body)
        returned = hosted.reset(seed, options)
        if isinstance(returned, (tuple, list)) and len(returned) == 2:
            return self.returned(returned[:1], returned[1])
        return self.lax(returned)

    def render(self, hosted: Hosted, _body: bytes) -> Tuple[bytes, ...]:
        """Render: an image is sent without being copied once more."""
        rendered = hosted.render()
        if type(rendered) is not np.ndarray or rendered.dtype.kind == "O":
            return self.value(rendered)
        try:
            head = array_head(rendered)
        except NoWireForm:
            return self.value(rendered)
        is_plain = rendered.nbytes >= LARGE and rendered.dtype.kind in "biuf" and rendered.dtype.isnative
        data = whole_bytes(rendered) if is_plain and sys.byteorder == "little" else element_bytes(rendered)
        return (bytes([IS_ARRAY]) + HEAD.pack(len(head)) + head, data)

    def call(self, hosted: Hosted, body: bytes) -> Tuple[bytes, ...]:
        """Call a method."""
        name, args, kwargs = read_value(body)
        return self.value(hosted.find(name)(*args, **kwargs))

    def assign(self, hosted: Hosted, body: bytes) -> Tuple[bytes, ...]:
        """Set an attribute."""
        name, value = read_value(body)
        hosted.assign(name, value)
        return self.value(None)

    def close(self, index: int) -> Tuple[bytes, ...]:
        """Close an environment."""
        hosted = self.hosted.pop(index, None)
        if hosted is not None:
            hosted.environment.close()
        return self.value(None)

    def close_all(self) -> None:
        """Close what is open, at the end."""
        for index in list(self.hosted):
            with contextlib.suppress(Exception):
                self.close(index)


AUTORESET = part(TUPLE, part(FIRST, NONE + b"\0") * 2)
"""Seed and options of a reset that follows the end of an episode."""

FLAGS = {}  # type: Dict[Any, int]
"""By the types of reward and flags."""
if np is not None:
    for reward_type, of_reward in ((float, 0), (np.float64, NUMPY_REWARD)):
        for first_type, of_first in ((bool, 0), (np.bool_, NUMPY_TERMINATED)):
            for second_type, of_second in ((bool, 0), (np.bool_, NUMPY_TRUNCATED)):
                FLAGS[reward_type, first_type, second_type] = of_reward | of_first | of_second


def take_descriptors() -> Channel:
    """Keep standard input and output for messages; the environment gets nothing to read, and prints to the log."""
    channel = Channel(os.dup(0), os.dup(1))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    os.close(null)
    for name in ("stdout", "stderr"):
        stream = io.open(getattr(sys, name).fileno(), "w", 1, errors="backslashreplace", closefd=False)
        setattr(sys, name, stream)
        setattr(sys, "__{}__".format(name), stream)
    sys.stdin = sys.__stdin__ = io.open(0, closefd=False)  # type: ignore[misc]
    close_in_children(channel.source, channel.target)
    if STACKS_SIGNAL and hasattr(faulthandler, "register"):
        faulthandler.register(STACKS_SIGNAL, file=2, all_threads=True)
    faulthandler.enable(file=2, all_threads=True)  # for a crash to say where
    return channel


def main(marker: bytes) -> None:
    """Serve until the worker has no more to ask.

    Args:
        marker: Precedes the first message, since whatever started this Python may have printed something.
    """
    channel = take_descriptors()
    sys.argv = [""]
    os.write(channel.target, marker)
    version = sys.version.split()[0]
    if np is None:
        text = "Python {} at {} {}, without which nothing can be exchanged; install it there".format(
            version, sys.executable, no_numpy
        )
        texts = [part(TEXT, text_bytes(each)) for each in ("", text, "")]
        content = b"".join(part(FIRST, item) for item in [INTEGER + varint(zigzag(CONFIG))] + texts)
        channel.send((bytes([IS_ERROR]), part(TUPLE, content)))
        return
    guest = Guest()
    channel.send(guest.value({"python": version, "numpy": np.__version__}))
    try:
        while True:
            data = channel.receive()
            if data is None:
                break
            busy[0] = 1
            pieces = guest.answer(data)
            busy[0] = 0
            channel.send(pieces)
    except OSError:  # the worker is gone
        pass
    finally:
        guest.close_all()
        INCLUDED.remove()
