"""Check out git repositories that hold entrypoints, each commit into a folder of its own.

    <cache>/<name>-<hash of the repository>/
        lock            held by whoever adds a commit
        <commit>/       a whole clone with that commit checked out; complete as soon as it exists
        partial-*/      being made; left over only by a process that was killed

A commit's folder never changes, so an environment keeps the files that it was started from while its branch moves
on. Only adding one takes the lock: that keeps two processes from cloning the same commit at once. Folders are never
removed; delete the cache while no server runs to have the space back.

The repository is the operator's choice and its code will run, but only through the entrypoint. So its hooks,
submodules, filters (those of Git LFS too) and file monitors are off, and git asks nobody for a password.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from remote_gym.errors import ConfigError
from remote_gym.ipc import variables

_FULL_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_ANY_HASH = re.compile(r"[0-9a-f]{7,64}")
_LOCK_POLL = 0.05  # seconds
_EXAMPLES = {"repo": "URL or path, as for git clone", "reference": "branch, tag or commit hash"}


def default_cache() -> Path:
    """Where checkouts go: ``$XDG_CACHE_HOME/remote_gym``, or ``~/.cache/remote_gym``.

    Raises:
        ConfigError: There is no home folder.
    """
    chosen = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG specification has relative paths ignored.
    if chosen.is_absolute():
        return chosen / "remote_gym"
    try:
        return Path.home() / ".cache" / "remote_gym"
    except RuntimeError as error:
        raise ConfigError(f"no home folder to keep git checkouts in ({error}); set XDG_CACHE_HOME") from error


def checkout(repo: str, reference: str | None, cache: Path, *, timeout: float = 600.0) -> Path:
    """Have a commit of a repository as files, cloning it or fetching what is new where necessary.

    Every call asks the repository where a branch or tag stands now. A full commit hash that is there already
    needs neither network nor git, so it is the one to use where many sessions open at once.

    Args:
        repo: URL or path, as ``git clone`` takes it.
        reference: A branch, else a tag, else a commit hash of at least 7 digits. None: the default branch.
        cache: Folder that holds all checkouts.
        timeout: Seconds that everything together may take.

    Returns:
        The folder of the commit. Shared: treat it as read-only.

    Raises:
        ConfigError: No git, no such repository or reference, a cache that cannot be written, or out of time.
    """
    for field, value in (("repo", repo), ("reference", reference or "HEAD")):
        if not value or value.startswith("-") or not value.isprintable():
            raise ConfigError(f"{field} {_redact(value)!r} is not one for git; use a {_EXAMPLES[field]}")
    commits = cache / _folder_name(repo)
    if reference and _FULL_HASH.fullmatch(reference) and (commits / reference).is_dir():
        return commits / reference
    git = _Git.find(repo, deadline=time.monotonic() + timeout)
    commit = _resolve(git, reference, commits)
    if commit and (commits / commit).is_dir():
        return commits / commit
    try:
        commits.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _locked(commits / "lock", git.deadline):
            return _add(git, reference, commit, commits)
    except OSError as error:
        raise ConfigError(f"cannot keep git checkouts in {str(cache)!r}: {error}; set XDG_CACHE_HOME") from error


def _folder_name(repo: str) -> str:
    last = re.split(r"[/:\\]", repo.rstrip("/").removesuffix(".git"))[-1]
    readable = re.sub(r"[^\w-]", "_", last)[:40]
    return f"{readable}-{hashlib.sha256(os.fsencode(repo)).hexdigest()[:16]}"


def _redact(text: str) -> str:
    """Without the user names and passwords of URLs: the message goes to clients."""
    return re.sub(r"//[^/\s]+@", "//***@", text)


def _resolve(git: _Git, reference: str | None, commits: Path) -> str | None:
    """The commit that the reference means, or None if only a clone can tell."""
    if reference and _FULL_HASH.fullmatch(reference):
        return reference
    patterns = [f"refs/heads/{reference}", f"refs/tags/{reference}", f"refs/tags/{reference}^{{}}"]
    if reference is None:
        patterns = ["HEAD"]
    listing = git.remotely("ls-remote", "--", git.repo, *patterns)
    found = {name: commit for commit, _, name in (line.partition("\t") for line in listing.splitlines())}
    # The branch first; a tag's own object, the middle one, stands for its commit only if it is a plain tag.
    for pattern in (patterns[0], *reversed(patterns[1:])):
        if pattern in found:
            return found[pattern]
    if reference is None or not _ANY_HASH.fullmatch(reference):
        raise _no_such(git, reference)
    known = [folder.name for folder in commits.glob(f"{reference}*")]
    return known[0] if len(known) == 1 else None


def _no_such(git: _Git, reference: str | None) -> ConfigError:
    if reference is None:
        return ConfigError(f"repo {git.name!r} has no commits; push one, or name a reference")
    return ConfigError(f"reference {reference!r} is no branch, tag or commit that a clone of {git.name!r} holds")


def _add(git: _Git, reference: str | None, commit: str | None, commits: Path) -> Path:
    """Clone beside the place, then rename, so that no one ever sees half a checkout. The lock must be held."""
    if commit and (commits / commit).is_dir():
        return commits / commit
    for left_over in commits.glob("partial-*"):
        shutil.rmtree(left_over, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(prefix="partial-", dir=commits))
    try:
        _clone(git, partial, commits, default=reference is None)
        try:
            commit = git.locally(
                "rev-parse", "--verify", "--quiet", "--end-of-options", f"{commit or reference}^{{commit}}", at=partial
            ).strip()
        except _GitFailed as error:
            raise _no_such(git, reference) from error
        git.locally("checkout", "--quiet", "--force", "--detach", "--no-recurse-submodules", commit, at=partial)
        # An abbreviated hash may turn out to be a commit that is there.
        if not (commits / commit).is_dir():
            partial.rename(commits / commit)
        return commits / commit
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _clone(git: _Git, partial: Path, commits: Path, *, default: bool) -> None:
    """Fetch everything into `partial`, beginning with the objects of a commit that is there, if any."""
    earlier = [folder for folder in commits.iterdir() if _FULL_HASH.fullmatch(folder.name)]
    if earlier:
        newest = max(earlier, key=lambda folder: folder.stat().st_mtime)
        # Hard links where the file system has them: the folders stay independent of each other. Its branches do
        # not come along, its tags do: hence the pruning, and the forcing, of tags.
        git.locally("clone", "--quiet", "--template=", "--no-checkout", "--", str(newest), str(partial), at=commits)
    else:
        git.locally("init", "--quiet", "--template=", at=partial)
    refs = ["refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"]
    if default:
        refs.append("HEAD:refs/remotes/origin/HEAD")  # which may be on no branch
    git.remotely("fetch", "--quiet", "--prune", "--no-tags", "--", git.repo, *refs, at=partial)


@contextlib.contextmanager
def _locked(path: Path, deadline: float) -> Iterator[None]:
    """Hold the file's lock, against processes and threads. It ends with its holder, however that ends."""
    with path.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise ConfigError(f"another process kept {str(path)!r} locked; is a clone hanging?") from None
                time.sleep(_LOCK_POLL)
        yield


# --------------------------------------------------------------------------------------------------------------
# Running git


_SETTINGS = (
    f"core.hooksPath={os.devnull}",
    "core.fsmonitor=false",
    "core.askPass=",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    # Nothing that goes on in the background after the command.
    "gc.auto=0",
    "maintenance.auto=false",
)
# Set where the server was started by git itself, such as by a hook; they would name another repository.
_ANOTHER_REPOSITORY = {
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_DIR",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_WORK_TREE",
}


_KEEPER = """
import _thread, os, sys
def watch():
    while os.read(0, 1): pass
    os.killpg(0, 9)
null = (os.POSIX_SPAWN_DUP2, os.open(os.devnull, os.O_RDONLY), 0)
ignored_by_python = [int(number) for number in sys.argv.pop(1).split()]
git = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=[null], setsigdef=ignored_by_python)
_thread.start_new_thread(watch, ())
code = os.waitstatus_to_exitcode(os.waitpid(git, 0)[1])
os._exit(code if code >= 0 else 128 - code)
"""
"""Runs git, and kills its own process group, with git and what that has started, when its standard input closes.

Which it does however this process ends: git itself waits for a host that does not answer for as long as it likes.
"""


class _GitFailed(ConfigError):
    """A git command did not end well."""


@dataclass(frozen=True)
class _Git:
    """One repository, and the git that talks to it until a deadline."""

    executable: str
    repo: str
    deadline: float
    """As `time.monotonic` counts."""

    @classmethod
    def find(cls, repo: str, *, deadline: float) -> _Git:
        executable = shutil.which("git")
        if executable is None:
            raise ConfigError(f"repo {_redact(repo)!r} needs git, which is not on the PATH; install it")
        return cls(executable, repo, deadline)

    @property
    def name(self) -> str:
        return _redact(self.repo)

    def remotely(self, *arguments: str, at: Path | None = None) -> str:
        """Run a command that talks to the repository and writes no files of it, with the user's own settings."""
        return self._run(arguments, at, _environment())

    def locally(self, *arguments: str, at: Path) -> str:
        """Run a command that may write files, without the user's settings, where filters and their like are named."""
        nothing = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "GIT_ATTR_NOSYSTEM": "1"}
        environment = {name: value for name, value in _environment().items() if not name.startswith("GIT_CONFIG")}
        return self._run(arguments, at, environment | nothing)

    def _run(self, arguments: tuple[str, ...], at: Path | None, environment: dict[str, str]) -> str:
        settings = [part for setting in _SETTINGS for part in ("-c", setting)]
        keeper = [sys.executable, "-I", "-S", "-c", _KEEPER, f"{int(signal.SIGPIPE)} {int(signal.SIGXFSZ)}"]
        with (
            _pipe() as (lifeline, _),
            subprocess.Popen(
                [*keeper, self.executable, *settings, *arguments],
                cwd=at,
                env=environment,
                stdin=lifeline,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                # No terminal for ssh to ask on, and one group to kill, since git has children.
                start_new_session=True,
            ) as process,
        ):
            try:
                output, errors = process.communicate(timeout=max(0.0, self.deadline - time.monotonic()))
            except BaseException as error:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                if isinstance(error, subprocess.TimeoutExpired):
                    raise _GitFailed(f"git {arguments[0]} of {self.name!r} ran out of time") from error
                raise
        if process.returncode != 0:
            reason = _redact(errors.strip()[-2000:]) or f"exit status {process.returncode}"
            raise _GitFailed(f"git {arguments[0]} of {self.name!r} failed: {reason}")
        return output


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)


def _environment() -> dict[str, str]:
    own = {name: value for name, value in variables.for_others().items() if name not in _ANOTHER_REPOSITORY}
    return own | {
        "GIT_TERMINAL_PROMPT": "0",
        "SSH_ASKPASS_REQUIRE": "never",
        # Not `ext`, which runs a command that the URL holds, nor any helper that happens to be installed.
        "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
    }
