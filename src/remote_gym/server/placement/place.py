"""Where an environment runs, as a server's operator describes it: checked once, and from then on of one form."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remote_gym.config import check_names
from remote_gym.errors import ConfigError

ENGINES = ("docker", "podman", "apptainer")
"""Programs that run images; the first is the default."""

INNER = ("python", "command", "conda", "uv")
"""Arguments that say which Python it is, of which there can be one; what follows them says where that is."""

ELSEWHERE = (*INNER, "image", "ssh")
"""Arguments by each of which an environment runs in another Python than the worker's."""

_OF_IMAGES = ("engine", "network", "mounts", "engine_options")
_UV_KEYS = ("python", "with")


@dataclass(frozen=True)
class Mount:
    """A folder or file that a container sees."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class Uv:
    """A Python that uv provides.

    Attributes:
        python: Its version, or how else uv names one; None for uv's choice.
        packages: What it has, as requirements.
    """

    python: str | None = None
    packages: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an environment runs.

    Attributes:
        python: Executable of its Python; None where another argument says it, or none does.
        command: Words that end in such a Python; empty likewise.
        conda: Name or path of a Conda environment.
        uv: What uv provides.
        image: Container image that all of these are in.
        engine: Program that runs it.
        network: The container's; None for none.
        mounts: What the container sees of the host.
        engine_options: Words for the engine of its own kind, in front of the image.
        ssh: Host that all of these are on.
    """

    python: str | None = None
    command: tuple[str, ...] = ()
    conda: str | None = None
    uv: Uv | None = None
    image: str | None = None
    engine: str = ENGINES[0]
    network: str | None = None
    mounts: tuple[Mount, ...] = ()
    engine_options: tuple[str, ...] = ()
    ssh: str | None = None

    @property
    def is_elsewhere(self) -> bool:
        """Whether it is another Python than the worker's."""
        return bool(self.python or self.command or self.conda or self.uv or self.image or self.ssh)

    @property
    def is_named_container(self) -> bool:
        """Whether each session has a container that outlives the process which has started it."""
        return self.image is not None and self.engine != "apptainer"


Refuse = Callable[[str], ConfigError]
"""Makes the error for a problem, such as ``"has image 3; use ..."``."""


def runs_elsewhere(arguments: Mapping[str, Any]) -> bool:
    """Whether an environment runs in another Python than the worker's, by arguments that need not be checked."""
    return any(arguments.get(name) is not None for name in ELSEWHERE)


def read_place(arguments: Mapping[str, Any], *, field: str, where: str) -> Place:
    """Read what `RemoteArgs` say of where an environment runs.

    Args:
        arguments: A server's, as `RemoteArgs` has them.
        field: The argument that holds them.
        where: How errors name them.

    Raises:
        ConfigError: If it cannot work.
    """

    def refuse(problem: str) -> ConfigError:
        return ConfigError(problem, field=field, where=where)

    given = {name for name in (*ELSEWHERE, *_OF_IMAGES) if arguments.get(name) is not None}
    _check_together(given, refuse)
    image, ssh = (_word(arguments.get(name), name, refuse) for name in ("image", "ssh"))
    return Place(
        python=_python(arguments.get("python"), is_here=not given & {"image", "ssh"}, refuse=refuse),
        command=_command(arguments.get("command"), refuse),
        conda=_conda(arguments.get("conda"), refuse),
        uv=_uv(arguments.get("uv"), field, where, refuse),
        image=image,
        engine=_engine(arguments.get("engine"), refuse),
        network=_word(arguments.get("network"), "network", refuse),
        mounts=_mounts(arguments.get("mounts"), refuse),
        engine_options=_engine_options(arguments.get("engine_options"), refuse),
        ssh=ssh,
    )


def _check_together(given: set[str], refuse: Refuse) -> None:
    inner = [name for name in INNER if name in given]
    if len(inner) > 1:
        raise refuse(f"has both {inner[0]} and {inner[1]}; keep one of the two")
    lonely = [name for name in _OF_IMAGES if name in given]
    if lonely and "image" not in given:
        raise refuse(f"has {lonely[0]} without image; add the image that it is for, or leave it out")


_EXAMPLES = {"image": "sim:3", "ssh": "user@gpu-box", "network": "bridge"}


def _word(value: Any, name: str, refuse: Refuse) -> str | None:
    """A text that becomes a word of its own in a command, and so can be no option of it."""
    if value is None:
        return None
    if not isinstance(value, (str, os.PathLike)) or not _is_word(os.fspath(value)):
        raise refuse(f"has {name} {value!r}; use a text without spaces, such as {_EXAMPLES[name]!r}")
    return os.fspath(value)


def _is_word(text: Any) -> bool:
    return isinstance(text, str) and text != "" and text[0] != "-" and text.isprintable() and " " not in text


def _python(value: Any, *, is_here: bool, refuse: Refuse) -> str | None:
    if value is None:
        return None
    if isinstance(value, (str, os.PathLike)) and os.fspath(value):
        if not is_here:  # nobody can see from here whether it is there
            return os.fspath(value)
        if found := shutil.which(Path(value).expanduser()):
            return str(Path(found).absolute())  # a worker's folder is another; not resolved, or it would leave its venv
        raise refuse(f"has python {value!r}; {_missing(os.fspath(value))}; use the path of a Python executable")
    raise refuse(f"has python {value!r}; use the path of a Python executable")


def _missing(text: str) -> str:
    """Say why a path, or a name, leads to no program."""
    path = Path(text).expanduser()
    if path.name == text:
        return "there is no program of that name in PATH"
    if path.exists():
        return f"{path.absolute()} is no file that may be executed"
    beside = "" if path.is_absolute() else f" below {Path.cwd()}"
    return f"there is no such file{beside}"


def _command(value: Any, refuse: Refuse) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, (list, tuple)) or not value or not all(isinstance(word, str) for word in value):
        raise refuse(f"has command {value!r}; use a list of words, such as ['conda', 'run', '-n', 'sim', 'python']")
    return tuple(value)


def _conda(value: Any, refuse: Refuse) -> str | None:
    if value is None:
        return None
    text = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if not text or text[0] == "-" or not text.isprintable():
        raise refuse(f"has conda {value!r}; use the name of a Conda environment, such as 'isaac', or its path")
    return text


def _uv(value: Any, field: str, where: str, refuse: Refuse) -> Uv | None:
    if value is None:
        return None
    form = "use a version of Python, such as '3.8', or {'python': '3.8', 'with': ['gym==0.26.2', 'numpy<1.24']}"
    if isinstance(value, str):
        value = {"python": value}
    if not isinstance(value, Mapping):
        raise refuse(f"has uv {value!r}; {form}")
    check_names(f"{where}['uv']", [str(key) for key in value], _UV_KEYS, field)
    python, packages = value.get("python"), value.get("with") or ()
    if python is not None and not _is_word(python):
        raise refuse(f"has uv with python {python!r}; {form}")
    is_list = isinstance(packages, (list, tuple))
    if not is_list or not all(isinstance(each, str) and each and each[0] != "-" for each in packages):
        raise refuse(f"has uv with packages {packages!r}; {form}")
    return Uv(python, tuple(packages))


def _engine(value: Any, refuse: Refuse) -> str:
    if value is None:
        return ENGINES[0]
    if value not in ENGINES:
        raise refuse(f"has engine {value!r}; use {', '.join(map(repr, ENGINES[:-1]))} or {ENGINES[-1]!r}")
    return str(value)


def _engine_options(value: Any, refuse: Refuse) -> tuple[str, ...]:
    if value is None:
        return ()
    is_list = isinstance(value, (list, tuple)) and all(isinstance(word, str) and word for word in value)
    # Else the first would be the image.
    if not is_list or (value and not value[0].startswith("-")):
        raise refuse(f"has engine_options {value!r}; use a list of words that begins with an option, such as {_SHM}")
    return tuple(value)


_SHM = "['--shm-size', '8g']"


def _mounts(value: Any, refuse: Refuse) -> tuple[Mount, ...]:
    if value is None:
        return ()
    if not isinstance(value, (list, tuple)):
        raise refuse(f"has mounts {value!r}; use a list such as ['/data:/data:ro']")
    return tuple(_mount(each, refuse) for each in value)


def _mount(text: Any, refuse: Refuse) -> Mount:
    parts = text.split(":") if isinstance(text, str) else []
    is_read_only = len(parts) == 3 and parts[2] == "ro"
    # Engines take one apart at commas, and some at quotes.
    is_form = (len(parts) == 2 or is_read_only) and text.isprintable() and not {",", '"'} & set(text)
    if not is_form:
        raise refuse(f"has the mount {text!r}; use '/here:/there', or '/here:/there:ro' to have it read only")
    for path in parts[:2]:
        if not path.startswith("/"):
            raise refuse(f"has the mount {text!r}, of which {path!r} is not absolute; begin both paths with '/'")
    return Mount(parts[0], parts[1], is_read_only)
