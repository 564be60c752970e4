"""Fuzz one target, guided by what its inputs reach in the package; a process of its own, as libFuzzer will have it.

`python one.py TARGET [libFuzzer's options] FOLDER...`, with atheris, ``src`` and ``tests`` on the path.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["remote_gym"]):
    from fuzzing import targets


def main() -> None:
    """Run until libFuzzer's options, or a finding, end it."""
    name = sys.argv.pop(1)
    logging.disable()  # odd inputs are refused with words; here that is thousands of lines a second
    warnings.simplefilter("ignore")
    os.chdir(Path(__file__).parent)
    atheris.Setup(sys.argv, lambda data: targets.run(name, data))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
