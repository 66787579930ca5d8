"""The calls to Kinesis that a stream needs, with their failures in our words, and the writing of records. Used by kinesis.py.

Credentials come from where AWS's own tools take them: variables, profiles, roles of machines and containers. botocore repeats nothing here, so
that every wait and every repetition is one of ours.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any

import aiobotocore.session
from aiobotocore.config import AioConfig
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
)
from botocore.loaders import create_loader

from dragoman.core.errors import Kind, ServingError
from dragoman.streams.kinesis_shards import Shard, Start

_THROTTLED = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "LimitExceededException",
        "ThrottlingException",
        "Throttling",
        "RequestLimitExceeded",
        "KMSThrottlingException",
    }
)
_STRANGER = frozenset(
    {
        "UnrecognizedClientException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "IncompleteSignature",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
    }
)
_FORBIDDEN = frozenset({"AccessDeniedException", "AccessDenied", "KMSAccessDeniedException", "OptInRequired"})
_WRONG = frozenset({"ValidationException", "InvalidArgumentException", "SerializationException"})
_MOST_RECORDS = 500
_MOST_BYTES = 4_500_000
"""Of one PutRecords; Kinesis takes 5 MiB, keys included."""
_LARGEST = 1 << 20
"""Of one record, its key included."""
_LONGEST_KEY = 256
_PATIENCE_S = 30.0
"""So long records that a stream has no room for are tried again, before the whole is said to have failed."""
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 3.0
_CONNECT_S, _READ_S = 5, 30


class ExpiredError(Exception):
    """An iterator is older than five minutes: get a new one."""


class ThrottledError(Exception):
    """Too much was asked for: wait a little."""


@dataclass(frozen=True, slots=True)
class Records:
    """One answer of GetRecords."""

    records: Sequence[Mapping[str, Any]]
    iterator: str | None
    """For the next call; None behind the last record of a shard that is closed."""
    behind_ms: int


@dataclass(frozen=True, slots=True)
class Entry:
    key: str
    value: bytes


class Client:
    """Talks about one input stream; writes to any."""

    def __init__(self, client: Any, stream: str) -> None:
        self._client = client
        self._stream = stream

    async def described(self) -> tuple[str, float]:
        """When the stream was made, as a text that a stream of the same name that is made later does not have; and now, by Kinesis' clock."""
        answer = await self._call("describe_stream_summary", StreamName=self._stream)
        made = answer["StreamDescriptionSummary"]["StreamCreationTimestamp"].timestamp()
        date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        now = parsedate_to_datetime(date).timestamp() if date else made
        return f"{made:.3f}", now

    async def shards(self) -> list[Shard]:
        """All that Kinesis still has records of."""
        answer = await self._call("list_shards", StreamName=self._stream)
        found = list(answer["Shards"])
        while token := answer.get("NextToken"):
            answer = await self._call("list_shards", NextToken=token)
            found += answer["Shards"]
        return [_shard(each) for each in found]

    async def iterator(self, shard: str, sequence: str, start: Start) -> str:
        """To the first record after this one, "" for where the reading of the stream started."""
        if sequence:
            where: dict[str, Any] = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": sequence}
        elif start.timestamp is None:
            where = {"ShardIteratorType": "TRIM_HORIZON"}
        else:
            where = {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": start.timestamp}
        answer = await self._call("get_shard_iterator", StreamName=self._stream, ShardId=shard, **where)
        return str(answer["ShardIterator"])

    async def records(self, iterator: str, most: int) -> Records:
        """Raises ExpiredError and ThrottledError beside ServingError."""
        answer = await self._call("get_records", ShardIterator=iterator, Limit=most)
        return Records(answer["Records"], answer.get("NextShardIterator") or None, int(answer.get("MillisBehindLatest") or 0))

    async def put(self, stream: str, entries: Sequence[Entry]) -> list[ServingError | None]:
        """Write, in order where keys are equal. One outcome each; raises UNAVAILABLE when some could not be written for long."""
        outcomes = [_refusal(entry, stream) for entry in entries]
        for wave in _waves(entries, outcomes):
            for part in _parts(wave, entries):
                await self._put(stream, part, entries, outcomes)
        return outcomes

    async def _put(self, stream: str, part: list[int], entries: Sequence[Entry], outcomes: list[ServingError | None]) -> None:
        deadline = asyncio.get_running_loop().time() + _PATIENCE_S
        wait_s = _FIRST_WAIT_S
        while part:
            records = [{"Data": entries[index].value, "PartitionKey": entries[index].key} for index in part]
            reason = "it has no room for more"
            try:
                answer = await self._call("put_records", stream=stream, StreamName=stream, Records=records)
            except ThrottledError:
                pass
            except ServingError as error:
                if error.kind is not Kind.INVALID_INPUT or len(part) > 1:
                    if error.kind is Kind.INVALID_INPUT:  # one of them is bad, and Kinesis does not say which
                        for index in part:
                            await self._put(stream, [index], entries, outcomes)
                        return
                    raise
                outcomes[part[0]] = error
                return
            else:
                failed = [(index, each["ErrorCode"]) for index, each in zip(part, answer["Records"], strict=True) if each.get("ErrorCode")]
                if failed:
                    reason = failed[0][1]
                part = [index for index, _ in failed]
                if not part:
                    return
            if asyncio.get_running_loop().time() > deadline:
                raise ServingError(Kind.UNAVAILABLE, f"the stream '{stream}' does not take {len(part)} records ({reason})")
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    async def _call(self, operation: str, *, stream: str = "", **given: Any) -> Any:
        try:
            return await getattr(self._client, operation)(**given)
        except ClientError as error:
            raise _failure(error, stream or self._stream) from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            words = "there are no credentials for Kinesis: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
            raise ServingError(Kind.UNAUTHENTICATED, words) from error
        except ParamValidationError as error:
            raise ServingError(Kind.INVALID_INPUT, f"'{(stream or self._stream)[:200]}' is not what Kinesis takes") from error
        except (BotoCoreError, OSError, TimeoutError) as error:
            raise ServingError(Kind.UNAVAILABLE, f"Kinesis cannot be reached ({type(error).__name__})") from error


@asynccontextmanager
async def connected(stream: str, region: str, endpoint: str) -> AsyncIterator[Client]:
    """A client; nothing is sent yet. Raises INVALID_INPUT where it is not clear which region is meant."""
    config = AioConfig(connect_timeout=_CONNECT_S, read_timeout=_READ_S, retries={"total_max_attempts": 1}, max_pool_connections=64)
    session = aiobotocore.session.get_session()
    session.register_component("data_loader", await asyncio.to_thread(_descriptions))
    try:
        made = session.create_client(
            "kinesis", region_name=region or None, endpoint_url=endpoint or None, config=config
        )  # fmt: skip
        client = await made.__aenter__()
    except NoRegionError as error:
        raise ServingError(Kind.INVALID_INPUT, f"the stream '{stream}' needs its region: say region=NAME or set AWS_REGION") from error
    except ProfileNotFound as error:
        raise ServingError(Kind.UNAUTHENTICATED, "the profile that AWS_PROFILE names does not exist") from error
    except (BotoCoreError, ValueError) as error:
        raise ServingError(Kind.INVALID_INPUT, f"the stream '{stream}' has an endpoint or region that cannot be used") from error
    try:
        yield Client(client, stream)
    finally:
        await made.__aexit__(None, None, None)


@cache
def _descriptions() -> Any:
    """What botocore knows of Kinesis and its places: files that take 0.3 s to read, which it would read on the loop and for each client."""
    loader = create_loader()
    loader.load_service_model("kinesis", "service-2")
    loader.load_service_model("kinesis", "endpoint-rule-set-1")
    for name in ("endpoints", "partitions", "sdk-default-configuration", "_retry"):
        loader.load_data(name)
    return loader


def _shard(found: Mapping[str, Any]) -> Shard:
    parents = [found[name] for name in ("ParentShardId", "AdjacentParentShardId") if found.get(name)]
    return Shard(found["ShardId"], tuple(parents), "EndingSequenceNumber" in found["SequenceNumberRange"])


def _refusal(entry: Entry, stream: str) -> ServingError | None:
    size = len(entry.value) + len(entry.key.encode())
    if size > _LARGEST:
        return ServingError(Kind.TOO_LARGE, f"a record of {size} bytes is too large for the stream '{stream}': Kinesis takes {_LARGEST}")
    if not 1 <= len(entry.key) <= _LONGEST_KEY:
        return ServingError(Kind.INVALID_INPUT, f"a partition key of {len(entry.key)} characters is not for Kinesis: 1 to {_LONGEST_KEY}")
    return None


def _waves(entries: Sequence[Entry], outcomes: Sequence[ServingError | None]) -> list[list[int]]:
    """Indexes such that equal keys are in different waves: Kinesis keeps no order within one call, and may take the second and not the first."""
    seen: dict[str, int] = {}
    waves: list[list[int]] = []
    for index, entry in enumerate(entries):
        if outcomes[index] is None:
            number = seen[entry.key] = seen.get(entry.key, -1) + 1
            if number == len(waves):
                waves.append([])
            waves[number].append(index)
    return waves


def _parts(wave: Sequence[int], entries: Sequence[Entry]) -> Iterator[list[int]]:
    part: list[int] = []
    size = 0
    for index in wave:
        more = len(entries[index].value) + len(entries[index].key.encode())
        if part and (len(part) == _MOST_RECORDS or size + more > _MOST_BYTES):
            yield part
            part, size = [], 0
        part.append(index)
        size += more
    if part:
        yield part


def _failure(error: Any, stream: str) -> Exception:
    code = str(error.response.get("Error", {}).get("Code", ""))
    if code in _THROTTLED:
        return ThrottledError(code)
    if code == "ExpiredIteratorException":
        return ExpiredError(code)
    if code in _STRANGER:
        return ServingError(Kind.UNAUTHENTICATED, f"Kinesis does not accept the credentials of this server ({code})")
    if code in _FORBIDDEN:
        return ServingError(Kind.FORBIDDEN, f"Kinesis does not allow this server what it needs of the stream '{stream}' ({code})")
    if code in _WRONG:
        words = str(error.response["Error"].get("Message", ""))[:200]
        return ServingError(Kind.INVALID_INPUT, f"Kinesis refuses a call about the stream '{stream}' ({code}: {words})")
    if code == "ResourceNotFoundException":
        return ServingError(Kind.UNAVAILABLE, f"there is no stream '{stream}', or no such shard of it")
    return ServingError(Kind.UNAVAILABLE, f"Kinesis fails for the stream '{stream}' ({code or 'no reason'})")
