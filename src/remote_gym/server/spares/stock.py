"""Environments that no session has: which to make ahead, which to keep, whose they may be, and when they have to go.

Pure: no input or output, and time comes from the clock that is passed in.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from remote_gym.config import Limits
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.v1 import worker_pb2
from remote_gym.wire.values import encode_value

KEEP_SECONDS = 300.0
"""How long an environment is kept for its client's next session."""

MOST_KEPT = 64
"""Environments that are kept at once; of more the oldest are closed."""

MOST_KEPT_OF_ONE = 16
"""Environments that are kept of one client, which pays for none of them with its quota of sessions."""

MAKES_AT_ONCE = 4
"""Environments that are made ahead at the same time: clients that open others are not to wait for many constructors."""

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds until an environment that could not be made ahead is tried again: twice as many each time."""

_NO_KWARGS = pb.Value()
encode_value({}, _NO_KWARGS, strict=True, limits=Limits())
NO_KWARGS = _NO_KWARGS.SerializeToString()
"""How clients send that they set no keyword argument."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that an environment is made from, so that those of one recipe are as good as each other.

    Keyword arguments are compared as they came, since the server does not decode them: the same ones in another order
    are others.

    Attributes:
        environment: Its name, empty for the default one.
        client_kwargs: An encoded `Value`; empty for none.
        render_mode: Empty for none.
        num_envs: Of a vector environment; 0 for a single one.
        autoreset_mode: Of a vector environment, as `AutoresetMode` has it.
    """

    environment: str
    client_kwargs: bytes = b""
    render_mode: str = ""
    num_envs: int = 0
    autoreset_mode: int = 0

    @classmethod
    def of(cls, environment: str, request: worker_pb2.Opening) -> Recipe:
        """The recipe of what a client asks for."""
        kwargs = request.entrypoint_kwargs
        return cls(
            environment=environment,
            client_kwargs=b"" if kwargs == NO_KWARGS else kwargs,
            render_mode=request.render_mode,
            num_envs=request.num_envs,
            autoreset_mode=request.autoreset_mode if request.num_envs else 0,
        )

    def request(self) -> worker_pb2.Opening:
        """A request for it, by no client."""
        return worker_pb2.Opening(
            environment=self.environment,
            entrypoint_kwargs=self.client_kwargs,
            render_mode=self.render_mode,
            num_envs=self.num_envs,
            autoreset_mode=self.autoreset_mode,  # type: ignore[arg-type]
        )


@dataclass(frozen=True, kw_only=True)
class Offer:
    """How an environment is offered.

    Attributes:
        warm: How many are made ahead.
        reuse: Whether one is kept for its client's next session.
        most: How many there may be, its `max_sessions`.
    """

    warm: int = 0
    reuse: bool = False
    most: float = math.inf


W = TypeVar("W")


@dataclass(kw_only=True, eq=False)
class Spare(Generic[W]):
    """One environment that no session has.

    Attributes:
        name: For the log.
        recipe: What it is made from.
        env_id: The first of its numbers.
        identity: The client that alone may have it; empty for any.
        worker: Where it is; None while it is being made.
        expires: When it has been kept for long enough.
        is_ending: Whether it is being closed, so that nobody gets it.
    """

    name: str
    recipe: Recipe
    env_id: int
    identity: str = ""
    worker: W | None = None
    expires: float = math.inf
    is_ending: bool = False


@dataclass
class _Form:
    """A form in which an environment is made ahead.

    Attributes:
        recipe: From what.
        failures: How many there were, one after the other.
        not_before: When to try again.
    """

    recipe: Recipe
    failures: int = 0
    not_before: float = -math.inf


@dataclass
class _Aim:
    """The forms in which an environment is made ahead, and how those are learnt from clients.

    Attributes:
        own: As the server offers it; None where clients have to say more of it.
        learnt: As clients have asked for it; None where they have not, or for the server's own form.
        last: What was opened last.
        identity: The client that opened it; None for none yet.
        is_shared: Whether clients of several identities have opened some.
    """

    own: _Form | None
    learnt: _Form | None = None
    last: Recipe | None = None
    identity: str | None = None
    is_shared: bool = False

    def form(self, recipe: Recipe) -> _Form | None:
        """The form of a recipe, if it is made ahead."""
        return next((form for form in (self.own, self.learnt) if form is not None and form.recipe == recipe), None)

    def opened(self, recipe: Recipe, identity: str) -> None:
        """Learn from a session that has been opened.

        Where several tenants come, none of them alone says what is made ahead for all.
        """
        is_anothers = self.identity not in (None, identity)
        if is_anothers and not self.is_shared:
            self.is_shared = True
            if self.learnt is not None and self.learnt.recipe != recipe:  # only one client has ever asked for it
                self.learnt = None
        if recipe == self.last and self.form(recipe) is None and (is_anothers or not self.is_shared):
            self.learnt = _Form(recipe)
        self.last, self.identity = recipe, identity

    def shares(self, warm: int) -> list[tuple[_Form, int]]:
        """How many of each form there are to be, of `warm` in all; one is the server's own, whatever clients do."""
        if self.learnt is None:
            return [] if self.own is None else [(self.own, warm)]
        return [(self.learnt, warm)] if self.own is None else [(self.own, 1), (self.learnt, warm - 1)]


@dataclass
class Stock(Generic[W]):
    """All of them.

    They and the sessions together are never more than the server's `max_sessions`, and of an environment than its own:
    each takes its memory, and mostly a device. Those that close count until they are gone.

    Args:
        offers: By the environment's name.
        most: The server's `max_sessions`.
        clock: Monotonic seconds.
    """

    offers: Mapping[str, Offer]
    most: int
    clock: Callable[[], float]
    _spares: dict[Spare[W], None] = field(default_factory=dict)  # the oldest first
    _aims: dict[str, _Aim] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._aims = {name: _Aim(_Form(Recipe(environment=name))) for name, offer in self.offers.items() if offer.warm}

    def __iter__(self) -> Iterator[Spare[W]]:
        """All, the oldest first; they may be changed meanwhile."""
        return iter(tuple(self._spares))

    def __len__(self) -> int:
        return len(self._spares)

    def is_warm(self, environment: str) -> bool:
        """Whether environments of that name are made ahead."""
        return environment in self._aims

    def keeps(self, environment: str | None, identity: str) -> bool:
        """Whether that client's environment is kept when it has closed it; an anonymous client's never is."""
        offer = self.offers.get(environment) if environment is not None else None
        return offer is not None and offer.reuse and bool(identity)

    def add(self, spare: Spare[W]) -> None:
        """One is there, or begun."""
        if spare.identity:
            spare.expires = self.clock() + KEEP_SECONDS
        self._spares[spare] = None

    def remove(self, spare: Spare[W]) -> None:
        """One is gone, or a session's."""
        self._spares.pop(spare, None)

    def take(self, recipe: Recipe, identity: str) -> Spare[W] | None:
        """One for a client's session, which has it alone from now on: what it had itself before goes first."""
        fitting = [
            spare
            for spare in self._spares
            if spare.recipe == recipe and spare.worker is not None and not spare.is_ending
        ]
        own = [spare for spare in fitting if identity and spare.identity == identity]
        anybodys = [spare for spare in fitting if not spare.identity]
        # The one that was used last, whose memory is the likeliest to be at hand; of those made ahead the oldest.
        chosen = own[-1] if own else anybodys[0] if anybodys else None
        if chosen is not None:
            self.remove(chosen)
            if not own and (form := self._form(recipe)) is not None:
                form.failures = 0
        return chosen

    def opened(self, recipe: Recipe, identity: str) -> None:
        """A session has been opened. What two in a row have asked for is made ahead, too, from then on.

        Args:
            recipe: What it has asked for.
            identity: Its client's. Where there are several, two in a row are of two clients.
        """
        if recipe.environment in self._aims:
            self._aims[recipe.environment].opened(recipe, identity)

    def tried(self, environment: str, recipe: Recipe | None) -> None:
        """It has been found how an environment can be made that clients name no more of than its name; None for not."""
        if environment in self._aims:
            self._aims[environment].own = None if recipe is None else _Form(recipe)

    def give_up(self, recipe: Recipe) -> None:
        """It cannot be made from that, before clients say more."""
        aim = self._aims.get(recipe.environment)
        if aim is not None:
            aim.own = aim.own if aim.own is None or aim.own.recipe != recipe else None
            aim.learnt = aim.learnt if aim.learnt is None or aim.learnt.recipe != recipe else None

    def failed(self, recipe: Recipe) -> bool:
        """One could not be made, or has ended by itself: wait before the next one is made.

        Returns:
            Whether that is news, rather than yet another failure.
        """
        form = self._form(recipe)
        if form is None:
            return False
        form.not_before = self.clock() + min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(form.failures, 16))
        form.failures += 1
        return form.failures == 1

    def missing(self, places: int, held: Mapping[str, int]) -> list[Recipe]:
        """Recipes of those to begin to make now.

        Args:
            places: Sessions that there are, those that open and close among them.
            held: Of each environment.
        """
        now, recipes = self.clock(), []
        making = sum(spare.worker is None for spare in self._spares)
        room = min(self.most - places - len(self._spares), MAKES_AT_ONCE - making)
        count = Counter(spare.recipe.environment for spare in self._spares)
        for name, aim in self._aims.items():
            offer = self.offers[name]
            for form, share in aim.shares(offer.warm):
                if form.not_before > now:
                    continue
                there = len(self._ahead(form.recipe))
                number = int(max(0, min(share - there, offer.most - held.get(name, 0) - count[name], room)))
                recipes += [form.recipe] * number
                count[name] += number
                room -= number
        return recipes

    def surplus(self) -> list[Spare[W]]:
        """Spares to close: kept for long enough, too many that are kept, or no more made ahead."""
        now = self.clock()
        kept = [spare for spare in self._spares if spare.identity and not spare.is_ending]
        staying: list[Spare[W]] = []
        for name, aim in self._aims.items():
            for form, share in aim.shares(self.offers[name].warm):
                staying += self._ahead(form.recipe)[:share]  # rather than the newest, which may have to be made yet
        old = [spare for spare in self._spares if not (spare.identity or spare.is_ending) and spare not in staying]
        too_many = kept[: max(0, len(kept) - MOST_KEPT)]
        for identity, count in Counter(spare.identity for spare in kept).items():
            too_many += [spare for spare in kept if spare.identity == identity][: max(0, count - MOST_KEPT_OF_ONE)]
        return old + [spare for spare in kept if spare in too_many or spare.expires <= now]

    def in_the_way(self, environment: str | None, places: int, held: Mapping[str, int]) -> list[Spare[W]]:
        """Spares to close so that there is room for a session, which counts already: of those that are kept the oldest.

        Only then those that are made ahead, the server's own form last.

        Args:
            environment: The session's; None for a client's own.
            places: As `missing` has it.
            held: Likewise.
        """
        own_forms = [aim.own.recipe for aim in self._aims.values() if aim.own is not None]
        staying = sorted(
            (spare for spare in self._spares if not spare.is_ending),
            key=lambda spare: (not spare.identity, spare.recipe in own_forms),
        )  # each kind the oldest first
        chosen: list[Spare[W]] = []
        if environment is not None and environment in self.offers:
            own = [spare for spare in staying if spare.recipe.environment == environment]
            over = held.get(environment, 0) + len(own) - self.offers[environment].most
            chosen = own[: int(max(0, over))]
        over = places + len(staying) - len(chosen) - self.most
        return chosen + [spare for spare in staying if spare not in chosen][: max(0, over)]

    def is_crowded(self, environment: str | None, places: int, held: Mapping[str, int]) -> bool:
        """Whether a session, which counts already, has to wait until others are closed."""
        if places + len(self._spares) > self.most:
            return True
        if environment is None or environment not in self.offers:
            return False
        own = sum(spare.recipe.environment == environment for spare in self._spares)
        return held.get(environment, 0) + own > self.offers[environment].most

    def next_change(self) -> float | None:
        """Seconds until time alone changes what is to be made or closed; None for never."""
        times = [spare.expires for spare in self._spares if not spare.is_ending]
        forms = [form for aim in self._aims.values() for form in (aim.own, aim.learnt) if form is not None]
        times += [form.not_before for form in forms if form.not_before > self.clock()]
        soonest = min(times, default=math.inf)
        return None if soonest == math.inf else max(0.0, soonest - self.clock())

    def _form(self, recipe: Recipe) -> _Form | None:
        aim = self._aims.get(recipe.environment)
        return None if aim is None else aim.form(recipe)

    def _ahead(self, recipe: Recipe) -> list[Spare[W]]:
        """Environments made ahead from a recipe, the oldest first."""
        return [
            spare for spare in self._spares if spare.recipe == recipe and not spare.identity and not spare.is_ending
        ]
