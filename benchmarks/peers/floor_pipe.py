"""The least that a message to another Python and back costs: two pipes, which block, and nothing said of what it means.

Options: ``request``, ``response`` (bytes).
"""

from __future__ import annotations

import os
import subprocess
import sys

from case import Case, Figures
from measuring import measure_steps
from peer import main
from serving import Servers

ANSWER = """
import os, sys
request, response = int(sys.argv[1]), bytes(int(sys.argv[2]))
while True:
    found = 0
    while found < request:
        piece = os.read(0, request - found)
        if not piece:
            sys.exit()
        found += len(piece)
    rest = memoryview(response)
    while rest:
        rest = rest[os.write(1, rest):]
"""


def measure(case: Case, servers: Servers) -> Figures:
    """Ask and be answered."""
    request, response = bytes(case.options["request"]), case.options["response"]
    command = [sys.executable, "-c", ANSWER, str(len(request)), str(response)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        asks, answers = process.stdin.fileno(), process.stdout.fileno()
        into = memoryview(bytearray(response))

        def step(number: int) -> bool:
            os.write(asks, request)
            found = 0
            while found < response:
                count = os.readv(answers, [into[found:]])
                if not count:
                    raise EOFError("the other end has gone")
                found += count
            return False

        figures = measure_steps(case, step)
        process.stdin.close()
        return figures


if __name__ == "__main__":
    main(measure)
