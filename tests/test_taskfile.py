"""Taskfile.md, its runner, and the small programs in ci/ that it calls."""

import datetime
import re
import subprocess
import sys
from pathlib import Path

import pytest

import bump
import install
import task
from waiting import scaled

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it along

ROOT = Path(__file__).resolve().parent.parent

TASKFILE = """\
# About

### not-a-task

## Tasks

Some words.

### first

Why one would.

```sh
# a comment, not a heading
echo first "$@" >> log
```

### second

Requires: first

```sh
echo second >> log
```

### third

Requires: first, second

```sh
echo third "$@" >> log
```

## Afterwards

### neither-a-task
"""


@pytest.fixture
def taskfile(tmp_path):
    path = tmp_path / "Taskfile.md"
    path.write_text(TASKFILE)
    return path


def log(taskfile: Path) -> list[str]:
    return (taskfile.parent / "log").read_text().splitlines()


def section(name: str, body: str) -> str:
    return f"## Tasks\n\n### {name}\n\n{body}\n"


BLOCK = "```sh\ntrue\n```\n"


def test_tasks_are_the_sections_below_their_heading():
    tasks = task.parse(TASKFILE)
    assert list(tasks) == ["first", "second", "third"]
    assert tasks["first"].why == "Why one would."
    assert tasks["third"].requires == ("first", "second")
    assert tasks["second"].script == "echo second >> log"


def test_requirements_run_first_and_once(taskfile):
    assert task.main(["third"], taskfile) == 0
    assert log(taskfile) == ["first", "second", "third"]


def test_arguments_reach_the_last_task_only_and_stay_whole(taskfile):
    assert task.main(["third", "-k", "two words"], taskfile) == 0
    assert log(taskfile) == ["first", "second", "third -k two words"]


def test_arguments_that_a_block_ignores_are_refused_before_anything_runs(taskfile, capsys):
    assert task.main(["second", "-k"], taskfile) == 2
    assert "'second' takes no arguments; found -k" in capsys.readouterr().err
    assert not (taskfile.parent / "log").exists()


def test_failing_requirement_stops_the_rest_and_gives_its_status(taskfile):
    taskfile.write_text(TASKFILE.replace("echo second", "sh -c 'exit 7'; echo second"))
    assert task.main(["third"], taskfile) == 7
    assert log(taskfile) == ["first"]


def test_unset_variable_stops_a_block(taskfile):
    taskfile.write_text(section("first", '```sh\nrm -rf "$UNSET_BY_ALL/x"\ntouch log\n```'))
    assert task.main(["first"], taskfile) != 0
    assert not (taskfile.parent / "log").exists()


def test_block_knows_the_python_that_runs_it(taskfile):
    taskfile.write_text(section("first", '```sh\necho "$PYTHON" > log\n```'))
    assert task.main(["first"], taskfile) == 0
    assert log(taskfile) == [sys.executable]


def test_without_a_name_all_are_listed(taskfile, capsys):
    assert task.main([], taskfile) == 0
    assert "first   Why one would." in capsys.readouterr().out


def test_unknown_name_is_answered_by_those_there_are(taskfile, capsys):
    assert task.main(["fourth"], taskfile) == 2
    assert "no task 'fourth'; there is first, second, third" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (section("a", "Requires: b"), "'a' requires 'b'; there is a"),
        (section("a", BLOCK) + "### a\n" + BLOCK, "a second task 'a'"),
        (section("a", BLOCK + BLOCK), "has 2 blocks"),
        (section("a", "```sh\ntrue"), "its block has no end"),
        (section("a", "Words only."), "does nothing"),
        (section("a", "Env: A=1\n\n" + BLOCK), "found 'Env: A=1'"),
    ],
)
def test_faulty_file_is_refused_with_a_reason(text, message):
    with pytest.raises(task.TaskError, match=re.escape(message)):
        task.parse(text)


def test_tasks_that_require_each_other_are_refused_with_their_circle():
    tasks = task.parse("## Tasks\n### a\nRequires: b\n### b\nRequires: c\n### c\nRequires: b\n")
    with pytest.raises(task.TaskError, match="b -> c -> b"):
        task.plan(tasks, "a")


def test_runner_works_as_a_program_from_any_folder(tmp_path):
    command = [sys.executable, ROOT / "ci" / "task.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=scaled(60))
    assert done.returncode == 0
    assert re.search(r"^test +Know whether", done.stdout, re.MULTILINE)


class TestOurs:
    TASKS = task.parse((ROOT / "Taskfile.md").read_text(encoding="utf-8"))

    def test_promised_tasks_are_there(self):
        promised = "venv proto format lint typecheck test demo build publish bump update clean clean-all"
        assert self.TASKS.keys() >= set(promised.split())

    def test_each_can_be_planned_and_says_why(self):
        for name, ours in self.TASKS.items():
            assert task.plan(self.TASKS, name)[-1].name == name
            assert ours.why or ours.script is None, name

    def test_those_that_use_the_environment_make_it_first(self):
        users = [name for name, ours in self.TASKS.items() if ".venv/bin/" in (ours.script or "")]
        assert users
        first = {name: task.plan(self.TASKS, name)[0].name for name in users}
        assert first == dict.fromkeys(users, "venv")

    def test_blocks_are_shell(self):
        parsed = {
            name: subprocess.run(["sh", "-n", "-c", ours.script or ""], capture_output=True, text=True)
            for name, ours in self.TASKS.items()
        }
        assert {name: done.stderr for name, done in parsed.items() if done.returncode} == {}


class TestLock:
    LOCK = (ROOT / "requirements-dev.lock").read_text(encoding="utf-8")
    ENTRIES = re.findall(r"^[A-Za-z0-9](?:.*\\\n)*.*", LOCK, re.MULTILINE)

    def test_every_version_is_exact_and_has_a_hash(self):
        assert self.ENTRIES
        for entry in self.ENTRIES:
            assert re.match(r"[a-z0-9-]+==\S+", entry), entry
            assert "--hash=sha256:" in entry, entry

    def test_names_no_registry_and_no_folder(self):
        assert not re.search(r"https?://|file:|--(extra-)?index-url|--find-links|(?<![\w.])/\w", self.LOCK)

    def test_holds_all_that_the_project_asks_for(self):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        groups = project["dependency-groups"]
        wanted = [*project["project"]["dependencies"]]
        for extra in project["project"]["optional-dependencies"].values():
            wanted += extra
        for entry in groups["dev"]:
            wanted += [entry] if isinstance(entry, str) else groups[entry["include-group"]]
        locked = {entry.partition("==")[0] for entry in self.ENTRIES}
        names = {re.match(r"[\w.-]+", requirement)[0].lower() for requirement in wanted}
        assert names <= locked, "run the task 'update'"

    def test_uv_is_taken_from_it_with_its_hashes(self):
        requirement = install.uv_requirement(self.LOCK)
        assert re.match(r"uv==\d", requirement)
        assert requirement.count("--hash=") > 1
        assert requirement.count("==") == 1


def test_uv_asks_the_registry_that_pip_is_told_of():
    settings = "global.index-url='https://a.example/simple'\n:env:.cert='/etc/cert.pem'\nglobal.timeout='9'\n"
    assert install.uv_environment(settings, {"HOME": "/h"}) == {
        "HOME": "/h",
        "UV_DEFAULT_INDEX": "https://a.example/simple",
        "SSL_CERT_FILE": "/etc/cert.pem",
    }


def test_uv_keeps_a_setting_of_its_own():
    settings = "global.index-url='https://a.example/simple'\n"
    environment = {"UV_DEFAULT_INDEX": "https://b.example/simple"}
    assert install.uv_environment(settings, environment) == environment


class TestBump:
    @pytest.mark.parametrize(
        ("wanted", "version"),
        [("major", "2.0.0"), ("minor", "1.3.0"), ("patch", "1.2.4"), ("1.10.0", "1.10.0"), ("1.2.3", "1.2.3")],
    )
    def test_next_version(self, wanted, version):
        assert bump.next_version("1.2.3", wanted) == version

    @pytest.mark.parametrize(
        ("current", "wanted", "version"),
        [
            ("0.9.0.dev0", "minor", "0.9.0"),
            ("0.9.0.dev0", "patch", "0.9.0"),
            ("0.9.0.dev0", "major", "1.0.0"),
            ("0.9.0.dev0", "0.9.0", "0.9.0"),
            ("0.9.1.dev3", "minor", "0.10.0"),
        ],
    )
    def test_after_a_development_version_comes_what_it_leads_to(self, current, wanted, version):
        assert bump.next_version(current, wanted) == version

    @pytest.mark.parametrize("wanted", ["1.2.2", "1.2", "v2.0.0", "newer", "", "2.0.0rc1"])
    def test_version_that_cannot_be_next_is_refused(self, wanted):
        with pytest.raises(bump.BumpError):
            bump.next_version("1.2.3", wanted)

    def test_unreleased_changes_move_below_the_version(self):
        text = "# Changelog\n\n## [Unreleased]\n\n- A.\n\n## [1.0.0] - 2020-01-01\n"
        assert bump.bump_changelog(text, "1.1.0", datetime.date(2021, 2, 3)) == (
            "# Changelog\n\n## [Unreleased]\n\n## [1.1.0] - 2021-02-03\n\n- A.\n\n## [1.0.0] - 2020-01-01\n"
        )

    def test_our_own_files_can_be_bumped(self, tmp_path):
        for name in ("pyproject.toml", "CHANGELOG.md"):
            (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
        with (tmp_path / "CHANGELOG.md").open("r+", encoding="utf-8") as file:
            text = file.read().replace("## [Unreleased]\n", "## [Unreleased]\n\n### Fixed\n\n- Something.\n", 1)
            file.seek(0)
            file.write(text)
        assert bump.main(["987.6.5"], tmp_path) == 0
        project = tomllib.loads((tmp_path / "pyproject.toml").read_text(encoding="utf-8"))
        assert project["project"]["version"] == "987.6.5"
        assert "## [987.6.5] - 20" in (tmp_path / "CHANGELOG.md").read_text(encoding="utf-8")

    def test_nothing_unreleased_changes_neither_file(self, tmp_path, capsys):
        project, changelog = tmp_path / "pyproject.toml", tmp_path / "CHANGELOG.md"
        project.write_text('version = "1.0.0"\n')
        changelog.write_text("## [Unreleased]\n\n## [1.0.0] - 2020-01-01\n\n- A.\n")
        assert bump.main(["minor"], tmp_path) == 2
        assert "nothing is unreleased" in capsys.readouterr().err
        assert project.read_text() == 'version = "1.0.0"\n'
