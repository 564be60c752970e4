"""`RemoteVectorEnv`: a `gymnasium.vector.VectorEnv` whose environments live elsewhere."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from gymnasium.error import AlreadyPendingCallError, ClosedEnvironmentError, NoAsyncCallError, ResetNeeded
from numpy.typing import NDArray

from remote_gym.address import Address
from remote_gym.client.connect.opening import CredentialPaths
from remote_gym.client.servers import to_places
from remote_gym.client.spec import SpecAttribute
from remote_gym.client.vector.attributes import RemoteVectorAttributes
from remote_gym.client.vector.batching import Joiner, Step
from remote_gym.client.vector.gather import raise_failures, receive
from remote_gym.client.vector.pool import Pool, for_each
from remote_gym.client.vector.resume import check_tickets
from remote_gym.client.vector.shard import Shard, check_numbers, choose, mark_lost, shards_of
from remote_gym.config import ClientOptions, EnvironmentLike, TlsFiles, merge_options, read_environment, shows_options
from remote_gym.errors import ConfigError, SessionLost
from remote_gym.protocol.description import check_render_mode
from remote_gym.protocol.open_request import check_arguments, open_request
from remote_gym.protocol.ticket import SessionTicket
from remote_gym.tls import client_files
from remote_gym.transport.busy_poll import Wakefulness, poll_us
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.autoreset import autoreset_code
from remote_gym.wire.frames import decode_frame

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from remote_gym.config import ClientKeywords


@shows_options(ClientOptions)
class RemoteVectorEnv(RemoteVectorAttributes):
    """Environments that servers host, stepped together as a local `gymnasium.vector.SyncVectorEnv` would.

    Each worker, a session of its own, holds a slice of them, and a step is one message to each: sent to all before any
    answer is awaited. A pickled copy opens sessions of its own at its next `reset`.

    Args:
        url: Host name or address of the server, or ``unix:`` and a path; ``"localhost"`` unless given.
        port: TCP port; 56789 unless given. Without either the environment variable ``REMOTE_GYM_SERVER`` counts first.
        remote_args: What to create, as for `RemoteEnvironment`.
        client_credentials_paths: PEM files, as for `RemoteEnvironment`; the same for every address.
        render_mode: ``"rgb_array"``, or another that the environments know; not ``"human"``.
        num_envs: How many environments.
        addresses: Several servers, each ``"host:port"`` or a pair, in place of `url` and `port`. Workers are shared out
            evenly among them; an address that is named twice gets twice as many.
        workers: How many processes, or threads, share the environments out evenly; one for each address unless told.
        autoreset_mode: A member of `gymnasium.vector.AutoresetMode`, or its value, such as ``"SameStep"``. None for the
            environment's own, which is ``"NextStep"`` unless the entrypoint has a ``create_vector_environment``.
        frames: Whether frames come with each ``"step"`` and reset, or ``"on_demand"``, when `render` is called.
        resume: The `tickets` of another process's vector environment, in their order, to go on with that one. The other
            arguments are to be those that it was made with.
        tls: PEM files, as for `RemoteEnvironment`.
        options: Options all at once, as `ClientOptions`.
        **keywords: Single options; of `options` too, the keyword argument wins.

    Attributes:
        num_envs: How many environments.
        observation_space, action_space: Batched, as on the server.
        single_observation_space, single_action_space: Of one environment.
        metadata: As on the server, with the member of `AutoresetMode` under ``"autoreset_mode"``.
        autoreset_mode: The same member; before Gymnasium 1.1, which has none, its value.
        resumed: Where the environments of each worker of `resume` stand, a tuple of `Resumption`; else None.

    Raises:
        ConfigError: If an argument cannot work, by itself or for a server, or servers differ in what they serve.
        RemoteGymError: As `RemoteEnvironment` does, naming the environments concerned.
    """

    spec = SpecAttribute()

    def __init__(
        self,
        url: str | None = None,
        port: int | None = None,
        remote_args: EnvironmentLike | None = None,
        client_credentials_paths: CredentialPaths | None = None,
        render_mode: str | None = None,
        *,
        num_envs: int = 1,
        addresses: Iterable[Address] | None = None,
        workers: int | None = None,
        autoreset_mode: Any = None,
        frames: Literal["step", "on_demand"] = "on_demand",
        resume: Iterable[SessionTicket] | None = None,
        tls: TlsFiles | None = None,
        options: ClientOptions | None = None,
        **keywords: Unpack[ClientKeywords],
    ) -> None:
        check_arguments(frames, render_mode)
        if render_mode == "human":
            raise ConfigError(
                "'human' is for one environment; use 'rgb_array'", field="render_mode", where="render_mode"
            )
        places = to_places(url, port, addresses)
        tickets = check_tickets(resume, workers)
        count = len(tickets or places) if workers is None else workers
        check_numbers(num_envs, count, len(places))
        self.num_envs = num_envs
        self.render_mode = render_mode
        self.closed = False
        self._places = places
        self._options = merge_options(ClientOptions, options, keywords, of=RemoteVectorEnv)
        self.remote_args = {} if remote_args is None else dict(read_environment("remote_args", remote_args))
        # The workers may be on this machine, and have better use for its cores.
        self._options = dataclasses.replace(self._options, poll_us=poll_us(self._options.poll_us, count))
        self._wakefulness = Wakefulness(self._options.poll_us / 1e6)
        self._streams_frames = frames == "step" and render_mode is not None
        request = open_request(
            self.remote_args, self._options, render_mode=render_mode, streams_frames=self._streams_frames
        )
        request.autoreset_mode = autoreset_code(autoreset_mode)
        self._truncates = self._options.on_session_lost == "truncate"
        self._pending: Literal["step", "send"] | None = None
        self._arrived: list[Shard] = []  # of those that were sent actions, which `recv` has still to return
        self._pool = Pool(
            num_envs,
            count,
            places,
            credentials=client_files(client_credentials_paths, tls),
            request=request,
            options=self._options,
            resume=tickets,
        )
        self.resumed = self._pool.resumed
        self._shards = self._pool.shards
        try:
            self._adopt(Joiner([each.session.description for each in self._shards], self._options.message_limits))
        except BaseException:
            self._pool.abandon()
            raise

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset all environments, or some, on new sessions where they were lost.

        Args:
            seed: Of the first environment, and one more for each further one; or one for each.
            options: Passed on to every environment, less ``reset_mask``: a bool array of shape ``(num_envs,)`` that
                tells which to reset. Environments of a failed worker can only be reset together.

        Returns:
            The newest observation of every environment, in writable arrays of its own, and the infos of those reset.

        Raises:
            ResetNeeded: If some were never reset, or have failed, and are not all in the mask.
            ValueError: If seeds or mask are of another length.
            RemoteGymError: As `RemoteEnvironment.reset`, naming the environments concerned; the others are reset.
        """
        self._check_idle("reset")
        chosen, mask, options = choose(self._shards, seed, options)
        lost, reasons = chosen, dict[Shard, str]()
        for _ in range(2 if self._truncates else 1):  # again for those whose loss is found only now
            reasons |= self._pool.reopen(lost)
            for each in lost:
                each.reset(seed, mask, options, self._options.message_limits, self._options.reset_timeout)
            self._collect(lost)
            lost = [each for each in lost if each.lost_because is not None]
            reasons |= {each: each.lost_because or "" for each in lost}
        if lost:
            raise SessionLost("; ".join(f"{each}: {each.lost_because}" for each in lost))
        infos = self._joiner.infos(self._shards, chosen)
        for each, reason in reasons.items():
            mark_lost(infos, each.rows, self.num_envs, reason)
        return self._joiner.observations(self._shards), infos

    def step(self, actions: Any) -> Step:
        """Step every environment once.

        Args:
            actions: An element of `action_space`, or what NumPy converts to one under ``casting="same_kind"``.

        Returns:
            Observations in writable arrays of their own, rewards, terminations and truncations of shape
            ``(num_envs,)``, and infos.

        Raises:
            InvalidAction: If it does not fit the space's structure, shape or kind. Nothing was sent.
            ResetNeeded: If some were not reset, or have failed since; nothing was sent.
            RemoteGymError: As `RemoteEnvironment.step`, naming the environments whose worker failed, which have to be
                reset. The others have stepped; what they observed comes with that reset.
        """
        self.step_async(actions)
        return self.step_wait()

    def step_async(self, actions: Any) -> None:
        """Begin a step; `step_wait` ends it.

        Raises:
            gymnasium.error.AlreadyPendingCallError: If another call is in progress.
            InvalidAction: As `step` does.
            ResetNeeded: As `step` does.
        """
        self._check_idle("step_async")
        try:
            self._send_actions(self._shards, actions, self.num_envs)
        except BaseException:
            self._pool.forbid_uneven_steps()
            raise
        self._pending = "step"

    def step_wait(self) -> Step:
        """End a step that `step_async` began.

        Raises:
            gymnasium.error.NoAsyncCallError: If none is in progress.
            RemoteGymError: As `step` does.
        """
        if self._pending != "step":
            raise NoAsyncCallError("Calling `step_wait` without any prior call to `step_async`.", "step")
        self._pending = None
        self._collect(self._shards)
        return self._joiner.transitions(self._shards)

    def send(self, actions: Any, env_ids: Sequence[int] | NDArray[Any] | None = None) -> None:
        """Begin a step of some environments, without waiting for the others.

        Args:
            actions: Shape ``(len(env_ids), *single_action_space.shape)``, or the like of it for other spaces.
            env_ids: Which environments, as `recv` told; all of them unless given. Those of a worker step together.

        Raises:
            ValueError: If they are not all of some workers' environments, one worker's after another's.
            gymnasium.error.AlreadyPendingCallError: If one of them is stepping already.
            InvalidAction: As `step` does.
            ResetNeeded: As `step` does.
        """
        if self._pending != "send":
            self._check_idle("send")
        ids = np.arange(self.num_envs) if env_ids is None else np.asarray(env_ids)
        chosen = shards_of(ids.tolist(), self._shards)
        if any(each.is_waiting or each in self._arrived for each in chosen):
            raise AlreadyPendingCallError(
                "Calling `send` for environments that are stepping; `recv` them first.", "send"
            )
        try:
            self._send_actions(chosen, actions, len(ids))
        finally:  # those that Ctrl-C came too early for can be sent theirs, once the others' answers are received
            if self._arrived or any(each.is_waiting for each in self._shards):
                self._pending = "send"

    def recv(self, min_envs: int = 1) -> Step:
        """Wait until at least `min_envs` of the environments that were sent actions have stepped.

        Over direct connections whoever is first is received first; over gRPC, the waiting is in the order of workers.

        Returns:
            As `step`, of those that have, whose indices are ``infos["env_id"]``: to be passed to `send`.

        Raises:
            gymnasium.error.NoAsyncCallError: If none was sent an action.
            RemoteGymError: As `step` does. What the others returned comes with the next call.
        """
        if self._pending != "send":
            raise NoAsyncCallError("Calling `recv` without any prior call to `send`.", "send")
        try:
            self._collect([each for each in self._shards if each.is_waiting], min_envs)
            arrived, self._arrived = sorted(self._arrived, key=lambda each: each.start), []
        finally:
            if not self._arrived and not any(each.is_waiting for each in self._shards):
                self._pending = None
        observations, rewards, terminations, truncations, infos = self._joiner.transitions(arrived)
        infos["env_id"] = np.concatenate([np.arange(each.start, each.stop) for each in arrived])
        return observations, rewards, terminations, truncations, infos

    def render(self) -> tuple[Any, ...] | None:
        """A frame of each environment; None without a render mode, or before the first reset."""
        self._check_idle("render")
        if self.render_mode is None or any(each.transition is None for each in self._shards):
            return None
        if self._streams_frames:
            sent = (each.transition.frame for each in self._shards if each.transition is not None)
            return for_each(self._shards, (decode_frame(frame, self._options.message_limits) for frame in sent))
        return for_each(self._shards, self._pool.render(self._options.step_timeout))

    @property
    def tickets(self) -> tuple[SessionTicket, ...]:
        """Tickets by which another process goes on with these environments, one for each worker; they hold secrets.

        Raises:
            gymnasium.error.ResetNeeded: If a worker's session was lost; `ClosedEnvironmentError` after `close`.
        """
        if self.closed:
            raise ClosedEnvironmentError("There are no tickets: the environment was closed.")
        return self._pool.tickets

    def detach(self) -> tuple[SessionTicket, ...]:
        """Close the connections, and leave the environments for their lease to whoever resumes them. As `tickets`."""
        tickets = self.tickets
        self._pool.detach()
        self.close()
        return tickets

    def close(self, **_kwargs: Any) -> None:
        """Close the environments on the servers, and the sessions. A second call does nothing."""
        self.closed = True
        self._pending = None
        self._pool.close()

    def __del__(self) -> None:
        """Drop the sessions, which `remote_gym.client.dropped` closes; Gymnasium before 1.0 would wait for that."""
        for each in getattr(self, "_shards", ()):
            each.drop()

    def __copy__(self) -> RemoteVectorEnv:
        # A shallow copy would share sessions.
        return copy.deepcopy(self)

    def __getstate__(self) -> dict[str, Any]:
        # As its shards do: what was under way, or resumed, a session of this process has.
        return {**self.__dict__, "_pending": None, "_arrived": [], "resumed": None}

    def _adopt(self, joiner: Joiner) -> None:
        self._joiner = joiner
        self.observation_space = joiner.observation_space
        self.action_space = joiner.action_space
        self.single_observation_space = joiner.single_observation_space
        self.single_action_space = joiner.single_action_space
        check_render_mode(self.render_mode, joiner.metadata)
        self.metadata = joiner.metadata
        self.autoreset_mode = joiner.metadata.get("autoreset_mode")
        self._resets_itself = joiner.autoreset == pb.NEXT_STEP
        if self._truncates and joiner.autoreset not in (pb.NEXT_STEP, pb.DISABLED):
            raise ConfigError(
                f"is 'truncate', and in their autoreset mode {self.autoreset_mode!r} the step "
                "that ends an episode must begin the next one; use 'NextStep' or 'Disabled', or 'raise'",
                field="on_session_lost",
                where="on_session_lost",
            )

    def _send_actions(self, chosen: Sequence[Shard], actions: Any, count: int) -> None:
        ended = [each for each in chosen if self._resets_itself and each.lost_because is not None]
        if unready := [str(each) for each in chosen if each.needs_reset and each not in ended]:
            raise ResetNeeded(f"Cannot step before a reset of {', '.join(unready)}, which failed or never had one")
        actions = self._joiner.actions.fit(actions, count)
        start = 0
        for each in chosen:
            if each not in ended:
                request = pb.Request()
                self._joiner.actions.encode(
                    actions, start, start + each.size, request.step, self._options.message_limits
                )
                each.send(request, self._options.step_timeout)
            start += each.size
        self._pool.restart(ended, self._options.reset_timeout)  # which ignores the action, as any reset does here

    def _collect(self, chosen: Sequence[Shard], at_least: int | None = None) -> None:
        """Let shards have what came for them: all that wait, or as soon as `at_least` environments have arrived."""
        missing = None if at_least is None else at_least - sum(each.size for each in self._arrived)
        begin = time.perf_counter()
        answers, failures = receive(chosen, self._wakefulness, missing)
        self._wakefulness.learn(time.perf_counter() - begin)
        for each, answer in answers.items():
            each.adopt(answer)
        ended = [
            each for each, error in failures if self._truncates and each.end_by(error, self._options.message_limits)
        ]
        failures = [(each, error) for each, error in failures if each not in ended]
        for each, _ in failures:
            each.needs_reset = True
        if at_least is not None:
            self._arrived += [*answers, *ended]
        raise_failures(failures)

    def _check_idle(self, what: str) -> None:
        if self.closed:
            raise ClosedEnvironmentError(f"Cannot call `{what}`: the environment was closed.")
        if self._pending is not None:
            end = "step_wait" if self._pending == "step" else "recv"
            raise AlreadyPendingCallError(f"Calling `{what}` before `{end}` has ended what is pending.", self._pending)
