"""The corpus of the fuzz targets, replayed: what once found something finds nothing now."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzzing import targets
from fuzzing.seeds import CORPUS

INPUTS = sorted(path for path in CORPUS.rglob("*") if path.is_file())


@pytest.fixture(autouse=True)
def _where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    # The service's target looks for its entrypoint in the working directory.
    monkeypatch.chdir(Path(__file__).parent)


def test_every_target_has_a_corpus_and_it_is_small():
    assert {path.parent.name for path in INPUTS} == targets.TARGETS.keys()
    assert sum(path.stat().st_size for path in INPUTS) < 64 * 1024


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_input_finds_nothing(path: Path) -> None:
    targets.run(path.parent.name, path.read_bytes())
