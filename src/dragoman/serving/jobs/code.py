"""Uploaded code: received, kept, placed into the folders of jobs, shown and removed. The facade `Code`, made by server/jobs.py.

Called by dialects/floydhub (uploads, downloads) and by the runner (placing). Knows nothing of HTTP. What one upload was is a document of the
store; its files are kept by their hashes (files.py), so that the same code uploaded again takes no room.
"""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from dragoman.core.errors import Kind, ServingError
from dragoman.core.multipart import boundary_of
from dragoman.serving.jobs import browsing, trees
from dragoman.serving.jobs.browsing import Content, Download, Listing
from dragoman.serving.jobs.files import Files
from dragoman.serving.jobs.receiving import Receiving, too_large
from dragoman.serving.jobs.records import new_id
from dragoman.serving.jobs.trees import CodeLimits, File
from dragoman.serving.late_store import LateStore
from dragoman.serving.paths import private_folder
from dragoman.serving.settings import quoted
from dragoman.serving.threads import to_the_end

MODULE = "floyd_module"
"""Kind of document; its group is the place, the data directory that has the files."""
_PIECE = 256 << 10
"""Bytes that are taken apart, hashed and written in one visit to a thread."""
_UNUSED_S = 86400.0
"""Code that no job names for so long after its upload is removed: the client went away between upload and run."""


@dataclass(frozen=True, slots=True)
class Module:
    """One upload of code."""

    id: str
    owner: str
    project: str
    """Name of the project, without its owner."""
    project_id: str
    tree: str
    """SHA-256 of the list of its files."""
    files: int
    size: int
    """Bytes of all files together."""
    created: float
    """Seconds since the epoch."""
    request: Mapping[str, Any] = field(default_factory=dict)
    """What the client said of it: `mode`, `command`, `env`, `yaml_config`, `task`, `cli_default` ... an object, otherwise unchecked."""
    place: str = ""


@dataclass(frozen=True, slots=True)
class Home:
    """Whose code it is: what `accept` answers."""

    owner: str
    project: str
    project_id: str


Accept = Callable[[Mapping[str, Any]], Awaitable[Home]]
"""Looks at what the client says of its code, before anything is kept. What it raises is raised to the uploader."""


class Code:
    """`folder` is jobs/files of the data directory, `place` answers that directory's name, and may block.

    Whatever takes an id raises NOT_FOUND (what="module") for an unknown one, and UNAVAILABLE while the store is.
    """

    def __init__(
        self,
        store: LateStore,
        folder: Path,
        place: Callable[[], str] = str,
        limits: CodeLimits | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._files = Files(folder)
        self._place = place
        self.limits = limits or CodeLimits()
        self._clock = clock

    async def add(self, chunks: AsyncIterator[bytes], content_type: str, accept: Accept, *, length: int | None = None) -> Module:
        """Receive the client's form, `length` bytes where that was announced, and keep it. Durable on return.

        Raises INVALID_INPUT and TOO_LARGE (what="body"), as early as that can be told and with the number that was passed; what `accept` and
        `chunks` raise; UNAVAILABLE when the disk or the store refuses. Nothing is left then.
        """
        boundary = boundary_of(content_type)
        if length is not None and length > self.limits.largest_body:
            raise too_large(self.limits)
        receiving = Receiving(self._files, boundary, self.limits)
        try:
            waiting, left = bytearray(), self.limits.largest_body
            async for chunk in chunks:
                waiting += chunk
                left -= len(chunk)
                if left < 0:
                    raise too_large(self.limits)
                if len(waiting) >= _PIECE:
                    await to_the_end(partial(receiving.feed, bytes(waiting)))
                    waiting.clear()
            await to_the_end(partial(receiving.feed, bytes(waiting)))
            said = await to_the_end(receiving.finish)
            return await self._keep(receiving, said, await accept(said))
        except OSError as error:
            raise ServingError(Kind.UNAVAILABLE, f"the code cannot be stored: {error.strerror}") from error
        finally:
            await to_the_end(receiving.close)

    async def module(self, module_id: str) -> Module:
        store = await self._store.existing()
        document = None if store is None else await store.document(MODULE, module_id)
        if document is None:
            raise _unknown(module_id)
        return Module(**document)

    async def place(self, module_id: str, home: Path) -> None:
        """Copy the files to the folder `home`, which is made; one that is there stays as it is: what a job wrote is kept over a restart.

        It is there only when it is whole. Raises UNAVAILABLE when a file is missing or the disk refuses.
        """
        module = await self.module(module_id)
        await to_the_end(partial(self._place_all, module, home))

    async def tree(self, module_id: str) -> dict[str, File]:
        """Path -> file, by path."""
        return await asyncio.to_thread(self._tree, await self.module(module_id))

    async def read(self, module_id: str, path: str, largest: int = 1 << 20) -> bytes | None:
        """One small file of it, such as floyd.yml; None where there is none. Raises TOO_LARGE above `largest` bytes."""
        file = (await self.tree(module_id)).get(path)
        if file is None:
            return None
        if file.size > largest:
            raise ServingError(Kind.TOO_LARGE, f"{quoted(path)} has {file.size} bytes, at most {largest} are read", what="file")
        return await asyncio.to_thread(self._files.path(file.sha256).read_bytes)

    async def browse(self, module_id: str, path: str = "") -> Listing | Content:
        """What a folder of it holds, or a file's content. Raises NOT_FOUND (what="file")."""
        tree = await self.tree(module_id)
        return await browsing.browse_tree(tree, self._files.path, path)

    async def download(self, module_id: str, path: str = "") -> Download:
        """A folder of it as a tar file, "" for all. Raises NOT_FOUND (what="file")."""
        module = await self.module(module_id)
        tree = await self.tree(module_id)
        return browsing.download_tree(tree, self._files.path, path, module.created)

    async def remove(self, module_id: str) -> None:
        """Forget one that no job names any more; its files go with the next `sweep`. No error when there is none."""
        store = await self._store.existing()
        if store is not None and await store.remove_document(MODULE, module_id):
            await asyncio.to_thread(self._files.unname, module_id)

    async def sweep(self, named: Collection[str]) -> int:
        """Remove uploads that are older than a day and not among `named` (the ids that jobs have), and files that no upload names; how many files.

        Called now and then by one process. Raises UNAVAILABLE while the store is.
        """
        store = await self._store.existing()
        if store is None:
            return 0
        before = self._clock() - _UNUSED_S
        for module in await self._modules():
            if module.created < before and module.id not in named:
                await self.remove(module.id)
        return await to_the_end(partial(self._files.collect, trees.named))

    # --- inside ---

    async def _keep(self, receiving: Receiving, said: dict[str, Any], home: Home) -> Module:
        store = await self._store.get()
        naming = self._files.naming()
        await to_the_end(naming.__enter__, undo=lambda _: naming.__exit__(None, None, None))
        try:
            tree = await to_the_end(partial(self._move, receiving))
            place = await to_the_end(self._place)
            files = receiving.tree.files
            module = Module(
                new_id(),
                home.owner,
                home.project,
                home.project_id,
                tree,
                len(files),
                receiving.size,
                self._clock(),
                said,
                place,
            )
            await to_the_end(partial(self._files.name, module.id, tree))
            try:
                await store.edit_document(MODULE, module.id, lambda _: asdict(module), group=place)
            except ServingError:
                self._files.unname(module.id)
                raise
            return module
        finally:
            naming.__exit__(None, None, None)

    def _move(self, receiving: Receiving) -> str:
        self._files.keep(receiving.found)
        return self._files.keep_text(trees.written(receiving.tree.files))

    async def _modules(self) -> list[Module]:
        """Those whose files are in this place."""
        store = await self._store.get()
        place = await to_the_end(self._place)
        return [Module(**document) for document in await store.documents(MODULE, [place])]

    def _tree(self, module: Module) -> dict[str, File]:
        return trees.read(self._files.read(module.tree))

    def _place_all(self, module: Module, home: Path) -> None:
        if home.exists():
            return
        part = home.with_name(f".{home.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        path = ""
        try:
            private_folder(home.parent)
            part.mkdir(mode=0o755)
            for path, file in self._tree(module).items():
                target = part / path
                target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                shutil.copyfile(self._files.path(file.sha256), target)
                if target.stat().st_size != file.size:
                    raise ServingError(Kind.UNAVAILABLE, f"the stored file {quoted(path)} of the code is damaged", what="file")
                target.chmod(0o755 if file.executable else 0o644)
            part.rename(home)
        except OSError as error:
            shutil.rmtree(part, ignore_errors=True)
            raise ServingError(Kind.UNAVAILABLE, f"the code cannot be placed ({quoted(path)}: {error.strerror})", what="file") from error


def _unknown(module_id: str) -> ServingError:
    return ServingError(Kind.NOT_FOUND, f"there is no code {quoted(module_id)}", what="module")
