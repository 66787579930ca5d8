"""From messages to answers for one stream: takes, answers, writes, commits. Made by service.py, one per stream and worker.

Three loops: one reads as much as there is room for, one writes whatever was answered meanwhile in one go, one commits. Of each key of a lane
one message at a time is being answered; messages without a key, and different keys, run side by side, so that a model's batcher joins them.
Of a lane only that is committed before which nothing is missing on the output: after a crash some messages are answered twice, and none is
missed (MLRun requirements M19-M21).
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Hashable, Mapping, Sequence
from typing import TypeAlias

from dragoman.core.errors import Kind, ServingError
from dragoman.streams import Connector, Lane, Message, Outgoing
from dragoman.streams.addresses import StreamAddress
from dragoman.streams.tickets import Counts, Headway, Letter, Response, Ticket
from dragoman.streams.troubles import Trouble

log = logging.getLogger("dragoman.streams")

_AHEAD = 8
_LEAST_AHEAD = 1000
"""A lane whose oldest message is not answered is read on until so many messages, or times the room, are behind it; then it is paused."""
_LAST_COMMIT_S = 2.0
"""What the commit of a lane that is given up may take when waiting for its messages took all the time there was."""
_FAREWELL_S = 4.0
"""Of the time for an orderly end so much is kept for the last commit, and for leaving the broker."""
_LONG_S = 5.0
"""An answer that the broker has not confirmed for so long is said to people: clients try for much longer before they fail."""


Respond: TypeAlias = Callable[[Message], Awaitable[Response]]
"""Answers one message. Never raises but when it is cancelled."""
Refuse: TypeAlias = Callable[[Outgoing, ServingError], Outgoing | None]
"""What is written instead of an answer that the broker will never take; None for nothing."""


class Bridge:
    """`release_s` bounds how long a lane that is given up may keep others waiting. Runs once: make a new one to start again."""

    def __init__(
        self, connector: Connector, address: StreamAddress, respond: Respond, refuse: Refuse, *, release_s: float = 20.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._connector = connector
        self._respond = respond
        self._refuse = refuse
        self._release_s = release_s
        self._monotonic = monotonic
        self._most = address.in_flight
        self._least = max(1, address.in_flight // 8)  # room for one message at a time would be read one message at a time
        self._ahead = max(_LEAST_AHEAD, _AHEAD * address.in_flight)
        self._by_key = address.order == "key"
        self._by_lane = address.order == "lane"
        self._lanes: dict[Lane, Headway] = {}
        self._chains: dict[Hashable, deque[Ticket]] = {}
        self._outbox: list[Letter] = []
        self._answers = asyncio.Event()
        self._room = asyncio.Event()
        self._dirty = asyncio.Event()
        self._committing = asyncio.Lock()
        self._loops: list[asyncio.Task[None]] = []
        self.in_flight = 0
        """Messages taken whose answers are not written."""
        self.opened = False
        self.counts = Counts()
        self._writing_since = 0.0
        self._troubles = {doing: Trouble(address.name, doing) for doing in ("connecting", "reading", "writing", "committing")}

    # --- what the service does ---

    async def run(self) -> None:
        """Read and answer until `drain`. Raises the ServingError of a stream that cannot be opened for a reason that does not pass."""
        opening = self._troubles["connecting"]
        while not self.opened:
            try:
                await self._connector.open(self)
            except Exception as error:
                if isinstance(error, ServingError) and not _passes(error):
                    raise
                await opening.wait(error)
            else:
                self.opened = True
        opening.over()
        loop = asyncio.get_running_loop()
        self._loops = [loop.create_task(each) for each in (self._read(), self._write(), self._commit_again())]
        try:
            done, _ = await asyncio.wait(self._loops, return_when=asyncio.FIRST_EXCEPTION)
            for each in done:
                if not each.cancelled():
                    each.result()
        finally:
            await _ended(self._loops)

    async def drain(self, timeout_s: float) -> None:
        """Take nothing more, finish and commit what was taken for as long as there is time, and close the connector.

        Whoever called `run` cancels it afterwards.
        """
        if self._loops:
            await _ended(self._loops[:1])
            await self._release(list(self._lanes), max(timeout_s - _FAREWELL_S, timeout_s / 2))
            await _ended(self._loops)
        await self._connector.close()

    def trouble(self) -> str:
        """What does not work at the moment, "" for nothing."""
        long_s = self._monotonic() - self._writing_since if self._writing_since else 0.0
        slow = f"writing: the broker has confirmed nothing for {long_s:.0f} s" if long_s >= _LONG_S else ""
        return next((t.shown for t in self._troubles.values() if t.reason), slow)

    # --- what the connector tells: the Reader protocol ---

    async def release(self, lanes: Collection[Lane]) -> None:
        await self._release(lanes, self._release_s)

    def lost(self, lanes: Collection[Lane]) -> None:
        for lane in lanes:
            lane.gone = True
            headway = self._lanes.pop(lane, None)
            if headway is None:
                continue
            for ticket in headway.pending:
                if ticket.unwritten and not ticket.dropped:
                    self._drop(ticket)
            headway.pending.clear()
            headway.idle.set()
            for task in headway.tasks:
                task.cancel()

    async def _release(self, lanes: Collection[Lane], timeout_s: float) -> None:
        mine = {lane: headway for lane in lanes if (headway := self._lanes.get(lane)) is not None}
        for headway in mine.values():
            self._drop_tail(headway)
        try:
            async with asyncio.timeout(timeout_s):
                for headway in mine.values():
                    while headway.pending:
                        headway.idle.clear()
                        await headway.idle.wait()
        except TimeoutError:
            left = sum(len(headway.pending) for headway in mine.values())
            log.warning("%d messages of %s were not answered after %g s and will come again", left, _named(mine), timeout_s)
        try:
            async with asyncio.timeout(_LAST_COMMIT_S):
                await self._commit(mine)
        except (ServingError, TimeoutError) as error:
            why = str(error) or "the broker does not answer"
            log.warning("what was answered of %s could not be committed and will come again: %s", _named(mine), why)
        finally:
            self.lost(lanes)

    def _drop_tail(self, headway: Headway) -> None:
        """Of a lane that is given up, do not begin what nothing that was begun waits for."""
        while headway.pending and not headway.pending[-1].begun:
            ticket = headway.pending.pop()
            self._drop(ticket)

    def _drop(self, ticket: Ticket) -> None:
        ticket.dropped = True
        self.counts.abandoned += 1
        self._left()

    # --- reading ---

    async def _read(self) -> None:
        trouble = self._troubles["reading"]
        while True:
            while self._most - self.in_flight < self._least:
                self._room.clear()
                await self._room.wait()
            paused = [lane for lane, headway in self._lanes.items() if len(headway.pending) >= self._ahead]
            try:
                messages = await self._connector.fetch(self._most - self.in_flight, paused)
            except Exception as error:
                await trouble.wait(error)
                continue
            trouble.over()
            for message in messages:
                self._take(message)

    def _take(self, message: Message) -> None:
        lane = message.lane
        if lane.gone:
            return
        headway = self._lanes.get(lane)
        if headway is None:
            headway = self._lanes[lane] = Headway()
        ticket = Ticket(message, headway)
        headway.pending.append(ticket)
        self.in_flight += 1
        self.counts.taken += 1
        chain: Hashable = None
        if self._by_lane:
            chain = lane
        elif self._by_key and message.key is not None:
            chain = (lane, message.key)
        waiting = self._chains.get(chain) if chain is not None else None
        if waiting is not None:
            waiting.append(ticket)
            return
        first = deque((ticket,))
        if chain is not None:
            self._chains[chain] = first
        task = asyncio.get_running_loop().create_task(self._work(chain, first))
        headway.tasks.add(task)
        task.add_done_callback(headway.tasks.discard)

    # --- answering ---

    async def _work(self, chain: Hashable, tickets: deque[Ticket]) -> None:
        """Answer these one after the other, and what is added to them meanwhile."""
        try:
            while tickets:
                ticket = tickets.popleft()
                if not ticket.dropped:
                    ticket.begun = True
                    self._answered(ticket, await self._respond(ticket.message))
        finally:
            if chain is not None and self._chains.get(chain) is tickets:
                del self._chains[chain]

    def _answered(self, ticket: Ticket, response: Response) -> None:
        if ticket.dropped:
            return
        self.counts.failed += response.failed
        ticket.unwritten = len(response.outgoing)
        if ticket.unwritten:
            self._outbox.extend((ticket, each) for each in response.outgoing)
            self._answers.set()
        else:
            self._done(ticket)

    # --- writing ---

    async def _write(self) -> None:
        while True:
            await self._answers.wait()
            self._answers.clear()
            batch, self._outbox = self._outbox, []
            instead: list[Letter] = []
            for ticket, letter, error in await self._publish(batch):
                other = self._refuse(letter, error)
                if other is not None:
                    instead.append((ticket, other))
                else:
                    self._given_up(ticket, letter, error)
            for ticket, letter, error in await self._publish(instead):
                self._given_up(ticket, letter, error)

    async def _publish(self, batch: list[Letter]) -> list[tuple[Ticket, Outgoing, ServingError]]:
        """Write all of these, however long it takes; returns those that the broker never takes."""
        trouble = self._troubles["writing"]
        while batch := [each for each in batch if not each[0].dropped]:
            self._writing_since = self._monotonic()
            try:
                outcomes = await self._connector.publish([letter for _, letter in batch])
            except Exception as error:
                await trouble.wait(error)
                continue
            finally:
                self._writing_since = 0.0
            trouble.over()
            refused = []
            for (ticket, letter), outcome in zip(batch, outcomes, strict=True):
                if outcome is None:
                    self._written(ticket)
                else:
                    refused.append((ticket, letter, outcome))
            return refused
        return []

    def _given_up(self, ticket: Ticket, letter: Outgoing, error: ServingError) -> None:
        self.counts.unwritten += 1
        log.error("an answer to '%s' cannot be written and is left out: %s", letter.to, error.message)
        self._written(ticket)

    def _written(self, ticket: Ticket) -> None:
        if not ticket.dropped:
            ticket.unwritten -= 1
            if not ticket.unwritten:
                self._done(ticket)

    def _done(self, ticket: Ticket) -> None:
        self.counts.answered += 1
        ticket.message.value = b""  # only its position is of use now, and there may be many behind one that takes long
        self._left()
        headway = ticket.headway
        pending = headway.pending
        if pending[0] is ticket:
            while pending and not pending[0].unwritten:
                headway.upto = pending.popleft().message
            self._dirty.set()
            if not pending:
                headway.idle.set()

    def _left(self) -> None:
        self.in_flight -= 1
        if self._most - self.in_flight >= self._least:
            self._room.set()

    # --- committing ---

    async def _commit_again(self) -> None:
        trouble = self._troubles["committing"]
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            try:
                await self._commit(self._lanes)
            except Exception as error:
                self._dirty.set()
                await trouble.wait(error)
                continue
            trouble.over()
            if self._connector.commit_interval_s:
                await asyncio.sleep(self._connector.commit_interval_s)

    async def _commit(self, lanes: Mapping[Lane, Headway]) -> None:
        async with self._committing:
            upto = {
                lane: headway.upto
                for lane, headway in lanes.items()
                if not lane.gone and headway.upto is not None and headway.upto is not headway.committed
            }
            if upto:
                await self._connector.commit(upto)
                for lane, message in upto.items():
                    if lane in lanes:  # it may have been lost meanwhile
                        lanes[lane].committed = message


def _passes(error: ServingError) -> bool:
    return error.kind is Kind.UNAVAILABLE


def _named(lanes: Collection[Lane]) -> str:
    return ", ".join(sorted(lane.name for lane in lanes))


async def _ended(tasks: "Sequence[asyncio.Task[None]]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
