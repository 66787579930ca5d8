"""Data sets and their versions in the store: every change of a record goes through here. Called by data_sets.py and data_uploads.py."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from dragoman.core.errors import Kind, ServingError
from dragoman.serving.jobs.data_records import DATA_SET, VERSION, DataSet, DataVersion, read_version, version_document
from dragoman.serving.late_store import LateStore
from dragoman.serving.settings import quoted

Edit = Callable[[DataVersion], DataVersion]


@dataclass(frozen=True, slots=True)
class KeptData:
    """The records of data sets and their versions, as Kept has those of jobs. Every method raises UNAVAILABLE while the store is."""

    store: LateStore
    place: Callable[[], str] = str
    """The name of the data directory; blocks."""

    async def data_set(self, identity: str) -> DataSet | None:
        store = await self.store.existing()
        document = await store.document(DATA_SET, identity) if store is not None else None
        return None if document is None else DataSet(**document)

    async def data_sets(self, owner: str | None) -> list[DataSet]:
        store = await self.store.existing()
        groups = None if owner is None else [owner]
        return [] if store is None else [DataSet(**each) for each in await store.documents(DATA_SET, groups)]

    async def make(self, data_set: DataSet) -> DataSet:
        """This one, or the one that is there already."""
        store = await self.store.get()
        new = asdict(data_set)
        return DataSet(**await store.edit_document(DATA_SET, data_set.id, lambda old: old or new, group=data_set.owner))

    async def change(self, identity: str, change: Callable[[DataSet], DataSet]) -> DataSet:
        """Change a set in one transaction. Raises NOT_FOUND."""
        store = await self.store.get()

        def edited(document: Mapping[str, Any] | None) -> Mapping[str, Any]:
            if document is None:
                raise no_data(identity)
            return asdict(change(DataSet(**document)))

        return DataSet(**await store.edit_document(DATA_SET, identity, edited))

    async def next_number(self, identity: str) -> DataSet:
        """The set with its next number taken: no two versions get the same."""
        return await self.change(identity, lambda data_set: replace(data_set, last=data_set.last + 1))

    async def version(self, identity: str) -> DataVersion | None:
        store = await self.store.existing()
        document = await store.document(VERSION, identity) if store is not None else None
        return None if document is None else read_version(document)

    async def versions(self, data_set: str | None) -> list[DataVersion]:
        """Of one set, or all; the oldest first."""
        store = await self.store.existing()
        groups = None if data_set is None else [data_set]
        return [] if store is None else [read_version(each) for each in await store.documents(VERSION, groups)]

    async def add(self, version: DataVersion) -> None:
        store = await self.store.get()
        document = version_document(version)
        await store.edit_document(VERSION, version.id, lambda _: document, group=version.data_set_id)

    async def edit(self, identity: str, change: Edit) -> DataVersion:
        """Change a version in one transaction. `change` may raise, and may be called twice. Raises NOT_FOUND."""
        store = await self.store.get()

        def edited(document: Mapping[str, Any] | None) -> Mapping[str, Any]:
            if document is None:
                raise no_data(identity)
            return version_document(change(read_version(document)))

        return read_version(await store.edit_document(VERSION, identity, edited))

    async def remove(self, identity: str) -> bool:
        store = await self.store.get()
        return await store.remove_document(VERSION, identity)


def no_data(name: str) -> ServingError:
    return ServingError(Kind.NOT_FOUND, f"there is no data set {quoted(name)}", what="data")
