"""The seam between rules and waiting: a rule says what is to be done next, one of two drivers does it.

What a client does about breaks, deadlines, retries and several servers is written once, as generators. Each yields an
`Operation`, and gets its result, or has its error raised, where it yielded. Whether the operation blocks the thread, or
is awaited, is for the driver to know, and for the objects that the operation is made of: a rule has been given those
of its driver's kind, and looks the same for both.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")

Operation: TypeAlias = Callable[[], Any]
"""Something to be done that may take a while. `perform_async` awaits what it returns."""

Operations: TypeAlias = Generator[Operation, Any, T]
"""A rule that ends with a result.

A driver that something strikes between two operations closes it: `GeneratorExit` is raised where it yielded, perhaps
late. A rule does nothing about that by which those would be harmed who have gone on meanwhile.
"""


def perform(operations: Operations[T]) -> T:
    """Do what a rule says by blocking, and return its result."""
    try:
        operation = next(operations)
        while True:
            try:
                result = operation()
            except BaseException as error:  # noqa: BLE001 - it is raised in the rule, which is to decide
                operation = operations.throw(error)
            else:
                operation = operations.send(result)
    except StopIteration as end:
        value: T = end.value
        return value
    finally:
        operations.close()


async def perform_async(operations: Operations[T]) -> T:
    """Do what a rule says by awaiting, and return its result. A cancelled await is raised in the rule, as any error."""
    try:
        operation = next(operations)
        while True:
            try:
                result = await operation()
            except BaseException as error:  # noqa: BLE001 - as above
                operation = operations.throw(error)
            else:
                operation = operations.send(result)
    except StopIteration as end:
        value: T = end.value
        return value
    finally:
        operations.close()
