"""The words of the command by which a guest starts, from where it is to run. Pure: nothing is looked up or started.

What is inside comes first: the words that end in a Python, as they are where that Python is. An image wraps them in
those of its engine, and a host these in those of OpenSSH's client. No value of an environment variable is among the
words, which other users of a machine can see: engines take them by name out of their own environment, and a host gets
them as a line on standard input.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from remote_gym.server.placement.place import Place, Uv
from remote_gym.server.placement.resources import Gpu, gpu_variables
from remote_gym.transport.ssh import in_shell, ssh_options

OWNER_LABEL = "remote_gym.owner"
"""Label of containers, whose value is that of `remote_gym.ipc.owner`."""

_READ_VARIABLES = 'IFS= read -r line && eval "$line" && exec "$0" "$@"'
"""Script of any POSIX shell, whose ``read`` takes no byte behind the line."""


@dataclass(frozen=True, kw_only=True)
class GuestCommand:
    """How to start a guest, and what remains to be done at its end.

    Attributes:
        words: The command, to which ``-c`` and a program are added.
        ends_in_shell: Whether these have to be quoted and added to the last word, since that is a line of a shell.
        variables: Environment variables of the process that it is.
        first_line: What that reads before anything else, without its end; empty for nothing.
        remove: Another command, which removes a container that is left; empty where there is none to remove.
    """

    words: tuple[str, ...]
    ends_in_shell: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)
    first_line: str = ""
    remove: tuple[str, ...] = ()


def guest_command(
    place: Place,
    *,
    name: str,
    owner: str,
    control: str | None = None,
    variables: Mapping[str, str] | None = None,
    gpu: Gpu | None = None,
    cpus: Sequence[int] = (),
) -> GuestCommand:
    """Compose the command of one session's guest.

    Args:
        place: Where it is to run.
        name: Of a container, which no other has.
        owner: Value of `OWNER_LABEL`.
        control: Path of the control socket of the connection to ``place.ssh``; None for a connection of its own.
        variables: Environment variables of the environment.
        gpu: The device that it is to see; None to leave that as it is.
        cpus: Processors that it may run on where this process has no part in it; none for any.
    """
    words = _inner(place)
    remove: tuple[str, ...] = ()
    outer = dict(variables or {})
    if gpu is not None and not place.is_named_container:
        outer |= gpu_variables(gpu)
    if place.image is not None:
        if place.engine == "apptainer":
            # It hands over what has this prefix, also where it lets nothing else of the environment in.
            words = [*_apptainer(place, has_gpu=gpu is not None), *words]
            outer = {f"APPTAINERENV_{each}": value for each, value in outer.items()}
        else:
            words = [*_container(place, name, owner, sorted(outer), gpu, cpus), *words]
            remove = remove_command(place, [name])
    if place.ssh is None:
        return GuestCommand(words=tuple(words), variables=outer, remove=remove)
    if cpus and not place.is_named_container:
        words = ["taskset", "--cpu-list", _numbers(cpus), *words]
    first_line = ""
    if outer:
        words = ["sh", "-c", _READ_VARIABLES, *words]
        first_line = "export " + " ".join(f"{each}={shlex.quote(value)}" for each, value in sorted(outer.items()))
    return GuestCommand(
        words=(*_ssh(place.ssh, control), in_shell(words)),
        ends_in_shell=True,
        first_line=first_line,
        remove=() if not remove else on_host(place.ssh, remove, control),
    )


def remove_command(place: Place, names: Sequence[str]) -> tuple[str, ...]:
    """The command that removes containers, running or not, where their engine runs."""
    return (place.engine, "rm", "--force", *names)


def list_command(place: Place) -> tuple[str, ...]:
    """The command that prints name and labels of each container that a server of ours has started, a line each."""
    return (place.engine, "ps", "--all", "--filter", f"label={OWNER_LABEL}", "--format", "{{.Names}} {{.Labels}}")


def on_host(host: str, words: Sequence[str], control: str | None = None) -> tuple[str, ...]:
    """A command that runs another one on a host."""
    return (*_ssh(host, control), in_shell(words))


def master_command(host: str, control: str, marker: str) -> tuple[str, ...]:
    """The command that makes a connection for others to share, says so by a marker, and lasts until its input ends."""
    options = ("-o", "ControlMaster=yes", "-o", f"ControlPath={control}")
    return ("ssh", "-T", *ssh_options(), *options, "--", host, f"echo {shlex.quote(marker)} && exec cat")


def _ssh(host: str, control: str | None) -> tuple[str, ...]:
    return ("ssh", "-T", *ssh_options(), "-o", "ControlMaster=no", "-o", f"ControlPath={control or 'none'}", "--", host)


def _inner(place: Place) -> list[str]:
    """The words that end in a Python, where that is."""
    if place.command:
        return list(place.command)
    if place.conda is not None:
        chosen = "-p" if "/" in place.conda else "-n"
        return ["conda", "run", "--no-capture-output", chosen, place.conda, "python"]
    if place.uv is not None:
        return _uv(place.uv)
    return [place.python or "python3"]


def _uv(uv: Uv) -> list[str]:
    # Neither of the project nor of the virtual environment that the server happens to be started in.
    words = ["uv", "run", "--no-project", "--isolated"]
    if uv.python is not None:
        words += ["--python", uv.python]
    packages = list(uv.packages)
    if not any(re.match(r"numpy\b(?!-)", each, re.IGNORECASE) for each in packages):
        packages.append("numpy")  # the one thing that a guest needs itself
    for each in packages:
        words += ["--with", each]
    return [*words, "python"]


def run_words(place: Place, name: str, owner: str, *options: str) -> list[str]:
    """First words of a command that runs a container which the engine removes at its end, and any server's `rm`."""
    words = [place.engine, "run", *options, "--rm", "--name", name, "--label", f"{OWNER_LABEL}={owner}"]
    if place.engine == "podman":
        # Where Docker's `rm --force` kills at once, Podman's waits 10 s for process 1 to end by SIGTERM, which a Python
        # that is process 1 ignores.
        words += ["--stop-timeout", "0"]
    return words


def _container(
    place: Place, name: str, owner: str, variables: Sequence[str], gpu: Gpu | None, cpus: Sequence[int]
) -> list[str]:
    words = [*run_words(place, name, owner, "-i"), "--network", place.network or "none"]
    if gpu is not None:  # which is the first one for what is inside, so no variable names it
        words += ["--gpus", f"device={gpu}"] if place.engine == "docker" else ["--device", f"nvidia.com/gpu={gpu}"]
    return [*words, *sees_words(place, variables, cpus), str(place.image)]


def sees_words(place: Place, variables: Sequence[str], cpus: Sequence[int]) -> list[str]:
    """Words that say what a container sees of the machine, and what else its operator wants of the engine."""
    words = ["--cpuset-cpus", _numbers(cpus)] if cpus else []
    for mount in place.mounts:
        # Other than by -v, what is not there is refused rather than made, as an empty folder of root's.
        end = ",readonly" if mount.read_only else ""
        words += ["--mount", f"type=bind,source={mount.source},target={mount.target}{end}"]
    for each in variables:
        words += ["--env", each]
    return [*words, *place.engine_options]


def _numbers(cpus: Sequence[int]) -> str:
    return ",".join(map(str, cpus))


def _apptainer(place: Place, *, has_gpu: bool) -> list[str]:
    words = ["apptainer", "exec", "--containall"]
    if place.network != "host":  # which is what it has of itself
        words += ["--net", "--network", place.network or "none"]
    if has_gpu:
        words.append("--nv")  # which lets all in, so that a variable names the one
    for mount in place.mounts:
        words += ["--bind", f"{mount.source}:{mount.target}{':ro' if mount.read_only else ''}"]
    return [*words, *place.engine_options, str(place.image)]
