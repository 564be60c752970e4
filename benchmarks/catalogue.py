"""What is compared with what: peers, and the cases that each of them measures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from installations import Installation

OURS = Installation(
    name="ours",
    requirements=("--editable", ".", "gymnasium[classic-control,mujoco]", "ale-py", "matplotlib"),
    shown=("remote-gym", "gymnasium", "numpy", "grpcio", "protobuf"),
)
PREDECESSOR = Installation(
    name="remote_gym_073",
    requirements=(
        "remote-gym==0.7.3",
        "gymnasium[classic-control]<1",
        "dm-env-rpc==1.1.6",
        "numpy<2",
        "grpcio==1.69.0",
    ),
    shown=("remote-gym", "gymnasium", "numpy", "grpcio", "dm-env-rpc"),
)
OPENENV = Installation(
    name="openenv",
    requirements=("openenv==0.10.0", "gymnasium[classic-control]"),
    shown=("openenv", "fastapi", "uvicorn", "websockets", "gymnasium"),
)
DM_ENV_RPC = Installation(
    name="dm_env_rpc",
    requirements=("dm-env-rpc==1.1.6", "gymnasium[classic-control]"),
    shown=("dm-env-rpc", "grpcio", "gymnasium"),
)
RAY = Installation(name="ray", requirements=("ray", "gymnasium[classic-control]"), shown=("ray", "gymnasium"))
ENVPOOL = Installation(name="envpool", requirements=("envpool",), shown=("envpool",))


@dataclass(frozen=True, kw_only=True)
class Row:
    """A case of a peer, as `peers.case.Case` has it, and how it is shown.

    Attributes:
        name: Unique among the peer's.
        shown: What a reader is told it is.
        quick: Whether ``--quick`` measures it.
        fields: Further fields of the case.
    """

    name: str
    shown: str
    quick: bool = False
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A script of `peers` and what it measures.

    Attributes:
        name: Unique.
        script: Without its suffix.
        installation: Where it runs.
        rows: What it measures, in one process for each repeat.
        timeout: Seconds that one case may take before the peer is given up for this repeat.
    """

    name: str
    script: str
    installation: Installation
    rows: tuple[Row, ...]
    timeout: float = 60.0


def row(name: str, shown: str, *, quick: bool = False, options: dict[str, Any] | None = None, **fields: Any) -> Row:
    """A row, whose case has those fields."""
    return Row(name=name, shown=shown, quick=quick, fields={**fields, **({"options": options} if options else {})})


# What a step of ours sends and receives, lengths included, without TLS: the floors carry the same.
CARTPOLE_BYTES = {"request": 20, "response": 42}
PIXELS_BYTES = {"request": 20, "response": 84 * 84 * 4 + 32}
VGA_BYTES = {"request": 20, "response": 640 * 480 * 3 + 32}
SIZES = (8, 32, 128, 512)

FLOOR_SOCKET = Peer(
    name="floor_socket",
    script="floor_socket",
    installation=OURS,
    rows=(
        row("polling", "mTLS socket, polling", quick=True, options={**CARTPOLE_BYTES, "poll_us": 50}),
        row("plain", "mTLS socket", quick=True, options=CARTPOLE_BYTES),
        row(
            "polling-across",
            "mTLS socket, polling, two cores",
            options={**CARTPOLE_BYTES, "poll_us": 50},
            placement="across",
        ),
        row("plain-across", "mTLS socket, two cores", options=CARTPOLE_BYTES, placement="across"),
        row("plain-same", "mTLS socket, one core", options=CARTPOLE_BYTES, placement="same"),
        row("pixels", "mTLS socket, polling", workload="pixels", options={**PIXELS_BYTES, "poll_us": 50}),
        row("vga", "mTLS socket, polling", workload="vga", options={**VGA_BYTES, "poll_us": 50}),
    ),
)
FLOOR_PIPE = Peer(
    name="floor_pipe",
    script="floor_pipe",
    installation=OURS,
    rows=(
        row("cartpole", "two pipes", options=CARTPOLE_BYTES),
        row("vga", "two pipes", workload="vga", options=VGA_BYTES),
    ),
)
FLOOR_GRPC = Peer(
    name="floor_grpc",
    script="floor_grpc",
    installation=OURS,
    rows=(
        row("sync", "grpcio echo, synchronous server", quick=True, options=CARTPOLE_BYTES),
        row("aio", "grpcio echo, asyncio server", quick=True, options={**CARTPOLE_BYTES, "server": "aio"}),
        row("pixels", "grpcio echo, synchronous server", workload="pixels", options=PIXELS_BYTES),
        row("vga", "grpcio echo, synchronous server", workload="vga", options=VGA_BYTES),
    ),
)
IN_PROCESS = Peer(
    name="in_process",
    script="in_process",
    installation=OURS,
    rows=(
        row("cartpole", "in process", quick=True),
        *(row(name, "in process", workload=name) for name in ("zero", "halfcheetah", "pong", "pixels", "vga", "short")),
        row("async-1", "Gymnasium AsyncVectorEnv", quick=True, num_envs=1, options={"vector": "async"}),
        *(row(f"sync-{n}", "Gymnasium SyncVectorEnv", num_envs=n, options={"vector": "sync"}) for n in SIZES),
        *(row(f"async-{n}", "Gymnasium AsyncVectorEnv", num_envs=n, options={"vector": "async"}) for n in SIZES[:3]),
        *(
            row(f"async-{name}-16", "Gymnasium AsyncVectorEnv", workload=name, num_envs=16, options={"vector": "async"})
            for name in ("wait10", "stragglers")
        ),
    ),
)
OUR_PEER = Peer(
    name="ours",
    script="ours",
    installation=OURS,
    rows=(
        row("direct", "remote_gym, direct", quick=True),
        row("direct-thread", "remote_gym, direct, thread", options={"use_thread": True}),
        row("direct-sleeping", "remote_gym, direct, poll_us=0", options={"poll_us": 0}),
        row("direct-across", "remote_gym, direct, two cores", placement="across"),
        row("direct-same", "remote_gym, direct, poll_us=0, one core", options={"poll_us": 0}, placement="same"),
        row("direct-polling-same", "remote_gym, direct, one core", placement="same"),
        row("grpc", "remote_gym, gRPC", quick=True, options={"connection": "grpc"}),
        row("grpc-port", "remote_gym, gRPC, a port of its own", options={"connection": "grpc", "grpc_port": 0}),
        row("grpc-thread", "remote_gym, gRPC, thread", quick=True, options={"connection": "grpc", "use_thread": True}),
        row("grpc-pixels", "remote_gym, gRPC", workload="pixels", options={"connection": "grpc"}),
        row("grpc-vga", "remote_gym, gRPC", workload="vga", options={"connection": "grpc"}),
        *(
            row(name, "remote_gym, direct", workload=name)
            for name in ("zero", "halfcheetah", "pong", "pixels", "vga", "short", "wait1")
        ),
        row("aio", "remote_gym, direct, awaited", options={"awaits": True}),
        row("aio-grpc", "remote_gym, gRPC, awaited", options={"awaits": True, "connection": "grpc"}),
        row("guest", "remote_gym, direct, in another Python", options={"guest": True}),
        row("guest-vga", "remote_gym, direct, in another Python", workload="vga", options={"guest": True}),
        row("guest-vector-8", "RemoteVectorEnv, in another Python", num_envs=8, options={"guest": True}),
        row("bytes", "remote_gym, direct", quick=True, rtt_ms=0),
        row("grpc-bytes", "remote_gym, gRPC", rtt_ms=0, options={"connection": "grpc"}),
        *(row(f"rtt-{rtt}", "remote_gym, direct", rtt_ms=rtt) for rtt in (1, 20, 100)),
        row("rtt-100-many", "remote_gym, step_many(64)", workload="zero", rtt_ms=100, options={"chunk": 64}),
        row(
            "rtt-100-16",
            "RemoteVectorEnv, 16 workers, round trip of 100 ms",
            workload="zero",
            rtt_ms=100,
            num_envs=16,
            options={"workers": 16},
        ),
        row("memory", "remote_gym", quick=True, workload="zero", options={"sessions": 4}),
        *(row(f"vector-{n}", "RemoteVectorEnv, one worker", num_envs=n) for n in SIZES),
        row("vector-128-2", "RemoteVectorEnv, two workers", num_envs=128, options={"workers": 2}),
        *(
            row(
                f"vector-{name}-16",
                "RemoteVectorEnv, 16 workers",
                workload=name,
                num_envs=16,
                options={"workers": 16},
            )
            for name in ("wait10", "stragglers")
        ),
    ),
)
PEERS = (
    FLOOR_SOCKET,
    FLOOR_PIPE,
    OUR_PEER,
    FLOOR_GRPC,
    IN_PROCESS,
    Peer(
        name="remote_gym_073",
        script="remote_gym_073",
        installation=PREDECESSOR,
        rows=(
            row("thread", "remote-gym 0.7.3, thread", quick=True),
            row("thread-plain", "remote-gym 0.7.3, thread, no TLS", quick=True, options={"secure": False}),
            *(row(name, "remote-gym 0.7.3, thread", workload=name) for name in ("zero", "pixels", "vga", "short")),
            row("bytes", "remote-gym 0.7.3, thread", rtt_ms=0),
            row("rtt-20", "remote-gym 0.7.3, thread", rtt_ms=20),
        ),
    ),
    # Apart, since its forked workers crash about every second time, and then nothing ever comes.
    Peer(
        name="remote_gym_073_process",
        script="remote_gym_073",
        installation=PREDECESSOR,
        rows=(row("process", "remote-gym 0.7.3, process", options={"use_thread": False}),),
        timeout=8.0,
    ),
    Peer(
        name="openenv",
        script="openenv_websocket",
        installation=OPENENV,
        rows=(
            row("cartpole", "openenv, no TLS", quick=True),
            row("pixels", "openenv, no TLS", workload="pixels"),
            row("short", "openenv, no TLS", workload="short"),
            row("bytes", "openenv, no TLS", rtt_ms=0),
            row("rtt-20", "openenv, no TLS", rtt_ms=20),
        ),
    ),
    Peer(
        name="dm_env_rpc",
        script="dm_env_rpc_catch",
        installation=DM_ENV_RPC,
        rows=(
            row("cartpole", "dm_env_rpc, as its catch example"),
            row("pixels", "dm_env_rpc, as its catch example", workload="pixels"),
            row("bytes", "dm_env_rpc, as its catch example", rtt_ms=0),
        ),
    ),
    Peer(
        name="ray",
        script="ray_actor",
        installation=RAY,
        rows=(
            row("cartpole", "Ray actor, no TLS"),
            row("pixels", "Ray actor, no TLS", workload="pixels"),
            row("vector-8", "Ray actors, no TLS", num_envs=8),
        ),
    ),
    Peer(
        name="envpool",
        script="envpool_threads",
        installation=ENVPOOL,
        rows=(
            row("cartpole", "EnvPool, in process"),
            row("pong", "EnvPool, in process", workload="pong"),
            *(row(f"vector-{n}", "EnvPool, in process", num_envs=n) for n in SIZES),
        ),
    ),
)
