"""Begin a release: write its version into pyproject.toml, and date what CHANGELOG.md lists as unreleased."""

from __future__ import annotations

import datetime
import re
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("major", "minor", "patch")
VERSION = re.compile(r'^version = "([^"]+)"$', re.MULTILINE)


class BumpError(Exception):
    """A version that cannot be next, or a file in another form than expected."""


def next_version(current: str, wanted: str) -> str:
    """The version that ``wanted``, one of `PARTS` or a version itself, means after ``current``.

    After a development version, such as 0.9.0.dev0, comes first of all what it leads to: 0.9.0 is its next minor one.

    Raises:
        BumpError: If it is neither, or below ``current``. The same again may be meant: it can be yet unreleased.
    """
    released, is_development, _ = current.partition(".dev")
    numbers = [int(number) for number in released.split(".")]
    if wanted in PARTS:
        part = PARTS.index(wanted)
        if is_development and not any(numbers[part + 1 :]):
            return released
        return ".".join(map(str, [*numbers[:part], numbers[part] + 1, *[0] * (2 - part)]))
    if not re.fullmatch(r"\d+\.\d+\.\d+", wanted):
        raise BumpError(f"found {wanted!r}; use a version such as 1.2.3, or one of {', '.join(PARTS)}")
    if [int(number) for number in wanted.split(".")] < numbers:
        raise BumpError(f"{wanted} comes before {current}; use a later version")
    return wanted


def bump_project(text: str, wanted: str) -> tuple[str, str]:
    """The new pyproject.toml, and the version it has."""
    found = VERSION.search(text)
    if found is None:
        raise BumpError("pyproject.toml: found no line that begins with 'version = '")
    version = next_version(found[1], wanted)
    return f'{text[: found.start()]}version = "{version}"{text[found.end() :]}', version


def bump_changelog(text: str, version: str, today: datetime.date) -> str:
    """The new CHANGELOG.md: what stood under "Unreleased" under ``version``, and an empty "Unreleased" above.

    Raises:
        BumpError: If nothing is unreleased, or ``version`` is already there.
    """
    heading = "## [Unreleased]\n"
    if f"## [{version}]" in text:
        raise BumpError(f"CHANGELOG.md: {version} is already released; use a later version")
    before, found, after = text.partition(heading)
    if not found:
        raise BumpError(f"CHANGELOG.md: found no heading {heading.strip()!r}")
    if not after.partition("\n## ")[0].strip():
        raise BumpError("CHANGELOG.md: nothing is unreleased; first write there what has changed")
    return f"{before}{heading}\n## [{version}] - {today.isoformat()}\n{after}"


def main(arguments: Sequence[str], root: Path = ROOT) -> int:
    """Change both files, or neither; returns the exit status."""
    if len(arguments) != 1:
        print(f"usage: bump VERSION, or bump {'|'.join(PARTS)}", file=sys.stderr)
        return 2
    project, changelog = root / "pyproject.toml", root / "CHANGELOG.md"
    try:
        new_project, version = bump_project(project.read_text(encoding="utf-8"), arguments[0])
        today = datetime.datetime.now(datetime.timezone.utc).date()
        new_changelog = bump_changelog(changelog.read_text(encoding="utf-8"), version, today)
    except BumpError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    project.write_text(new_project, encoding="utf-8")
    changelog.write_text(new_changelog, encoding="utf-8")
    print(f"this is {version} now; look at it, then: git commit -am 'Release {version}' && git tag v{version}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
