"""One connection over which frames go, on asyncio. The same at both ends; what frames mean is the owner's business."""

import asyncio
from collections.abc import Callable, Mapping
from typing import cast

from dragoman.core.tensors import Value
from dragoman.hosting.frames import Frame, FrameError, FrameReader, Kind, Part, encode

_JOIN = 64 << 10
"""Parts up to this size together are one write; of larger ones nothing is copied that need not be."""


class Line(asyncio.BufferedProtocol):
    """`on_frame` gets every frame, `on_lost` the end, once, with what was wrong ("" for an ordinary end). Both on the loop.

    What is sent in one pass of the loop is one write. `tag` marks values in the headers and may be set when the other end has named one.
    With `copies` nothing that was sent is looked at later, so it may change; without, arrays must stay as they are until they are written.
    """

    def __init__(self, on_frame: Callable[[Frame], None], on_lost: Callable[[str], None], tag: str, *, copies: bool = False) -> None:
        self.tag = tag
        self._copies = copies
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._parts: list[Part] = []
        self._scheduled = False
        self._wrong = ""
        self._closed = False

    # --- what the owner calls ---

    def send(self, kind: Kind, header: Mapping[str, Value]) -> None:
        """Send a frame with this pass of the loop; nothing happens once the line is closed. Raises FrameError for what cannot be sent."""
        if self._closed:
            return
        self._parts += encode(kind, header, self.tag)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write what is to be sent now, as far as the other end takes it."""
        self._scheduled = False
        transport = self._transport
        if not self._parts or transport is None or self._closed:
            return  # before the connection is made, parts wait for that
        parts, self._parts = self._parts, []
        if len(parts) == 1:
            transport.write(parts[0])
        elif self._copies or sum(map(len, parts)) <= _JOIN:
            transport.write(b"".join(parts))
        else:
            transport.writelines(parts)

    def close(self, wrong: str = "") -> None:
        """Flush and close; `on_lost` follows."""
        self.flush()
        self._closed = True
        self._wrong = self._wrong or wrong
        if self._transport is not None:
            self._transport.close()

    def abort(self, wrong: str) -> None:
        """Close without waiting for anything."""
        self._closed = True
        self._wrong = self._wrong or wrong
        self._parts.clear()
        if self._transport is not None:
            self._transport.abort()

    @property
    def closed(self) -> bool:
        return self._closed

    # --- what asyncio calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=1 << 30)  # whoever asks is bounded by its queue, not by pauses here
        if self._closed:
            transport.close()
        else:
            self.flush()

    def get_buffer(self, _hint: int) -> memoryview:
        return self._reader.room()

    def buffer_updated(self, nbytes: int) -> None:
        try:
            for frame in self._reader.received(nbytes):
                self._on_frame(frame)
        except FrameError as error:
            self.abort(str(error))
        except (LookupError, TypeError, ValueError, AttributeError) as error:  # a header that lacks something, or has it of another type
            self.abort(f"a frame cannot be understood: {type(error).__name__}: {error}")

    def eof_received(self) -> None:
        """The transport closes itself."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        self._transport = None
        self._parts.clear()
        self._on_lost(self._wrong or (str(exc) if exc is not None else ""))
