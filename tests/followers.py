"""Workers that follow files on disk, over one store and in one event loop: what tests of polling and of lists of models drive."""

import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from dragoman.serving.model_config import Models
from dragoman.serving.polling import Polling
from dragoman.serving.reading import Defaults
from dragoman.serving.reloading import Reloading
from dragoman.serving.repository import Repository
from dragoman.store import Store
from tests.fakes_store import FakeStore
from tests.workers import FakeWorker, until, with_made


def put(path: Path, content: str = "a model") -> Path:
    """A file with its folders. Nothing is loaded, so any content will do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, "utf-8")
    return path


def same_times(*paths: Path) -> None:
    """As builds that set all times to one."""
    for path in paths:
        os.utime(path, (1_000_000_000, 1_000_000_000))


class Follower(FakeWorker):
    """A worker with targets. `every_s` 0 looks only when a test or a wish says so."""

    def __init__(
        self,
        store: Store,
        targets: Sequence[object],
        place: Path | None = None,
        *,
        every_s: float = 0.0,
        defaults: Defaults | None = None,
        listed: Models = (),
        file: str = "",
        early_labels: bool = False,
    ) -> None:
        super().__init__(store, place)
        self.repository = Repository([str(target) for target in targets], defaults or Defaults(), configured=listed)
        self.polling = Polling(self.registry, self.repository, self.gateway, every_s)
        self.reloading = Reloading(
            self.registry, self.repository, self.gateway, file=file, file_s=0.002, listed=listed, early_labels=early_labels
        )

    async def start(self) -> None:
        """As server/loading.py does."""
        await self.watch.start()
        for found in await self.polling.first():
            if found.error and not found.faults:
                self.polling.refuse(found)
            else:
                self.polling.serve(found)
        self.polling.start()
        self.reloading.start()
        await self.settle()

    async def close(self) -> None:
        await self.reloading.close()
        await self.polling.close()
        await super().close()

    async def settle(self) -> None:
        for name in self.registry.names():
            await self.registry.settled(name)

    async def look(self, times: int = 2) -> None:
        """Look so often, and wait until what was found is applied. Twice, as a change counts when it looks the same twice."""
        for _ in range(times):
            await self.polling.look()
        await self.settle()

    def has(self, name: str = "m") -> list[str]:
        """The versions that answer, once what is unloaded has gone."""
        return self.serves(name)


def with_follower(test: Callable[[Follower], Awaitable[None]], *targets: object, **options: object) -> None:
    """Run a test with one worker that is all of its server."""
    with_followers(None, 1, lambda workers: test(workers[0]), *targets, **options)


def with_followers(
    place: Path | None, count: int, test: Callable[[list[Follower]], Awaitable[None]], *targets: object, **options: object
) -> None:
    """Run a test with workers of one server, all started and with the same targets."""
    if place is not None:
        (place / "run").mkdir()
    store = FakeStore()
    with_made(lambda: [Follower(store, targets, place, **options) for _ in range(count)], test)  # type: ignore[arg-type] # what the tests give


__all__ = ["Follower", "put", "same_times", "until", "with_follower", "with_followers"]
