"""Push a stored model to a place that others reach, and pull one from there: a manifest and one archive, both with checksums.

At the place a model is `REPOSITORY/TAG.json` and `REPOSITORY/DIGEST.tar`. A tag there never changes what it means: pushing other content
under it, and pulling over other content, is a conflict. What is pulled is checked against its manifest, and the manifest against its digest.
"""

import asyncio
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.serving.library.archives import digest_of_file, pack, unpack
from dragoman.serving.library.library import Library, Prepared, Stored
from dragoman.serving.library.packing import File, digest_of, files_of
from dragoman.serving.library.references import Reference
from dragoman.serving.library.remotes import Remote, open_remote, told, without_secrets
from dragoman.serving.library.specs import checked
from dragoman.serving.paths import read_bounded

_FORMAT = 1
_LARGEST_MANIFEST = 16 << 20
_MOST_TAGS = 1000


@dataclass(frozen=True, slots=True)
class _Offer:
    """A manifest that has been read and makes sense."""

    tag: str
    created: float
    kind: str
    spec: dict[str, Any]
    files: tuple[File, ...]
    digest: str
    size: int
    sha256: str


async def push(library: Library, stored: Stored, target: Reference, url: str) -> bool:
    """Send a stored model to a place, under a name with a tag; False when exactly this is there already.

    Raises CONFLICT when the tag is taken there, UNAVAILABLE for a model that is damaged and for a place that does not answer.
    """
    place = await asyncio.to_thread(library.stage)
    try:
        return await asyncio.to_thread(_push, stored, target, url, place)
    finally:
        await asyncio.to_thread(shutil.rmtree, place, True)


async def pull(library: Library, source: Reference, url: str, target: Reference | None = None) -> tuple[Stored, bool]:
    """Bring a model from a place, by default under the same name; without a tag the one that was pushed last.

    Returns it and whether it is new. Raises NOT_FOUND, CONFLICT when the name means something else here, INVALID_INPUT for what is broken.
    """
    place = await asyncio.to_thread(library.stage)
    try:
        remote = await asyncio.to_thread(open_remote, url)
        offer = await asyncio.to_thread(_offer, remote, source, url, place)
        name = target or Reference(source.repository, offer.tag)
        try:
            have = await library.resolve(f"{name.repository}:{name.tag or offer.tag}")
        except ServingError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
        else:
            if have.version.digest == offer.digest:
                return have, False
            raise ServingError(
                Kind.CONFLICT, f"'{have.name}' is another model here; remove it first, or give this one another name", what="model"
            )
        await asyncio.to_thread(_fetch, remote, source, offer, url, place)
        prepared = Prepared(place / "model", offer.kind, offer.spec, without_secrets(url))
        return await library.add(prepared, name.repository, name.tag or offer.tag), True
    finally:
        await asyncio.to_thread(shutil.rmtree, place, True)


def _push(stored: Stored, target: Reference, url: str, place: Path) -> bool:
    stored.check()
    remote = open_remote(url)
    with told(url):
        manifest = f"{target.repository}/{target.tag}.json"
        if _taken(remote, manifest, stored, target, place):
            return False
        version = stored.version
        size, sha256 = pack(stored.folder, stored.files, place / "model.tar")
        content = {
            "format": _FORMAT, "repository": target.repository, "tag": target.tag, "created": version.created, "kind": version.kind,
            "spec": dict(version.spec), "files": [asdict(f) for f in stored.files], "digest": version.digest, "size": size, "sha256": sha256,
        }  # fmt: skip
        (place / "manifest.json").write_text(json.dumps(content, indent=1, sort_keys=True), "utf-8")
        remote.send(f"{target.repository}/{version.digest}.tar", place / "model.tar")  # first, so that no manifest leads to nothing
        return remote.claim(manifest, place / "manifest.json") or not _taken(remote, manifest, stored, target, place)


def _taken(remote: Remote, manifest: str, stored: Stored, target: Reference, place: Path) -> bool:
    """Whether the place has this very model under this name. Raises CONFLICT when it has another one."""
    if not remote.fetch(manifest, place / "there.json", _LARGEST_MANIFEST):
        return False
    if _read(place / "there.json", target.tag).digest != stored.version.digest:
        raise ServingError(Kind.CONFLICT, f"'{target}' is there already, and is another model; push it under another tag", what="model")
    return True


def _offer(remote: Remote, source: Reference, url: str, place: Path) -> _Offer:
    with told(url):
        tags = [source.tag] if source.tag else [n[:-5] for n in remote.names(source.repository) if n.endswith(".json")][:_MOST_TAGS]
        found = [
            _read(place / "manifest.json", tag)
            for tag in tags
            if remote.fetch(f"{source.repository}/{tag}.json", place / "manifest.json", _LARGEST_MANIFEST)
        ]
        if not found:
            raise ServingError(Kind.NOT_FOUND, f"there is no '{source}' at {without_secrets(url)}", what="model")
        return max(found, key=lambda offer: offer.created)


def _fetch(remote: Remote, source: Reference, offer: _Offer, url: str, place: Path) -> None:
    archive = place / "model.tar"
    with told(url):
        if not remote.fetch(f"{source.repository}/{offer.digest}.tar", archive, offer.size):
            raise ServingError(Kind.NOT_FOUND, f"the archive of '{source}' is not at {without_secrets(url)}", what="model")
        if archive.stat().st_size != offer.size or digest_of_file(archive) != offer.sha256:
            raise invalid(f"the archive of '{source}' is not what its manifest says: the checksum differs")
        unpack(archive, offer.files, place / "model")
        archive.unlink()


def _read(path: Path, tag: str) -> _Offer:
    """A manifest, checked. Raises INVALID_INPUT."""
    try:
        content = json.loads(read_bounded(path, _LARGEST_MANIFEST, "the manifest"))
    except (ValueError, RecursionError) as error:
        raise invalid("the manifest is not JSON") from error
    match content:
        case {
            "format": 1, "created": int() | float() as created, "kind": str() as kind, "spec": dict() as spec, "digest": str() as digest,
            "size": int() as size, "sha256": str() as sha256,
        } if len(kind) <= 64:  # fmt: skip
            files = files_of(content)
            spec = checked(kind, spec)
            if digest_of(kind, spec, files) != digest:
                raise invalid("the manifest contradicts itself: its digest is not that of its content")
            return _Offer(tag, created, kind, spec, files, digest, size, sha256)
        case {"format": int() as number} if number != _FORMAT:
            raise ServingError(Kind.UNSUPPORTED, f"the manifest has format {number}; this version reads format {_FORMAT}")
    raise invalid("the manifest is not one of a model")
