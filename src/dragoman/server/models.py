"""The models of one worker: where they come from, which are wanted, what loads them and keeps them in step. Built and ended by worker.py."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import uuid4

from dragoman.engines import Context, Engines
from dragoman.engines.environment import FOLDER, Environments
from dragoman.server.defaults import defaults
from dragoman.server.elsewhere import elsewhere
from dragoman.server.loading import Loaded, Loading, Progress
from dragoman.server.settings import Settings
from dragoman.serving.deployments import Deployments
from dragoman.serving.gateway import Gateway
from dragoman.serving.late_store import LateStore
from dragoman.serving.members import Members
from dragoman.serving.meters import Meters, Tally
from dragoman.serving.model_config import read_models
from dragoman.serving.operations import Operations
from dragoman.serving.origins import Origins
from dragoman.serving.polling import Polling
from dragoman.serving.reconciler import Reconciler
from dragoman.serving.registry import Registry
from dragoman.serving.reloading import Reloading
from dragoman.serving.repository import Repository
from dragoman.serving.roots import Roots
from dragoman.serving.watch import Watch
from dragoman.store import Store


class ModelsPart:
    """What is wanted is in the registry, and the reconciler has it loaded.

    `shared` is the folder that the workers of one server have in common, None for a single one; `keeper` and `run` are the worker's.
    """

    def __init__(
        self,
        settings: Settings,
        store: LateStore,
        opener: Callable[[], Awaitable[Store]],
        gateway: Gateway,
        meters: Meters,
        *,
        shared: Path | None,
        keeper: str,
        run: str,
    ) -> None:
        self._gateway = gateway
        self._progress: Progress = lambda text: None
        self.roots = Roots.of(settings.model_root, settings.trusted_root, settings.data_path)
        self.registry = Registry(store, Members(settings.data_path / "owners", shared, alone=settings.alone), run=run or uuid4().hex)
        self._watch = Watch(self.registry, store)
        self._engines = Engines(
            Context(
                keeper=keeper,
                environments=Environments(settings.data_path / FOLDER),
                restarted=lambda model: meters.tally(model, Tally.RESTARTS),
            )
        )
        others = elsewhere(settings, self.roots, opener, lambda text: self._progress(text))
        listed = read_models(settings.model_config_file) if settings.model_config_file else ()
        self._repository = Repository(
            settings.targets, defaults(settings), others, self.roots, shared=shared, configured=listed, routers=settings.router
        )
        self.origins = Origins(store, self.roots, self._repository, settings.data_path)
        self._reloading = Reloading(
            self.registry,
            self._repository,
            gateway,
            file=settings.model_config_file,
            file_s=settings.model_config_poll,
            listed=listed,
            early_labels=settings.unavailable_labels,
        )
        named = settings.load_model if settings.load == "request" else None
        self._polling = Polling(self.registry, self._repository, gateway, settings.poll, on_request=named is not None)
        self._loading = Loading(
            self.registry,
            gateway,
            self._engines,
            self.origins,
            self._polling,
            self._reloading,
            named,
            waits=settings.wait_for_models,
            strict=settings.exit_on_error,
        )
        self._reconciler = Reconciler(
            self.registry,
            gateway,
            opener=self._loading.open,
            drain_timeout_s=settings.drain_timeout,
            retries=settings.load_retries,
            retry_s=settings.load_retry_interval,
        )

    def operations(self, deployments: Deployments) -> Operations:
        """What clients may do with them."""
        return Operations(self.registry, self._repository, self._gateway, deployments, self.origins, self._polling, self._reloading)

    async def follow(self) -> None:
        """Serve what is deployed in the store, too, now and from now on."""
        await self._watch.start()

    async def load(self, progress: Progress) -> Loaded:
        """Load the targets of the settings, and what is deployed."""
        self._progress = progress
        return await self._loading.load(progress)

    async def close(self) -> None:
        """Close the models; nothing changes any more."""
        await self._reloading.close()
        await self._polling.close()
        await self._reconciler.close()
        await self._watch.close()
        await self._engines.close()
        self._repository.close()
