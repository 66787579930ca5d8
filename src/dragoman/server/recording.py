"""Puts the parts of tracking together for one worker: settings, recorder, queue, and the places where records go. Made by worker.py."""

import os
import socket
from collections.abc import Callable

from dragoman.server.settings import Settings
from dragoman.serving.counters import Tally
from dragoman.serving.fetch import FetchPolicy
from dragoman.serving.live_settings import LiveSettings
from dragoman.serving.records.forms import Source
from dragoman.serving.records.recorder import Recorder
from dragoman.serving.records.settings import RecordSettings
from dragoman.serving.records.sinks import Sinks
from dragoman.serving.records.writer import Writer

_LEAST_S = 1.0
"""For the last records, also when everything else took its time to end."""


class Records:
    """`index` is this worker's place among those of the server."""

    def __init__(
        self, settings: Settings, live: LiveSettings, policy: FetchPolicy, tally: Callable[[str, Tally], None], index: int
    ) -> None:
        folder = settings.data_path / "records"
        sinks = Sinks(policy, index, os.environ)
        self.settings = RecordSettings(live, settings.tracking, settings.tracking_sample, settings.tracking_batch, folder, sinks.check)
        source = Source(str(index), socket.gethostname(), settings.server_name)
        self._writer = Writer(self.settings, sinks, tally, source)
        self.recorder = Recorder(self.settings, self._writer.put)

    def start(self) -> None:
        self._writer.start()

    async def close(self, timeout_s: float) -> None:
        """Send what waits, for at most so long."""
        await self._writer.close(max(_LEAST_S, timeout_s))
