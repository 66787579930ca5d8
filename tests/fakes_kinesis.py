"""Kinesis in this process, for what a stand-in server elsewhere does not do: shards that end, iterators that expire, calls and records that fail.

It speaks the JSON protocol over HTTP to whatever client; what a test sees is what Kinesis says of itself in its reference.
"""

import base64
import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

_ALL = 1 << 128


@dataclass
class FakeShard:
    id: str
    low: int
    high: int
    parents: tuple[str, ...] = ()
    records: list[tuple[int, str, bytes, float]] = field(default_factory=list)
    """Sequence number, partition key, data, time of arrival."""
    children: list["FakeShard"] = field(default_factory=list)

    @property
    def listed(self) -> dict[str, Any]:
        found: dict[str, Any] = {"ShardId": self.id, "HashKeyRange": {"StartingHashKey": str(self.low), "EndingHashKey": str(self.high)}}
        found["SequenceNumberRange"] = {"StartingSequenceNumber": "0"} | ({"EndingSequenceNumber": "9"} if self.children else {})
        found |= dict(zip(("ParentShardId", "AdjacentParentShardId"), self.parents, strict=False))
        return found


class FakeKinesis:
    """`fail(operation, *codes)` makes the next calls of an operation fail; `refuse` the next records that are put. A context manager."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.created = time.time()
        self.streams: dict[str, dict[str, FakeShard]] = {}
        self.calls: Counter[str] = Counter()
        self._failures: dict[str, list[str]] = {}
        self._refusals: list[bool] = []
        self._generation = 0
        self._sequence = 10**55
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                operation = self.headers["X-Amz-Target"].rpartition(".")[2]
                status, answer = fake.answer(operation, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                body = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 # the name that it has there
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    # --- what tests do ---

    def stream(self, name: str, shards: int = 1) -> None:
        self.streams[name] = {}
        for index in range(shards):
            self._add(name, index * _ALL // shards, (index + 1) * _ALL // shards - 1)

    def _add(self, stream: str, low: int, high: int, *parents: str) -> FakeShard:
        with self._lock:
            shard = FakeShard(f"shardId-{len(self.streams[stream]):012}", low, high, parents)
            self.streams[stream][shard.id] = shard
            return shard

    def split(self, stream: str, shard: str) -> None:
        with self._lock:
            parent = self.streams[stream][shard]
            middle = (parent.low + parent.high) // 2
            parent.children = [self._add(stream, parent.low, middle, shard), self._add(stream, middle + 1, parent.high, shard)]

    def merge(self, stream: str, first: str, second: str) -> None:
        with self._lock:
            one, other = self.streams[stream][first], self.streams[stream][second]
            one.children = other.children = [self._add(stream, min(one.low, other.low), max(one.high, other.high), first, second)]

    def put(self, stream: str, *values: Any, key: str = "k") -> None:
        for value in values:
            self._put(stream, key, json.dumps(value).encode())

    def _put(self, stream: str, key: str, data: bytes) -> tuple[str, str]:
        hashed = int.from_bytes(hashlib.md5(key.encode(), usedforsecurity=False).digest())
        with self._lock:
            shard = next(s for s in self.streams[stream].values() if not s.children and s.low <= hashed <= s.high)
            self._sequence += 1
            shard.records.append((self._sequence, key, data, time.time()))
            return str(self._sequence), shard.id

    def values(self, stream: str) -> list[Any]:
        with self._lock:
            return [json.loads(data) for shard in self.streams[stream].values() for _, _, data, _ in shard.records]

    def fail(self, operation: str, *codes: str) -> None:
        self._failures[operation] = list(codes)

    def refuse(self, *which: bool) -> None:
        """Of the next records, in the order of their arrival, those for which this is true."""
        self._refusals = list(which)

    def expire(self) -> None:
        """Every iterator that was given out."""
        self._generation += 1

    # --- what clients get ---

    def answer(self, operation: str, given: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        with self._lock:
            self.calls[operation] += 1
            if failures := self._failures.get(operation):
                return 400, {"__type": failures.pop(0), "message": "as the test wants it"}
            if given.get("StreamName", next(iter(self.streams), "")) not in self.streams:
                return 400, {"__type": "ResourceNotFoundException", "message": "no such stream"}
            answers: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
                "DescribeStreamSummary": self._describe,
                "ListShards": self._list,
                "GetShardIterator": self._iterator,
                "GetRecords": self._records,
                "PutRecords": self._put_records,
            }
            try:
                return 200, answers[operation](given)
            except TimeoutError:
                return 400, {"__type": "ExpiredIteratorException", "message": "too old"}

    def _describe(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"StreamDescriptionSummary": {"StreamName": given["StreamName"], "StreamCreationTimestamp": self.created}}

    def _list(self, given: dict[str, Any]) -> dict[str, Any]:
        """One shard a page, so that nobody forgets to turn it."""
        stream, _, start = given.get("NextToken", f"{given.get('StreamName')}/0").rpartition("/")
        shards = list(self.streams[stream].values())
        more = {"NextToken": f"{stream}/{int(start) + 1}"} if int(start) + 1 < len(shards) else {}
        return {"Shards": [shards[int(start)].listed], **more}

    def _iterator(self, given: dict[str, Any]) -> dict[str, Any]:
        records = self.streams[given["StreamName"]][given["ShardId"]].records
        kind = given["ShardIteratorType"]
        index = 0
        if kind == "AFTER_SEQUENCE_NUMBER":
            index = sum(1 for record in records if record[0] <= int(given["StartingSequenceNumber"]))
        elif kind == "AT_TIMESTAMP":
            index = sum(1 for record in records if record[3] < given["Timestamp"])
        return {"ShardIterator": f"{self._generation}/{given['StreamName']}/{given['ShardId']}/{index}"}

    def _records(self, given: dict[str, Any]) -> dict[str, Any]:
        generation, stream, shard_id, index = given["ShardIterator"].split("/")
        if int(generation) != self._generation:
            raise TimeoutError
        shard, start = self.streams[stream][shard_id], int(index)
        found = shard.records[start : start + given["Limit"]]
        end = start + len(found)
        left = len(shard.records) - end
        answer: dict[str, Any] = {"MillisBehindLatest": 1000 * left}
        answer["Records"] = [
            {"SequenceNumber": str(number), "PartitionKey": key, "Data": base64.b64encode(data).decode()} for number, key, data, _ in found
        ]
        if not shard.children or left:
            answer["NextShardIterator"] = f"{generation}/{stream}/{shard_id}/{end}"
        return answer

    def _put_records(self, given: dict[str, Any]) -> dict[str, Any]:
        answers: list[dict[str, Any]] = []
        for record in given["Records"]:
            if self._refusals and self._refusals.pop(0):
                answers.append({"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "slow down"})
            else:
                number, shard = self._put(given["StreamName"], record["PartitionKey"], base64.b64decode(record["Data"]))
                answers.append({"SequenceNumber": number, "ShardId": shard})
        return {"FailedRecordCount": sum("ErrorCode" in each for each in answers), "Records": answers}
