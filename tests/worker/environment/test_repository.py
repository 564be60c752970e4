"""Real git, on repositories in temporary folders."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from processes import descendants, is_alive
from remote_gym.errors import ConfigError
from remote_gym.worker.environment.repository import checkout, default_cache
from waiting import scaled, wait_until


@dataclass
class Repository:
    """A repository with a branch `main`."""

    path: Path

    def git(self, *arguments: str) -> str:
        identity = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "protocol.file.allow=always")
        command = ["git", *identity, *arguments]
        return subprocess.run(command, cwd=self.path, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, text: str, *, file: str = "version.txt") -> str:
        (self.path / file).write_text(text)
        self.git("add", "--all")
        self.git("commit", "-m", text)
        return self.git("rev-parse", "HEAD")


@pytest.fixture(autouse=True)
def own_git_settings(tmp_path, monkeypatch):
    """So that no setting of whoever runs the tests matters; the file is what the server's user has set."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    return tmp_path / ".gitconfig"


@pytest.fixture
def repository(tmp_path):
    path = tmp_path / "environments"
    path.mkdir()
    repository = Repository(path)
    repository.git("init", "--initial-branch=main")
    repository.commit("first")
    return repository


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def version(folder: Path) -> str:
    return (folder / "version.txt").read_text()


def left_over(cache: Path) -> list[Path]:
    return list(cache.rglob("partial-*"))


def test_the_default_branch_is_checked_out(repository, cache):
    repository.git("checkout", "-b", "other")
    repository.commit("other")
    assert version(checkout(str(repository.path), None, cache)) == "other"
    repository.git("checkout", "main")
    assert version(checkout(str(repository.path), None, cache)) == "first"


def test_a_default_branch_that_is_a_detached_head_is_checked_out(repository, cache):
    repository.git("checkout", "--detach")
    repository.commit("detached")
    assert version(checkout(str(repository.path), None, cache)) == "detached"


def test_a_branch_is_followed_and_older_checkouts_stay_as_they_were(repository, cache):
    first = checkout(str(repository.path), "main", cache)
    repository.commit("second")
    second = checkout(str(repository.path), "main", cache)
    assert (version(first), version(second)) == ("first", "second")
    assert not left_over(cache)


def test_a_branch_that_was_rewound_is_followed(repository, cache):
    repository.commit("mistake")
    checkout(str(repository.path), "main", cache)
    repository.git("reset", "--hard", "HEAD~1")
    repository.commit("mended")
    assert version(checkout(str(repository.path), "main", cache)) == "mended"


@pytest.mark.parametrize("kind", ["branch", "tag"])
def test_a_reference_that_replaces_another_as_its_folder_is_found(repository, cache, kind):
    repository.git(kind, "topic")
    checkout(str(repository.path), "topic", cache)
    repository.git(kind, "-d", "topic")
    repository.commit("nested")
    repository.git(kind, "topic/one")
    assert version(checkout(str(repository.path), "topic/one", cache)) == "nested"


def test_the_same_commit_is_checked_out_once(repository, cache):
    by_branch = checkout(str(repository.path), "main", cache)
    marker = by_branch / "written by an environment"
    marker.touch()
    repository.git("tag", "v1")
    assert checkout(str(repository.path), "v1", cache) == by_branch
    assert marker.exists()


@pytest.mark.parametrize("annotate", [(), ("-m", "a release")], ids=["plain", "annotated"])
def test_a_tag_is_checked_out_even_where_no_branch_holds_it(repository, cache, annotate):
    repository.git("checkout", "--detach")
    repository.commit("released")
    repository.git("tag", *annotate, "v1.0")
    repository.git("checkout", "main")
    assert version(checkout(str(repository.path), "v1.0", cache)) == "released"


def test_a_tag_that_moved_is_followed(repository, cache):
    repository.git("tag", "latest")
    checkout(str(repository.path), "latest", cache)
    repository.commit("second")
    repository.git("tag", "--force", "latest")
    assert version(checkout(str(repository.path), "latest", cache)) == "second"


def test_a_branch_is_preferred_to_a_tag_of_the_same_name(repository, cache):
    repository.git("tag", "both")
    repository.git("checkout", "-b", "both")
    repository.commit("branch")
    assert version(checkout(str(repository.path), "both", cache)) == "branch"


@pytest.mark.parametrize("digits", [7, 12, 40])
def test_a_commit_hash_is_checked_out(repository, cache, digits):
    first = repository.git("rev-parse", "HEAD")
    repository.commit("second")
    folder = checkout(str(repository.path), first[:digits], cache)
    assert version(folder) == "first"
    assert checkout(str(repository.path), first[:digits], cache) == folder


def test_a_full_hash_that_is_there_needs_neither_repository_nor_git(repository, cache, monkeypatch):
    commit = repository.git("rev-parse", "HEAD")
    folder = checkout(str(repository.path), commit, cache)
    shutil.rmtree(repository.path)
    monkeypatch.setenv("PATH", "")
    assert checkout(str(repository.path), commit, cache) == folder


def test_an_earlier_checkout_saves_fetching_its_objects_again(repository, cache):
    (repository.path / "large.bin").write_bytes(os.urandom(100_000))
    repository.commit("large")
    first = checkout(str(repository.path), "main", cache)
    repository.commit("small")
    second = checkout(str(repository.path), "main", cache)
    inodes = [
        {file.stat().st_ino for file in (folder / ".git" / "objects").rglob("*") if file.is_file()}
        for folder in (first, second)
    ]
    assert inodes[0] & inodes[1]
    shutil.rmtree(first)
    Repository(second).git("fsck", "--full")


def test_two_repositories_of_one_name_are_kept_apart(repository, cache, tmp_path):
    twin = tmp_path / "elsewhere" / "environments"
    shutil.copytree(repository.path, twin)
    here, there = (checkout(str(path), "main", cache) for path in (repository.path, twin))
    assert here != there
    assert here.name == there.name


def test_the_repositorys_hooks_and_the_users_templates_do_not_run(repository, cache, tmp_path, own_git_settings):
    evidence = tmp_path / "evidence"
    hook = f"#!/bin/sh\ntouch '{evidence}'\n"
    template = tmp_path / "template" / "hooks"
    tracked = repository.path / "hooks"
    for folder in (template, tracked, repository.path / ".git" / "hooks"):
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("post-checkout", "reference-transaction", "post-index-change"):
            (folder / name).write_text(hook)
            (folder / name).chmod(0o755)
    own_git_settings.write_text(f"[init]\ntemplateDir = {template.parent}\n[core]\nhooksPath = {tracked}\n")
    repository.git("-c", "core.hooksPath=/dev/null", "add", "--all")
    repository.git("-c", "core.hooksPath=/dev/null", "commit", "-m", "hooks")
    evidence.unlink(missing_ok=True)
    folder = checkout(str(repository.path), "main", cache)
    assert (folder / "hooks" / "post-checkout").exists()
    assert not (folder / ".git" / "hooks").exists()
    assert not evidence.exists()


def test_the_repositorys_attributes_do_not_run_the_users_filters(repository, cache, tmp_path, own_git_settings):
    evidence = tmp_path / "evidence"
    (repository.path / ".gitattributes").write_text("*.txt filter=noisy\n")
    repository.commit("filtered")
    own_git_settings.write_text(f'[filter "noisy"]\nsmudge = touch {evidence} && cat\n')
    assert version(checkout(str(repository.path), "main", cache)) == "filtered"
    assert not evidence.exists()


def test_submodules_are_left_alone(repository, cache, tmp_path):
    shutil.copytree(repository.path, tmp_path / "submodule")
    repository.git("submodule", "add", str(tmp_path / "submodule"), "inner")
    repository.git("commit", "-m", "submodule")
    folder = checkout(str(repository.path), "main", cache)
    assert not list((folder / "inner").iterdir())


def test_git_variables_of_a_calling_hook_do_not_lead_elsewhere(repository, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "another.git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "another-index"))
    folder = checkout(str(repository.path), "main", cache)
    assert version(folder) == "first"
    assert (folder / ".git" / "index").exists()


@pytest.mark.parametrize("reference", ["missing", "0" * 40, "0123456789", "v1*", "mai"])
def test_a_missing_reference_is_named_and_leaves_nothing(repository, cache, reference):
    with pytest.raises(ConfigError, match="is no branch, tag or commit") as caught:
        checkout(str(repository.path), reference, cache)
    assert repr(reference) in str(caught.value)
    assert not left_over(cache)


def test_a_repository_without_commits_is_named(cache, tmp_path):
    subprocess.run(["git", "init", "--quiet", str(tmp_path / "empty")], check=True)
    with pytest.raises(ConfigError, match=r"empty' has no commits"):
        checkout(str(tmp_path / "empty"), None, cache)


def test_a_missing_repository_is_named_with_gits_own_reason(cache, tmp_path):
    with pytest.raises(
        ConfigError, match=r"(?s)git ls-remote of .*missing' failed: .*does not appear to be a git repo"
    ):
        checkout(str(tmp_path / "missing"), None, cache)
    assert not cache.exists()


@pytest.mark.parametrize("repo", ["", "--upload-pack=touch /tmp/x", "a\nb", "a\0b"])
def test_a_repo_that_git_would_take_for_an_option_is_refused(cache, repo):
    with pytest.raises(ConfigError, match=r"^repo .* is not one for git"):
        checkout(repo, None, cache)


@pytest.mark.parametrize("reference", ["--orphan", "a\nb", "a\0b"])
def test_a_reference_that_git_would_take_for_an_option_is_refused(repository, cache, reference):
    with pytest.raises(ConfigError, match=r"^reference .* is not one for git"):
        checkout(str(repository.path), reference, cache)


def test_a_url_that_holds_a_command_does_not_run_it(cache, tmp_path, own_git_settings):
    own_git_settings.write_text('[protocol "ext"]\nallow = always\n')
    with pytest.raises(ConfigError, match="'ext' not allowed"):
        checkout(f"ext::touch {tmp_path}/evidence", None, cache)
    assert not (tmp_path / "evidence").exists()


def test_passwords_in_urls_stay_out_of_messages(cache):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ConfigError) as caught:
        checkout(f"http://user:secret@127.0.0.1:{port}/repo.git", None, cache)
    assert f"//***@127.0.0.1:{port}/repo.git" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_missing_git_is_named(repository, cache, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="needs git, which is not on the PATH"):
        checkout(str(repository.path), None, cache)


def test_a_server_that_never_answers_is_given_up(cache):
    with socket.create_server(("127.0.0.1", 0)) as server:
        before = time.monotonic()
        with pytest.raises(ConfigError, match="ran out of time"):
            checkout(f"git://127.0.0.1:{server.getsockname()[1]}/x", None, cache, timeout=scaled(0.3))
        assert time.monotonic() - before < scaled(20)


def test_a_held_lock_is_waited_for_until_the_deadline(repository, cache):
    folder = checkout(str(repository.path), "main", cache).parent
    repository.commit("second")
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match=r"kept .* locked"):
            checkout(str(repository.path), "main", cache, timeout=scaled(2.0))
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(checkout, str(repository.path), "main", cache)
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert version(waiting.result(timeout=scaled(30))) == "second"


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_git_does_not_outlive_who_waits_for_it(cache):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"git://127.0.0.1:{silent.getsockname()[1]}/x"
        code = (
            "from pathlib import Path\n"
            "from remote_gym.worker.environment.repository import checkout\n"
            f"checkout({url!r}, None, Path({str(cache)!r}))"
        )
        with subprocess.Popen([sys.executable, "-c", code]) as waiting:
            silent.settimeout(scaled(30.0))
            connection, _ = silent.accept()
            started = descendants(waiting.pid)
            assert len(started) > 1
            waiting.kill()
        wait_until(lambda: not any(map(is_alive, started)))
        connection.close()


@pytest.mark.parametrize("variable", ["REMOTE_GYM_TOKEN", "NOTIFY_SOCKET"])
def test_git_is_not_given_what_is_the_servers_own(repository, cache, monkeypatch, tmp_path, variable):
    noted = tmp_path / "noted"
    wrapper = tmp_path / "bin" / "git"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nenv >> "{noted}"\nexec {shutil.which("git")} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    monkeypatch.setenv(variable, "secret of the server")
    assert version(checkout(str(repository.path), "main", cache)) == "first"
    assert "GIT_TERMINAL_PROMPT" in noted.read_text()
    assert "secret of the server" not in noted.read_text()


@pytest.mark.parametrize("reference", ["main", "v1", None])
def test_a_checkout_that_is_there_is_had_without_the_lock(repository, cache, reference):
    repository.git("tag", "-m", "annotated", "v1")
    folder = checkout(str(repository.path), "main", cache)
    with (folder.parent / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert checkout(str(repository.path), reference, cache, timeout=scaled(5)) == folder


def _checkout_version(repo: str, cache: Path) -> str:
    return version(checkout(repo, "main", cache))


def test_processes_and_threads_that_ask_at_once_all_get_the_whole_checkout(repository, cache):
    for number in range(200):
        (repository.path / f"{number}.txt").write_text("x")
    (repository.path / "version.txt").unlink()
    repository.commit("whole", file="version.txt")
    results: list[str] = []
    threads = [
        threading.Thread(target=lambda: results.append(_checkout_version(str(repository.path), cache)))
        for _ in range(3)
    ]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pending = [pool.apply_async(_checkout_version, (str(repository.path), cache)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=scaled(60))
        results.extend(answer.get(timeout=scaled(60)) for answer in pending)
    assert results == ["whole"] * 6
    assert len([entry for entry in cache.glob("*/*") if entry.is_dir()]) == 1


def test_what_a_killed_process_left_half_made_is_neither_used_nor_kept(repository, cache):
    folder = checkout(str(repository.path), "main", cache).parent
    repository.commit("second")
    (folder / "partial-killed").mkdir()
    (folder / "partial-killed" / "version.txt").write_text("half")
    assert version(checkout(str(repository.path), "main", cache)) == "second"
    assert not left_over(cache)


def test_a_cache_that_cannot_be_written_is_named(repository, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot keep git checkouts in .*file/cache.*XDG_CACHE_HOME"):
        checkout(str(repository.path), "main", tmp_path / "file" / "cache")


def test_the_default_cache_follows_xdg(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "remote_gym"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for ignored in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert default_cache() == tmp_path / "home" / ".cache" / "remote_gym"
