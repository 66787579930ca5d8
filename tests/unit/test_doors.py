"""Passwords of deployments: who may call a locked model, in which protocol, and what guessing costs."""

import asyncio
from collections.abc import Mapping
from contextvars import copy_context
from typing import Any

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.serving.doors import DOOR, Doors, door
from dragoman.serving.gateway import OPENED, Gateway
from dragoman.serving.late_store import LateStore
from dragoman.serving.meters import Meters
from dragoman.serving.passwords import lock_of
from dragoman.serving.registry import Registry
from dragoman.store import Wish
from tests.fakes_store import FakeStore

ONE, TWO = "desaaaaaaaaaaaa", "desbbbbbbbbbbbb"
LOCK = lock_of("joe", "secret")


class World:
    """Doors before a gateway, and the wishes that they read."""

    def __init__(self) -> None:
        async def store() -> FakeStore:
            return FakeStore()

        self.registry = Registry(LateStore(store))
        self.gateway = Gateway(Meters())
        self.doors = Doors(self.registry, self.gateway)
        self._generation = 0

    def wish(self, name: str, said: Mapping[str, Any] | None) -> None:
        """A deployment that should run, with a door; None for one that should not."""
        self._generation += 1
        document = {} if said is None else {"versions": {"1": {"revision": "r", "origin": {}}}, DOOR: said}
        self.registry.absorb([Wish(name, self._generation, document)])

    async def opens(self, name: str, user: str = "", password: str = "") -> bool:
        """Whether a request with these credentials may call a model."""
        if user:
            await self.doors.open(user.encode(), password.encode())
        else:
            self.doors.close()
        try:
            self.gateway.refuse_locked(name)
        except ServingError as error:
            if (error.kind, error.what) != (Kind.UNAUTHENTICATED, "deployment"):
                raise
            return False
        return True


def test_only_its_own_credentials_open_a_model() -> None:
    """Others do not, and none do not; models without a lock need none."""

    async def test() -> None:
        world = World()
        assert not world.doors.locked
        world.wish(ONE, door(LOCK, grpc=False))
        world.wish(TWO, door(lock_of("ann", "other"), grpc=False))
        assert world.doors.locked
        assert not await world.opens(ONE)
        assert await world.opens(ONE, "joe", "secret")
        assert await world.opens(ONE, "joe", "secret")
        assert not await world.opens(TWO, "joe", "secret")
        assert await world.opens(TWO, "ann", "other")
        for user, password in (("joe", "Secret"), ("joe", ""), ("ann", "secret"), ("Joe", "secret"), ("joe", "secret\0")):
            assert not await world.opens(ONE, user, password), (user, password)
        assert await world.opens("iris")
        assert not await world.opens(ONE), "what the request before had brought counts no more"

    asyncio.run(test())


def test_a_lock_outlives_its_deployment_and_may_be_changed_or_taken_off() -> None:
    """What drains is still closed; another password holds as soon as the wish does."""

    async def test() -> None:
        world = World()
        world.wish(ONE, door(LOCK, grpc=False))
        world.wish(ONE, None)
        assert not await world.opens(ONE)
        world.wish(ONE, door(lock_of("joe", "new"), grpc=False))
        assert not await world.opens(ONE, "joe", "secret")
        assert await world.opens(ONE, "joe", "new")
        world.wish(ONE, door({}, grpc=False))
        assert await world.opens(ONE)
        assert not world.doors.locked

    asyncio.run(test())


def test_nothing_of_a_password_is_kept() -> None:
    """And the same password is kept differently each time."""

    async def test() -> None:
        assert "secret" not in str(LOCK)
        assert lock_of("joe", "secret")["hash"] != LOCK["hash"]

    asyncio.run(test())


def test_those_who_guess_do_not_have_all_threads() -> None:
    """Too many at a time are sent away, and the others still find out."""

    async def test() -> None:
        world = World()
        world.wish(ONE, door(LOCK, grpc=False))

        async def tried(password: str) -> str:
            try:
                await world.doors.open(b"joe", password.encode())
            except ServingError as error:
                return error.kind.name
            return "opened" if ONE in OPENED.get() else "closed"

        tasks = [asyncio.get_running_loop().create_task(tried(f"guess {i}"), context=copy_context()) for i in range(40)]
        answers = await asyncio.gather(*tasks)
        assert answers.count("OVERLOADED") == 8
        assert answers.count("closed") == 32
        assert await tried("secret") == "opened"

    asyncio.run(test())


def test_the_name_that_grpc_clients_know() -> None:
    """A gRPC deployment is `model`, too, as long as it is the only one that runs."""

    async def test() -> None:
        world = World()
        assert world.gateway.aliases == {}
        world.wish(ONE, door({}, grpc=True))
        assert world.gateway.aliases == {"model": ONE}
        world.wish(TWO, door({}, grpc=True))
        assert world.gateway.aliases == {}
        world.wish(ONE, None)
        assert world.gateway.aliases == {"model": TWO}

    asyncio.run(test())


@pytest.mark.parametrize("name", ["model", ONE])
def test_what_is_not_known_is_said_by_its_own_name(name: str) -> None:
    """The alias leads to the model's own errors."""

    async def test() -> None:
        world = World()
        world.wish(ONE, door({}, grpc=True))
        with pytest.raises(ServingError) as refusal:
            world.gateway.find(name)
        assert refusal.value.kind is Kind.NOT_FOUND
        assert ONE in refusal.value.message

    asyncio.run(test())
