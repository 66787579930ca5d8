"""What this dialect needs of the uploads, as a type: serving/files.py has it."""

from typing import Protocol

from dragoman.core.tensors import Blob


class Uploads(Protocol):
    async def put(self, data: bytes, name: str, media_type: str) -> str: ...
    async def get(self, name: str) -> Blob: ...
