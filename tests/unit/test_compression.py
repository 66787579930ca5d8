"""Content-Encoding both ways: whatever comes is inflated to what was meant, or refused; nothing grows beyond its limit."""

import asyncio
import gzip
import zlib
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.errors import Kind, ServingError
from dragoman.dialects.compression import OFF_LOOP_FROM, deflate, deflated, inflate, inflated

LIMIT = 8 << 20
PACK: dict[bytes, Callable[[bytes], bytes]] = {b"gzip": gzip.compress, b"x-gzip": gzip.compress, b"deflate": zlib.compress}
NOISE = Random(1).randbytes(3 << 20)


def refusal(body: bytes, encoding: bytes, limit: int = LIMIT) -> ServingError:
    with pytest.raises(ServingError) as caught:
        inflate(body, encoding, limit)
    return caught.value


@pytest.mark.parametrize("encoding", PACK)
@pytest.mark.parametrize(
    "plain", [b"", b"x", b"x" * (1 << 18), b"x" * ((1 << 18) + 1), b"ab" * (2 << 20), b"ab" * (3 << 20), NOISE], ids=len
)
def test_what_was_packed_comes_back(encoding: bytes, plain: bytes) -> None:
    """Of any size: in one step or many, from a body of one piece or many."""
    assert inflate(PACK[encoding](plain), encoding, LIMIT) == plain
    assert inflate(PACK[encoding](plain), encoding.upper() + b" ", LIMIT) == plain


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=30), st.integers(0, 9))
def test_members_stand_behind_one_another(parts: list[bytes], level: int) -> None:
    """A gzip body may have several, empty ones too."""
    assert inflate(b"".join([gzip.compress(part, level) for part in parts]), b"gzip", LIMIT) == b"".join(parts)


def test_members_across_the_pieces_in_which_a_body_is_fed() -> None:
    """Wherever one ends, the next one is found."""
    for size in range(65_400, 65_600, 7):
        body = gzip.compress(NOISE[:size], 0) + gzip.compress(b"end")
        assert inflate(body, b"gzip", LIMIT) == NOISE[:size] + b"end"


def test_a_body_of_nothing_but_members_is_refused() -> None:
    """Each costs time and gives nothing."""
    empty = gzip.compress(b"")
    assert inflate(empty * 10_000, b"gzip", LIMIT) == b""
    error = refusal(empty * 10_001, b"gzip")
    assert error.kind is Kind.INVALID_INPUT
    assert "members" in error.message


@pytest.mark.parametrize("encoding", PACK)
@pytest.mark.parametrize("plain", [b"", b"hello", b"x" * 500_000, NOISE[:200_000]], ids=len)
def test_every_truncated_body_is_refused(encoding: bytes, plain: bytes) -> None:
    """The end is part of it."""
    body = PACK[encoding](plain)
    for length in {0, 1, 5, len(body) // 2, len(body) - 8, len(body) - 4, len(body) - 1} - {len(body)}:
        error = refusal(body[: max(0, length)], encoding)
        assert error.kind is Kind.INVALID_INPUT
        assert encoding.decode() in error.message


def test_what_follows_is_refused() -> None:
    """Junk is no second member, and deflate has no members."""
    for body, encoding in ((gzip.compress(b"x") + b"junk", b"gzip"), (zlib.compress(b"x") * 2, b"deflate"), (b"junk", b"gzip")):
        assert refusal(body, encoding).kind is Kind.INVALID_INPUT


@pytest.mark.parametrize("encoding", PACK)
def test_the_limit_is_exact(encoding: bytes) -> None:
    """As many bytes as allowed, and not one more; also where they come in many steps."""
    for limit in (1, 1_000, 1 << 18, (1 << 18) + 1, 1 << 20, (1 << 20) + 1, 3 << 20):
        assert len(inflate(PACK[encoding](bytes(limit)), encoding, limit)) == limit
        assert refusal(PACK[encoding](bytes(limit + 1)), encoding, limit).kind is Kind.TOO_LARGE
    assert inflate(PACK[encoding](b""), encoding, 0) == b""
    assert refusal(PACK[encoding](b"x"), encoding, 0).kind is Kind.TOO_LARGE


@given(st.binary(max_size=2_000), st.sampled_from([*PACK, b"br", b"\xff", b"identity", b""]))
def test_nothing_but_a_refusal_comes_of_any_body(body: bytes, encoding: bytes) -> None:
    """Random bytes are not what they say they are, and that is all."""
    kind = None
    try:
        inflate(body, encoding, LIMIT)
    except ServingError as error:
        kind = error.kind
    assert kind in (None, Kind.INVALID_INPUT, Kind.UNSUPPORTED)


def test_large_and_small_bodies_take_the_same_way() -> None:
    """Whether in a thread or not: the same results, the same refusals."""

    async def check() -> None:
        for plain in (b"", b"hello", NOISE[: 2 * OFF_LOOP_FROM]):
            for encoding in (b"gzip", b"deflate"):
                packed = await deflated(plain, encoding)
                assert packed == deflate(plain, encoding)
                assert await inflated(packed, encoding, LIMIT) == plain
            assert await inflated(plain, None, LIMIT) == plain
        with pytest.raises(ServingError):
            await inflated(NOISE[: 2 * OFF_LOOP_FROM], b"gzip", LIMIT)

    asyncio.run(check())
