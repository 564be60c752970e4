from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import gymnasium as gym
import pytest

from remote_gym.errors import ConfigError, NotPermitted
from remote_gym.v1 import worker_pb2
from remote_gym.worker.environment import entrypoint_modules
from remote_gym.worker.environment.entrypoint import create_environment
from waiting import scaled

EXPLORATION = Path(__file__).resolve().parents[3] / "exploration"
ENVIRONMENT = """
import gymnasium as gym

class Environment(gym.Env):
    observation_space = action_space = gym.spaces.Discrete(2)

    def __init__(self, **arguments):
        self.arguments = arguments

"""


@pytest.fixture(autouse=True)
def untouched_interpreter(monkeypatch, tmp_path):
    """Loading entrypoints changes the process; afterwards it is as before."""
    monkeypatch.setattr(entrypoint_modules, "_FINDER", entrypoint_modules._EntrypointFinder())
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    for module in ("ale_py", "minigrid"):  # what they register once is to stay
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    registered = set(gym.registry)
    yield
    for name in set(sys.modules) - before:
        # Packages of extension modules do not survive being imported twice.
        if "/site-packages/" not in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    for id_ in set(gym.registry) - registered:
        if not id_.startswith(("ALE/", "MiniGrid")):
            gym.registry.pop(id_)


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    return root


def write(file: Path, code: str, *, environment: bool = True) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text((ENVIRONMENT if environment else "") + textwrap.dedent(code))
    return file


def launch(root: Path, entrypoint: str = "", **fields: object) -> worker_pb2.Launch:
    return worker_pb2.Launch(root=str(root), entrypoint=entrypoint, **fields)


def create(
    root: Path, entrypoint: str = "entry.py", kwargs: dict | None = None, client: dict | None = None, **fields: object
) -> gym.Env:
    message = launch(root, entrypoint, **fields)
    return create_environment(message, kwargs or {}, client, own_process=False).environment


# --------------------------------------------------------------------------------------------------------------
# What create_environment gets


SIGNATURES = [
    ("**arguments", {}),
    ("env_id, **arguments", {"env_id": 3}),
    ("enable_rendering: bool, env_id: int, **arguments", {"enable_rendering": True, "env_id": 3}),
    ("render_mode, **arguments", {"render_mode": "rgb_array"}),
    ("*, render_mode=None, **arguments", {"render_mode": "rgb_array"}),
    ("env_id=None, /, **arguments", {"env_id": None}),
]


@pytest.mark.parametrize(("parameters", "injected"), SIGNATURES, ids=[parameters for parameters, _ in SIGNATURES])
def test_only_parameters_that_the_signature_names_are_injected(root, parameters, injected):
    write(
        root / "entry.py",
        f"""
        def create_environment({parameters}):
            arguments = {{**locals(), **locals().pop("arguments")}}
            return Environment(**{{name: value for name, value in arguments.items() if name != "arguments"}})
        """,
    )
    environment = create(root, kwargs={"difficulty": 2}, env_id=3, render_mode="rgb_array")
    assert environment.arguments == {"difficulty": 2, **injected}


def test_without_a_render_mode_rendering_is_off(root):
    write(
        root / "entry.py",
        "def create_environment(enable_rendering, render_mode): return Environment(e=enable_rendering, r=render_mode)",
    )
    assert create(root).arguments == {"e": False, "r": None}


def test_keyword_arguments_win_over_injected_ones_but_an_env_id_is_the_servers(root):
    write(root / "entry.py", "def create_environment(env_id, render_mode): return Environment(i=env_id, r=render_mode)")
    kwargs = {"env_id": 7, "render_mode": None}
    assert create(root, kwargs=kwargs, env_id=3, render_mode="rgb_array").arguments == {"i": 3, "r": None}
    assert kwargs == {"env_id": 7, "render_mode": None}


def test_a_class_serves_as_create_environment(root):
    write(root / "entry.py", "create_environment = Environment")
    assert create(root, kwargs={"difficulty": 2}, env_id=3).arguments == {"difficulty": 2}


def test_exposed_names_are_told_in_order_and_once(root):
    write(root / "entry.py", "EXPOSED = ['b', 'a', 'b']\ncreate_environment = Environment")
    created = create_environment(launch(root, "entry.py"), {}, own_process=False)
    assert created.exposed == ("b", "a")
    assert isinstance(created.environment, gym.Env)


def test_nothing_is_exposed_unless_listed(root):
    write(root / "entry.py", "create_environment = Environment")
    assert create_environment(launch(root, "entry.py"), {}, own_process=False).exposed == ()


@pytest.mark.parametrize("exposed", ["'action_masks'", "('a b',)", "(1,)", "None", "('',)"])
def test_exposed_names_that_are_none_are_refused_before_the_environment_is_made(root, exposed):
    write(root / "entry.py", f"EXPOSED = {exposed}\ndef create_environment(): raise AssertionError")
    with pytest.raises(ConfigError, match=r"entry\.py: EXPOSED "):
        create(root)


# --------------------------------------------------------------------------------------------------------------
# Where it runs


def test_the_root_and_its_src_folder_can_be_imported_from(root):
    write(root / "src" / "in_src.py", "NAME = 'src'", environment=False)
    write(root / "in_root.py", "NAME = 'root'", environment=False)
    write(
        root / "sub" / "entry.py",
        """
        import in_root, in_src
        def create_environment(): return Environment(names=(in_root.NAME, in_src.NAME))
        """,
    )
    assert create(root, "sub/entry.py").arguments == {"names": ("root", "src")}
    assert sys.path[:2] == [str(root / "src"), str(root)]
    assert sys.path[-1] == str(root / "sub")
    create(root, "sub/entry.py")
    assert sys.path.count(str(root)) == 1


@pytest.mark.parametrize("change", [True, False])
def test_a_process_changes_to_the_root_before_loading_and_a_thread_does_not(root, tmp_path, change):
    write(root / "entry.py", "import os\nHERE = os.getcwd()\ndef create_environment(): return Environment(here=HERE)")
    environment = create_environment(launch(root, "entry.py"), {}, own_process=change).environment
    assert environment.unwrapped.arguments == {"here": str(root if change else tmp_path)}
    assert Path.cwd() == (root if change else tmp_path)


def test_a_root_behind_a_symbolic_link_holds_its_files(root, tmp_path):
    write(root / "entry.py", "create_environment = Environment")
    (tmp_path / "link").symlink_to(root)
    assert create(tmp_path / "link").arguments == {}
    assert create(tmp_path / "link", str(tmp_path / "link" / "entry.py")).arguments == {}


def test_imports_come_first_and_may_stand_below_the_root(root):
    write(root / "registers_first.py", "DONE = True", environment=False)
    write(
        root / "entry.py",
        "import sys\nassert 'registers_first' in sys.modules\ncreate_environment = Environment",
    )
    create(root, imports=["registers_first"])


def test_a_repository_is_checked_out_and_its_root_used(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write(tmp_path / "here" / "repo" / "src" / "helper_of_repo.py", "NAME = 'helper'", environment=False)
    write(
        tmp_path / "here" / "repo" / "entry.py",
        "import helper_of_repo as h\ndef create_environment(): return Environment(file=__file__, name=h.NAME)",
    )
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    for arguments in (["init", "-b", "main"], ["add", "-A"], [*identity, "commit", "-m", "x"], ["tag", "v1"]):
        subprocess.run(["git", *arguments], cwd=tmp_path / "here" / "repo", check=True, capture_output=True)
    for repo in (str(tmp_path / "here" / "repo"), "repo"):
        arguments = create(tmp_path / "here", repo=repo, reference="v1").arguments
        assert arguments["name"] == "helper"
        assert Path(arguments["file"]).is_relative_to(tmp_path / "cache" / "remote_gym")


# --------------------------------------------------------------------------------------------------------------
# Its module


def test_the_module_bears_its_files_name_so_that_its_classes_pickle(root):
    write(root / "sub" / "named_by_stem.py", "create_environment = Environment")
    environment = create(root, "sub/named_by_stem.py", {"difficulty": 2})
    assert type(environment).__module__ == "named_by_stem"
    assert pickle.loads(pickle.dumps(environment)).arguments == {"difficulty": 2}


@pytest.mark.parametrize("name", ["my-entry", "class", "1st", "with space"])
def test_a_name_that_is_no_identifier_is_the_modules_all_the_same(root, name):
    write(root / "sub" / f"{name}.py", "create_environment = Environment")
    environment = create(root, f"sub/{name}.py")
    assert type(environment).__module__ == name
    assert type(pickle.loads(pickle.dumps(environment))) is type(environment)


@pytest.mark.parametrize("name", ["random", "gymnasium", "xmlrpc", "neighbour", "env.v2"])
def test_a_name_that_would_hide_a_module_or_is_none_is_replaced_by_one_that_pickles(root, name):
    write(root / "neighbour.py", "MINE = True", environment=False)
    write(root / "sub" / f"{name}.py", "create_environment = Environment")
    environment = create(root, f"sub/{name}.py")
    assert type(environment).__module__.startswith("remote_gym_entrypoint_")
    assert type(pickle.loads(pickle.dumps(environment))) is type(environment)
    import random
    import xmlrpc

    import neighbour

    assert neighbour.MINE
    assert random.random
    assert "create_environment" not in vars(xmlrpc)


@pytest.mark.parametrize("file", ["entry.py", "entry.v2.py", "__init__.py"])
@pytest.mark.parametrize("folder", ["", "src/"])
def test_an_entrypoint_in_a_package_is_imported_as_a_part_of_it(root, folder, file):
    package = root / f"{folder}outer_package" / "inner"
    for init in (package, package.parent):
        write(init / "__init__.py", "", environment=False)
    write(package.parent / "beside_the_inner.py", "NAME = 'outer'", environment=False)
    write(package / "beside.py", "NAME = 'inner'", environment=False)
    write(
        package / file,
        """
        from .. import beside_the_inner
        from . import beside as relatively
        import beside as by_itself
        import outer_package.inner.beside as absolutely
        assert absolutely is relatively
        def create_environment(): return Environment(names=(by_itself.NAME, beside_the_inner.NAME))
        """,
    )
    environment = create(root, str((package / file).relative_to(root)))
    assert environment.arguments == {"names": ("inner", "outer")}
    assert type(environment).__module__.startswith("outer_package.inner")
    assert type(pickle.loads(pickle.dumps(environment))) is type(environment)


def test_a_package_that_another_hides_is_none_and_the_root_is_none(root):
    for name in ("xmlrpc", "."):
        write(root / name / "__init__.py", "raise RuntimeError('not to be imported')", environment=False)
        write(root / name / "stand_alone.py", "create_environment = Environment")
    importlib.import_module("xmlrpc")
    assert type(create(root, "stand_alone.py")).__module__ == "stand_alone"
    assert type(create(root, "xmlrpc/stand_alone.py")).__module__.startswith("remote_gym_entrypoint_stand_alone")


def test_what_is_beside_an_entrypoint_hides_nothing(root):
    write(root / "sub" / "xmlrpc.py", "raise RuntimeError('hidden')", environment=False)
    write(root / "sub" / "entry_beside.py", "import xmlrpc.client\ncreate_environment = Environment")
    create(root, "sub/entry_beside.py")
    assert sys.path[:1] == [str(root)]
    assert sys.path[-1] == str(root / "sub")


def test_two_files_of_one_name_are_two_modules(tmp_path):
    for root in ("a", "b"):
        write(tmp_path / root / "twin_entry.py", f"def create_environment(): return Environment(root={root!r})")
    first, second, again = (create(tmp_path / root, "twin_entry.py") for root in "aba")
    assert [environment.arguments["root"] for environment in (first, second, again)] == ["a", "b", "a"]
    assert type(first) is type(again)
    for environment in (first, second):
        assert type(pickle.loads(pickle.dumps(environment))) is type(environment)


def test_a_module_that_was_imported_already_is_not_loaded_again(root, monkeypatch):
    write(root / "imported_already.py", "create_environment = Environment")
    monkeypatch.syspath_prepend(str(root))
    import imported_already

    assert type(create(root, "imported_already.py")) is imported_already.Environment


def test_a_file_keeps_its_name_when_the_module_that_it_would_have_hidden_is_gone(root):
    hidden = write(root / "gone_later.py", "", environment=False)
    write(root / "sub" / "gone_later.py", "create_environment = Environment")
    before = create(root, "sub/gone_later.py")
    hidden.unlink()
    assert type(create(root, "sub/gone_later.py")) is type(before)


def test_files_that_are_newer_than_the_root_are_found(root):
    write(root / "early_entry.py", "create_environment = Environment")
    create(root, "early_entry.py")
    stamp = root.stat().st_mtime_ns
    write(root / "late_module.py", "", environment=False)
    write(root / "late_entry.py", "import late_module\ncreate_environment = Environment")
    # As on a file system with coarse times: Python caches a folder's list by its time.
    os.utime(root, ns=(stamp, stamp))
    assert create(root, "late_entry.py").arguments == {}


def test_threads_never_get_half_a_module(root, monkeypatch):
    write(
        root / "slow_entry.py",
        """
        import slow_entry_gate
        slow_entry_gate.LOADS.append(1)
        slow_entry_gate.started.set()
        assert slow_entry_gate.go_on.wait(30)
        def create_environment(): return Environment()
        """,
    )
    write(
        root / "slow_entry_gate.py",
        "import threading\nstarted, go_on, LOADS = threading.Event(), threading.Event(), []",
        environment=False,
    )
    monkeypatch.syspath_prepend(str(root))
    import slow_entry_gate as gate

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(create, root, "slow_entry.py")
        assert gate.started.wait(scaled(30))
        others = [pool.submit(create, root, "slow_entry.py") for _ in range(3)]
        try:
            assert not wait(others, timeout=scaled(0.2)).done
        finally:
            gate.go_on.set()
        environments = [answer.result(timeout=scaled(30)) for answer in (first, *others)]
    assert len({type(environment) for environment in environments}) == 1
    assert gate.LOADS == [1]


def test_while_one_entrypoint_loads_another_can(root, monkeypatch):
    write(root / "quick_entry.py", "create_environment = Environment")
    write(
        root / "waiting_entry.py",
        """
        import waiting_entry_gate as gate
        gate.started.set()
        assert gate.go_on.wait(30)
        create_environment = Environment
        """,
    )
    write(
        root / "waiting_entry_gate.py",
        "import threading\nstarted, go_on = threading.Event(), threading.Event()",
        environment=False,
    )
    monkeypatch.syspath_prepend(str(root))
    import waiting_entry_gate as gate

    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(create, root, "waiting_entry.py")
        try:
            assert gate.started.wait(scaled(30))
            assert pool.submit(create, root, "quick_entry.py").result(timeout=scaled(30)).arguments == {}
        finally:
            gate.go_on.set()
        waiting.result(timeout=scaled(30))


# --------------------------------------------------------------------------------------------------------------
# What is wrong with it


@pytest.mark.parametrize("entrypoint", ["link.py", "../outside.py", "{outside}"])
def test_a_server_may_name_a_file_anywhere(root, entrypoint):
    outside = write(root.parent / "outside.py", "create_environment = Environment")
    (root / "link.py").symlink_to("../outside.py")
    environment = create(root, entrypoint.format(outside=outside), anywhere=True)
    assert environment.arguments == {}
    assert sys.path[-1] == str(root.parent)


def test_a_missing_file_is_named_as_it_was(root):
    with pytest.raises(ConfigError, match=r"'/nowhere/entry.py' does not exist$"):
        create(root, "/nowhere/entry.py", anywhere=True)


@pytest.mark.parametrize(
    ("entrypoint", "message"),
    [
        ("missing.py", "'missing.py' does not exist below its root"),
        ("folder", "'folder' is a folder"),
        (".", "is a folder"),
        ("../outside.py", "is outside its root"),
        ("../missing.py", "is outside its root"),
        ("/etc/passwd", "is outside its root"),
        ("link.py", "is outside its root"),
        ("folder/../../outside.py", "is outside its root"),
        ("loop.py", "loop.py"),
        ("text.txt", "is not a .py file"),
        ("nul\0.py", "is not a path"),
        ("x" * 5000 + ".py", "cannot be read"),
    ],
)
def test_a_path_that_does_not_lead_to_a_file_below_the_root_is_refused(root, entrypoint, message):
    (root / "folder").mkdir()
    write(root.parent / "outside.py", "create_environment = Environment")
    (root / "link.py").symlink_to("../outside.py")
    (root / "loop.py").symlink_to("loop.py")
    (root / "text.txt").touch()
    with pytest.raises(ConfigError) as caught:
        create(root, entrypoint)
    assert message in str(caught.value)


def test_a_root_that_is_no_folder_is_refused(root):
    with pytest.raises(ConfigError, match=r"root .*missing' is not a folder"):
        create(root / "missing")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("", r"entry\.py does not define create_environment"),
        ("create_environment = 3", r"entry\.py: create_environment is of type int"),
        ("def create_environment(): return 3", r"create_environment returned the type int; return a gymnasium\.Env"),
        ("def create_environment(): pass", "create_environment returned the type NoneType"),
        ("import fractions\ncreate_environment = fractions.Fraction", r"returned the type fractions\.Fraction"),
    ],
)
def test_an_entrypoint_that_does_not_keep_to_its_form_is_named(root, code, message):
    write(root / "entry.py", code)
    with pytest.raises(ConfigError, match=message):
        create(root)


@pytest.mark.parametrize("parameters", ["", "needed, **kwargs", "difficulty, needed", "difficulty, /"])
def test_other_arguments_than_the_signature_takes_are_told_before_the_call(root, parameters):
    write(root / "entry.py", f"def create_environment({parameters}): raise AssertionError")
    with pytest.raises(ConfigError) as caught:
        create(root, kwargs={"difficulty": 2})
    assert f"create_environment({parameters}) was to be called with difficulty: " in str(caught.value)


def test_a_type_error_of_the_entrypoint_itself_is_its_own(root):
    write(root / "entry.py", "def create_environment(): return len(3)")
    with pytest.raises(TypeError, match="has no len"):
        create(root)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("raise KeyError('on import')", KeyError),
        ("def create_environment(): raise KeyError('on creation')", KeyError),
        ("def create_environment(: pass", SyntaxError),
        ("import missing_dependency", ModuleNotFoundError),
        ("raise SystemExit(3)", SystemExit),
    ],
)
def test_what_the_entrypoint_raises_passes_through(root, code, error):
    file = write(root / "entry.py", code)
    with pytest.raises(error) as caught:
        create(root)
    where = {str(entry.path) for entry in caught.traceback} | {getattr(caught.value, "filename", None)}
    assert str(file) in where


def test_a_failed_import_is_tried_again(root):
    write(root / "mended_entry.py", "raise RuntimeError")
    for _ in range(2):
        with pytest.raises(RuntimeError):
            create(root, "mended_entry.py")
    write(root / "mended_entry.py", "create_environment = Environment  # of another size")
    assert create(root, "mended_entry.py").arguments == {}


@pytest.mark.parametrize("name", ["missing_module", "gymnasium.missing", "", ".relative", "a b", "os;"])
def test_a_module_that_cannot_be_imported_is_named(root, name):
    with pytest.raises(ConfigError, match="cannot import") as caught:
        create(root, "", {"id": "CartPole-v1"}, imports=[name])
    assert repr(name) in str(caught.value)


# --------------------------------------------------------------------------------------------------------------
# Registered environments


def test_a_gymnasium_id_makes_its_environment(root):
    kwargs = {"id": "MountainCarContinuous-v0", "goal_velocity": 0.5, "max_episode_steps": 7}
    created = create_environment(launch(root), {}, kwargs, own_process=False)
    environment = created.environment
    assert kwargs["id"] == "MountainCarContinuous-v0"
    assert (environment.unwrapped.goal_velocity, environment.spec.max_episode_steps) == (0.5, 7)
    assert environment.render_mode is None
    assert created.exposed == ("np_random",)


@pytest.mark.parametrize(("kwargs", "expected"), [({}, "rgb_array"), ({"render_mode": None}, None)])
def test_the_render_mode_reaches_it_unless_given(root, kwargs, expected):
    assert create(root, "", {"id": "CartPole-v1", **kwargs}, render_mode="rgb_array").render_mode == expected


@pytest.mark.parametrize(
    ("id_", "suggestion"),
    [
        ("CartPol-v1", "Did you mean: `CartPole`"),
        ("CartPole-v99", "It provides"),
        ("CartPole-v-1", "CartPole-v-1"),
        ("AL/Pong-v5", "Namespace AL not found"),
        ("", "not a Gymnasium id"),
        ("no id at all", "not a Gymnasium id"),
    ],
)
def test_an_unknown_id_brings_gymnasiums_suggestion(root, id_, suggestion):
    with pytest.raises(ConfigError) as caught:
        create(root, "", {"id": id_})
    assert suggestion in str(caught.value)


def test_an_unknown_id_brings_the_hint_to_import_its_package(root):
    with pytest.raises(ConfigError, match=r"imports=\('MODULE',\)"):
        create(root, "", {"id": "Registered-v0"})
    write(
        root / "registers_it.py",
        "gym.register('Registered-v0', entry_point=Environment, disable_env_checker=True)",
    )
    assert create(root, "", {"id": "Registered-v0", "x": 1}, imports=["registers_it"]).unwrapped.arguments == {"x": 1}


@pytest.mark.parametrize("kwargs", [{}, {"id": 3}, {"id": None}])
def test_a_missing_id_is_asked_for(root, kwargs):
    with pytest.raises(ConfigError, match=r'such as .*\{"id": "CartPole-v1"\}'):
        create(root, "", kwargs)


def test_an_id_that_imports_a_module_is_the_servers_alone(root):
    write(
        root / "registers_too.py",
        "gym.register('RegisteredToo-v0', entry_point=Environment, disable_env_checker=True)",
    )
    with pytest.raises(NotPermitted, match=r"imports=\('registers_too',\)"):
        create(root, "", {}, {"id": "registers_too:RegisteredToo-v0"})
    assert "registers_too" not in sys.modules
    assert create(root, "", {"id": "registers_too:RegisteredToo-v0"}).unwrapped.arguments == {}
    with pytest.raises(ConfigError, match="cannot import 'missing_module'"):
        create(root, "", {"id": "missing_module:Env-v0"})


def test_an_id_that_the_server_names_is_not_the_clients_to_change(root):
    with pytest.raises(NotPermitted, match=r"'Acrobot-v1' is not what the server offers, which is 'CartPole-v1'"):
        create(root, "", {"id": "CartPole-v1"}, {"id": "Acrobot-v1"})
    assert create(root, "", {"id": "CartPole-v1"}, {"id": "CartPole-v1"}).spec.id == "CartPole-v1"
    with pytest.raises(ConfigError, match="id 3"):
        create(root, "", {}, {"id": 3})


def test_what_the_constructor_raises_passes_through(root):
    with pytest.raises(TypeError, match="unexpected keyword argument 'difficulty'"):
        create(root, "", {"id": "CartPole-v1", "difficulty": 2})


@pytest.mark.parametrize(("module", "id_"), [("ale_py", "ALE/Pong-v5"), ("minigrid", "MiniGrid-Empty-5x5-v0")])
def test_packages_that_register_environments_are_imported(root, module, id_):
    pytest.importorskip(module)
    environment = create(root, "", {"id": id_}, imports=[module])
    assert environment.spec.id == id_
    environment.close()


# --------------------------------------------------------------------------------------------------------------
# Our own


def test_the_example_makes_any_registered_environment():
    kwargs = {"env": "CartPole-v1", "max_episode_steps": 7}
    environment = create(EXPLORATION, "remote_environment_entrypoint.py", kwargs, render_mode="rgb_array")
    assert (environment.spec.id, environment.render_mode) == ("CartPole-v1", "rgb_array")
    assert environment.spec.max_episode_steps == 7


def test_the_example_imports_nothing_on_a_clients_word():
    with pytest.raises(ValueError, match="would import a module"):
        create(EXPLORATION, "remote_environment_entrypoint.py", {"env": "this:CartPole-v1"})


def test_no_grpc_is_imported():
    modules = ", ".join(f"remote_gym.worker.environment.{name}" for name in ("entrypoint", "repository"))
    code = f"import sys, {modules}; assert 'grpc' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
