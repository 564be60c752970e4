"""dm_env_rpc as its catch example uses it: one servicer, one stream, the environment in the servicer's thread."""

from __future__ import annotations

import concurrent.futures
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, SupportsFloat

import grpc
import numpy as np
from dm_env_rpc.v1 import connection as dm_connection
from dm_env_rpc.v1 import dm_env_adaptor, dm_env_rpc_pb2, dm_env_rpc_pb2_grpc, spec_manager, tensor_utils

from case import Case, Figures, NotHere
from measuring import Stopwatch, measure_steps, sampled_actions
from peer import main
from serving import HOST, Servers, way_to
from workloads import create, renders

ACTION, OBSERVATION, REWARD = 1, 1, 2


class Servicer(dm_env_rpc_pb2_grpc.EnvironmentServicer):
    """One world, joined by each stream for itself."""

    def __init__(self, workload: str) -> None:
        self._workload = workload

    def Process(self, request_iterator: Any, context: Any) -> Iterator[Any]:  # noqa: N802 - gRPC's name for it
        """Answer a stream's requests."""
        environment = create(self._workload)
        space = environment.observation_space
        action_dtype = tensor_utils.np_type_to_data_type(environment.action_space.dtype)
        actions = {
            ACTION: dm_env_rpc_pb2.TensorSpec(name="action", shape=environment.action_space.shape, dtype=action_dtype)
        }
        observations = {
            OBSERVATION: dm_env_rpc_pb2.TensorSpec(
                name="observation", shape=space.shape, dtype=tensor_utils.np_type_to_data_type(space.dtype)
            ),
            REWARD: dm_env_rpc_pb2.TensorSpec(name="reward", dtype=dm_env_rpc_pb2.DOUBLE),
        }
        unpack = spec_manager.SpecManager(actions).unpack
        pack = spec_manager.SpecManager(observations).pack
        running = False
        for request in request_iterator:
            response = dm_env_rpc_pb2.EnvironmentResponse()
            kind = request.WhichOneof("payload")
            if kind == "create_world":
                response.create_world.world_name = "world"
            elif kind in ("join_world", "reset"):
                specs = getattr(response, kind).specs
                for uid, spec in actions.items():
                    specs.actions[uid].CopyFrom(spec)
                for uid, spec in observations.items():
                    specs.observations[uid].CopyFrom(spec)
                running = False
            elif kind == "step":
                reward: SupportsFloat = 0.0
                done = False
                if running:
                    action = unpack(request.step.actions)["action"]
                    observation, reward, terminated, truncated, _ = environment.step(action)
                    done = bool(terminated or truncated)
                else:
                    observation, _ = environment.reset()
                running = not done
                packed = pack({"observation": observation, "reward": reward})
                for uid in request.step.requested_observations:
                    response.step.observations[uid].CopyFrom(packed[uid])
                state = dm_env_rpc_pb2.EnvironmentStateType
                response.step.state = state.TERMINATED if done else state.RUNNING
            else:
                getattr(response, kind).SetInParent()
            yield response


@contextlib.contextmanager
def serve(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Serve until the block ends."""
    certificate, key, ca = (Path(path).read_bytes() for path in job["pem"])
    credentials = grpc.ssl_server_credentials([(key, certificate)], ca, require_client_auth=True)
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
    dm_env_rpc_pb2_grpc.add_EnvironmentServicer_to_server(Servicer(job["workload"]), server)
    port = server.add_secure_port(f"{HOST}:0", credentials)
    server.start()
    yield {"port": port}
    server.stop(None).wait()


def measure(case: Case, servers: Servers) -> Figures:
    """Measure a single environment, through dm_env_rpc's adaptor."""
    if case.num_envs:
        raise NotHere("dm_env_rpc has no vector environments")
    if renders(case.workload):
        raise NotHere("dm_env_rpc has no frames")
    local = create(case.workload)
    ca, key, certificate = (Path(case.pem(name)).read_bytes() for name in ("ca", "client-key", "client"))
    credentials = grpc.ssl_channel_credentials(ca, key, certificate)
    job = {"workload": case.workload, "pem": [case.pem("server"), case.pem("server-key"), case.pem("ca")]}
    told = servers.start(job)
    with way_to(case, told["port"]) as way:
        where = f"{way.host}:{told['port']}"
        with Stopwatch() as opening:
            connection = dm_connection.create_secure_channel_and_connect(where, credentials, timeout=30)
            environment, _ = dm_env_adaptor.create_and_join_world(connection, {}, {})
            environment.reset()
        actions = [{"action": np.asarray(action)} for action in sampled_actions(local)]

        def step(number: int) -> bool:
            return bool(environment.step(actions[number % len(actions)]).last())

        figures = measure_steps(case, step, reset=environment.reset, way=way)
        connection.close()
    return {"open_ms": opening.milliseconds, **figures}


if __name__ == "__main__":
    main(measure, serve)
