"""What ``import remote_gym`` offers, and what it costs."""

import importlib.metadata
import inspect
import json
import subprocess
import sys

import pytest

import remote_gym
from remote_gym import errors
from waiting import scaled

# Seconds of processor time for `import remote_gym` after gymnasium and grpc.
IMPORT_BUDGET = 0.05
PROMISED = {
    "ClientOptions",
    "RemoteArgs",
    "RemoteEnvironment",
    "ServerOptions",
    "create_remote_environment_server",
}


def python(code: str) -> str:
    """Standard output of a fresh interpreter that ran ``code``."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=True, timeout=scaled(60), stdout=subprocess.PIPE, text=True).stdout


def test_all_is_sorted_and_without_repetition():
    assert list(remote_gym.__all__) == sorted(set(remote_gym.__all__))


def test_public_names_can_be_imported():
    for name in remote_gym.__all__:
        assert getattr(remote_gym, name) is not None
        assert name in dir(remote_gym)


def test_all_holds_every_public_name():
    for name in remote_gym.__all__:
        getattr(remote_gym, name)
    ours = {
        name for name, value in vars(remote_gym).items() if getattr(value, "__module__", "").startswith("remote_gym")
    }
    assert {name for name in ours if not name.startswith("_")} == set(remote_gym.__all__)


def test_all_keeps_what_is_promised():
    assert set(remote_gym.__all__) >= PROMISED


def test_version_is_the_packages():
    assert remote_gym.__version__ == importlib.metadata.version("remote-gym")
    assert "__version__" in dir(remote_gym)


def test_every_error_is_public():
    names = {name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)}
    assert names <= set(remote_gym.__all__)


def test_public_classes_and_functions_say_what_they_do():
    for name in remote_gym.__all__:
        value = getattr(remote_gym, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"remote_gym.{name} has no docstring"


def test_unknown_name_is_an_attribute_error_that_says_which():
    with pytest.raises(AttributeError, match="RemoteEnvironmnet"):
        remote_gym.RemoteEnvironmnet  # noqa: B018


def test_star_import_gives_all():
    namespace: dict[str, object] = {}
    exec("from remote_gym import *", namespace)
    assert set(remote_gym.__all__) <= namespace.keys()


def test_import_loads_nothing_beyond_gymnasium():
    code = (
        "import json, sys, gymnasium\n"
        "before = set(sys.modules)\n"
        "import remote_gym\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in set(sys.modules) - before})))"
    )
    loaded = set(json.loads(python(code))) - set(sys.stdlib_module_names)
    assert loaded == {"remote_gym"}


def test_import_stays_within_its_budget():
    code = (
        "import time, gymnasium, grpc\n"
        "start = time.process_time()\n"
        "import remote_gym\n"
        "print(time.process_time() - start)"
    )
    assert min(float(python(code)) for _ in range(3)) < IMPORT_BUDGET
