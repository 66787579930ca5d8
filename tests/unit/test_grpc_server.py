"""The gRPC listener with services of its own, over real sockets on loopback, driven by gRPC's own client (O11, O28, O32)."""

import asyncio
import base64
import importlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio
import pytest
import trustme

from dragoman.core.errors import Kind, ServingError
from dragoman.dialects import Access
from dragoman.dialects.rpc import USUAL_CODE, Code, Method, RpcCall, RpcService
from dragoman.server.grpc import GrpcLimits, GrpcServer, address, credentials
from dragoman.server.grpc_health import HealthService
from dragoman.server.grpc_reflection import ReflectionService
from dragoman.server.guard import Guard
from dragoman.server.listeners import reserved
from dragoman.server.logs import AccessLog
from dragoman.server.loop import new_event_loop
from dragoman.server.settings import Settings
from dragoman.serving.doors import door
from dragoman.serving.passwords import lock_of
from tests.unit.test_doors import ONE, World

health_pb2: Any = importlib.import_module("grpc_health.v1.health_pb2")
reflection_pb2: Any = importlib.import_module("grpc_reflection.v1alpha.reflection_pb2")

T = TypeVar("T")
WAIT_S = 30.0
SMALL = GrpcLimits(max_message_bytes=1 << 16, max_calls=100)


@dataclass
class Probe:
    """A service whose methods show what the listener does. `held` keeps calls waiting until it is set."""

    name: str = "probe.Probe"
    held: asyncio.Event = field(default_factory=asyncio.Event)
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    seen: list[str] = field(default_factory=list)
    calls: list[RpcCall] = field(default_factory=list)
    check: Callable[[], None] = field(default=lambda: None)
    methods: Mapping[str, Method] = field(init=False)

    def __post_init__(self) -> None:
        self.methods = {
            "Echo": Method(Access.INFER, unary=self._echo),
            "Fail": Method(Access.PUBLIC, unary=self._fail),
            "Hold": Method(Access.PUBLIC, unary=self._hold),
            "Change": Method(Access.ADMIN, unary=self._hold),
            "Talk": Method(Access.INFER, stream=self._talk),
        }

    def refuse(self, error: ServingError) -> tuple[Code, str]:
        return USUAL_CODE[error.kind], error.message

    async def _echo(self, message: bytes, call: RpcCall) -> bytes:
        self.calls.append(call)
        self.check()
        return message

    async def _fail(self, message: bytes, call: RpcCall) -> bytes:
        if message == b"bug":
            raise ZeroDivisionError("secret")
        raise ServingError(Kind.OVERLOADED, message.decode())

    async def _hold(self, message: bytes, call: RpcCall) -> bytes:
        self.entered.set()
        try:
            await self.held.wait()
        except asyncio.CancelledError:
            self.seen.append("cancelled")
            raise
        self.seen.append("done")
        return b"held"

    async def _talk(self, messages: AsyncIterator[bytes], call: RpcCall) -> AsyncGenerator[bytes, None]:
        try:
            async for message in messages:
                if message == b"fail":
                    raise ServingError(Kind.NOT_FOUND, "no such word")
                yield message.upper()
        finally:
            self.seen.append("talk ended")


Scenario = Callable[[GrpcServer, Probe, int], Awaitable[None]]


def serve(scenario: Callable[[GrpcServer, Probe, str], Coroutine[Any, Any, T]], **options: Any) -> T:
    """Run a scenario against a listening server, at its address; it is drained at the end."""
    settings: Settings = options.pop("settings", Settings(no_auth=True))
    extra: list[RpcService] = options.pop("services", [])
    shown = options.pop("credentials", None)
    guard: Guard = options.pop("guard", None) or Guard(settings)

    async def run() -> T:
        probe = Probe()
        server = GrpcServer([probe, *extra], guard, options.pop("limits", SMALL), **options)
        (port,) = await server.start([address("127.0.0.1", 0)], shown)
        try:
            async with asyncio.timeout(WAIT_S):
                return await scenario(server, probe, f"127.0.0.1:{port}")
        finally:
            probe.held.set()
            await server.drain(5.0)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(run())


async def call(
    where: str, method: str, message: bytes = b"", *, limit_s: float | None = WAIT_S, metadata: Any = None, **options: Any
) -> bytes:
    async with grpc.aio.insecure_channel(where, **options) as channel:
        answer: bytes = await channel.unary_unary(f"/probe.Probe/{method}")(message, metadata=metadata, timeout=limit_s)
        return answer


async def refused(work: Awaitable[Any]) -> tuple[str, str]:
    """Name and text of the status that a call ends with."""
    try:
        await work
    except grpc.aio.AioRpcError as error:
        return error.code().name, error.details() or ""
    raise AssertionError("the call was answered")


# --- calls ---


def test_a_call_is_answered_and_knows_its_caller() -> None:
    """Bytes in, bytes out; deadline on the monotonic clock; metadata as headers."""

    async def scenario(server: GrpcServer, probe: Probe, where: str) -> None:
        assert await call(where, "Echo", b"\0\xffhello", metadata=[("x-some", "thing"), ("y-bin", b"\xff")], limit_s=20.0) == b"\0\xffhello"
        assert await call(where, "Echo", b"", limit_s=None) == b""
        left_s = probe.calls[0].deadline - time.monotonic()
        assert 0 < left_s < 22  # on its way a time-out is rounded up to two or three digits
        assert {(b"x-some", b"thing"), (b"y-bin", b"\xff")} <= set(probe.calls[0].headers)
        assert probe.calls[1].deadline == float("inf")

    serve(scenario)


def test_errors_are_statuses() -> None:
    """A ServingError by its service's table; anything else says nothing of itself, and is logged."""

    async def scenario(server: GrpcServer, probe: Probe, where: str) -> None:
        assert await refused(call(where, "Fail", "zu viel für mich".encode())) == ("UNAVAILABLE", "zu viel für mich")
        assert await refused(call(where, "Fail", b"bug")) == ("INTERNAL", "internal error")
        assert (await refused(call(where, "Nothing")))[0] == "UNIMPLEMENTED"

    serve(scenario)


@pytest.mark.parametrize("letter", ["a", "é", "%", "日"])
def test_long_texts_are_cut(letter: str) -> None:
    """A status travels in a trailer, for which there is little room; the longer its characters are there, the fewer."""

    async def scenario(server: GrpcServer, probe: Probe, where: str) -> None:
        code, text = await refused(call(where, "Fail", (letter * (60_000 // len(letter.encode()))).encode()))
        assert code == "UNAVAILABLE"
        assert set(text) == {letter}
        assert 300 < len(text) <= 4000

    serve(scenario)


def test_large_messages_are_refused() -> None:
    """RESOURCE_EXHAUSTED above the limit, compressed ones by what they inflate to; answers have no limit (O11)."""

    async def scenario(server: GrpcServer, probe: Probe, where: str) -> None:
        options = [("grpc.max_receive_message_length", -1)]
        limit = SMALL.max_message_bytes
        assert len(await call(where, "Echo", bytes(limit), options=options)) == limit
        assert (await refused(call(where, "Echo", bytes(limit + 1))))[0] == "RESOURCE_EXHAUSTED"
        squeezed = call(where, "Echo", bytes(50 * limit), compression=grpc.Compression.Gzip)
        assert (await refused(squeezed))[0] == "RESOURCE_EXHAUSTED"
        assert await call(where, "Echo", b"a" * 1000, compression=grpc.Compression.Gzip) == b"a" * 1000

    serve(scenario)


def test_a_call_that_is_given_up_is_cancelled() -> None:
    """By its client, or by its deadline; what changes the server goes on."""

    async def scenario(server: GrpcServer, probe: Probe, where: str) -> None:
        async with grpc.aio.insecure_channel(where) as channel:
            waiting = channel.unary_unary("/probe.Probe/Hold")(b"")
            await probe.entered.wait()
            waiting.cancel()
            await until(lambda: probe.seen == ["cancelled"])
            assert await refused(call(where, "Hold", limit_s=0.05)) == ("DEADLINE_EXCEEDED", "Deadline Exceeded")
            await until(lambda: probe.seen == ["cancelled"] * 2)
            probe.entered.clear()
            changing = channel.unary_unary("/probe.Probe/Change")(b"")
            await probe.entered.wait()
            changing.cancel()
        probe.held.set()
        await until(lambda: probe.seen == ["cancelled", "cancelled", "done"])

    serve(scenario)


async def until(true: Callable[[], bool]) -> None:
    while not true():  # the whole scenario has a time-out
        await asyncio.sleep(0.005)


def test_streams() -> None:
    """Answers come while the client still asks; an error ends the call with its status, and a client that leaves ends the method."""

    async def scenario(server: GrpcServer, probe: Probe, where: str) -> None:
        async with grpc.aio.insecure_channel(where) as channel:
            talk = channel.stream_stream("/probe.Probe/Talk")()
            for word in (b"one", b"two"):
                await talk.write(word)
                assert await talk.read() == word.upper()
            await talk.write(b"fail")
            assert await refused(talk.read()) == ("NOT_FOUND", "no such word")
            await until(lambda: probe.seen == ["talk ended"])
            left = channel.stream_stream("/probe.Probe/Talk")()
            await left.write(b"one")
            assert await left.read() == b"ONE"
            left.cancel()
            await until(lambda: probe.seen == ["talk ended"] * 2)

    serve(scenario)


def test_too_many_calls() -> None:
    """One more than the limit is refused, and the others are not."""

    async def scenario(server: GrpcServer, probe: Probe, where: str) -> None:
        async with grpc.aio.insecure_channel(where) as channel:
            held = channel.unary_unary("/probe.Probe/Hold")(b"")
            await probe.entered.wait()
            assert (await refused(call(where, "Echo")))[0] == "RESOURCE_EXHAUSTED"
            probe.held.set()
            assert await held == b"held"

    serve(scenario, limits=replace(SMALL, max_calls=1))


# --- shutdown ---


def test_drain_lets_calls_finish() -> None:
    """What runs is answered, streams end without an error, new calls find nobody (O32)."""

    async def scenario(server: GrpcServer, probe: Probe, where: str) -> None:
        async with grpc.aio.insecure_channel(where) as channel:
            talk = channel.stream_stream("/probe.Probe/Talk")()
            await talk.write(b"one")
            assert await talk.read() == b"ONE"
            held = channel.unary_unary("/probe.Probe/Hold")(b"")
            await probe.entered.wait()
            draining = asyncio.create_task(server.drain(10.0))
            assert await talk.read() is grpc.aio.EOF
            assert (await talk.code()).name == "OK"
            assert (await refused(call(where, "Echo")))[0] == "UNAVAILABLE"
            probe.held.set()
            assert await held == b"held"
            assert await draining == 0

    serve(scenario)


def test_drain_breaks_off_what_does_not_end() -> None:
    """After the time-out, and says how many."""

    async def scenario(server: GrpcServer, probe: Probe, where: str) -> None:
        async with grpc.aio.insecure_channel(where) as channel:
            held = channel.unary_unary("/probe.Probe/Hold")(b"")
            await probe.entered.wait()
            assert await server.drain(0.05) == 1
            assert (await refused(held))[0] in ("UNAVAILABLE", "CANCELLED")
        assert probe.seen == ["cancelled"]

    serve(scenario)


# --- who may call ---


def test_keys(tmp_path: Path) -> None:
    """In metadata as in headers; INFER and ADMIN apart; PUBLIC is for all."""
    guard = Guard(Settings(data_dir=str(tmp_path), require_key=True))
    made = {scope.value: guard._ring.create(scope.value, [scope]) for scope in (Access.INFER, Access.ADMIN)}  # the key file

    async def scenario(server: GrpcServer, probe: Probe, where: str) -> None:
        probe.held.set()
        code, text = await refused(call(where, "Echo"))
        assert (code, "API key" in text) == ("UNAUTHENTICATED", True)
        assert (await refused(call(where, "Echo", metadata=[("authorization", "Bearer wrong")])))[0] == "UNAUTHENTICATED"
        for metadata in ([("authorization", f"Bearer {made['infer']}")], [("x-api-key", made["infer"])]):
            assert await call(where, "Echo", b"x", metadata=metadata) == b"x"
            assert (await refused(call(where, "Change", metadata=metadata)))[0] == "PERMISSION_DENIED"
        assert [each.caller for each in probe.calls] == ["infer", "infer"]
        assert await call(where, "Change", metadata=[("x-api-key", made["admin"])]) == b"held"
        assert await call(where, "Hold") == b"held"

    serve(scenario, settings=Settings(data_dir=str(tmp_path), require_key=True))


def test_passwords_of_deployments() -> None:
    """In metadata as in headers, each call for itself: what one has brought opens nothing for the next."""
    world = World()
    world.wish(ONE, door(lock_of("joe", "secret"), grpc=False))

    async def scenario(server: GrpcServer, probe: Probe, where: str) -> None:
        probe.check = lambda: world.gateway.refuse_locked(ONE)
        basic = [("authorization", "Basic " + base64.b64encode(b"joe:secret").decode())]
        for _ in range(2):
            assert await call(where, "Echo", b"x", metadata=basic) == b"x"
            assert (await refused(call(where, "Echo")))[0] == "UNAUTHENTICATED"

    serve(scenario, guard=Guard(Settings(no_auth=True), world.doors))


def test_tls(tmp_path: Path) -> None:
    """With the files of the command line; a client without a certificate stays out where one is asked for."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca")
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(tmp_path / "key")
    for blob in issued.cert_chain_pems:
        blob.write_to_path(tmp_path / "cert", append=True)
    mine = authority.issue_cert("me@example.org")
    chain = b"".join(blob.bytes() for blob in mine.cert_chain_pems)
    root = authority.cert_pem.bytes()

    async def echo(where: str, given: grpc.ChannelCredentials) -> bytes:
        async with grpc.aio.secure_channel(where, given) as channel:
            answer: bytes = await channel.unary_unary("/probe.Probe/Echo")(b"x", timeout=WAIT_S)
            return answer

    async def scenario(server: GrpcServer, probe: Probe, where: str) -> None:
        known = grpc.ssl_channel_credentials(root, mine.private_key_pem.bytes(), chain)
        assert await echo(where, known) == b"x"
        assert (await refused(echo(where, grpc.ssl_channel_credentials(root))))[0] == "UNAVAILABLE"
        assert (await refused(call(where, "Echo")))[0] == "UNAVAILABLE"

    files = {name: str(tmp_path / name) for name in ("cert", "key", "ca")}
    serve(scenario, credentials=credentials(files["cert"], files["key"], files["ca"]))
    assert credentials("") is None


def test_the_access_log(caplog: pytest.LogCaptureFixture) -> None:
    """One line per call: client, method, status by its name, bytes; the id of a request comes back with the answer."""
    caplog.set_level(logging.INFO, "dragoman.access")

    async def scenario(server: GrpcServer, probe: Probe, where: str) -> None:
        async with grpc.aio.insecure_channel(where) as channel:
            echo = channel.unary_unary("/probe.Probe/Echo")(b"1234", metadata=[("x-request-id", "mine")])
            assert await echo == b"1234"
            assert ("x-request-id", "mine") in list(await echo.trailing_metadata())
        await refused(call(where, "Fail", b"no"))
        await refused(call(where, "Hold", limit_s=0.05))
        await until(lambda: probe.seen == ["cancelled"])

    serve(scenario, on_call=AccessLog(), identified=True)
    lines = [record.getMessage() for record in caplog.records if record.name == "dragoman.access"]
    assert lines[0].startswith("127.0.0.1 GRPC /probe.Probe/Echo OK 4 B ")
    assert lines[1].startswith("127.0.0.1 GRPC /probe.Probe/Fail UNAVAILABLE 0 B ")
    assert lines[2].startswith("127.0.0.1 GRPC /probe.Probe/Hold CANCELLED 0 B ")


# --- ports ---


def test_ports_are_reserved() -> None:
    """0 becomes a free one, which this server's workers share, and no other server gets."""
    with ExitStack() as stack:
        settings = reserved(Settings(grpc_port=(0, 0)), stack)
        first, second = settings.grpc_port
        assert first != second != 0

        async def two() -> None:
            servers = [GrpcServer([Probe()], Guard(Settings(no_auth=True)), SMALL) for _ in range(2)]
            for server in servers:
                assert await server.start([address("127.0.0.1", first)]) == [first]
            assert await call(f"127.0.0.1:{first}", "Echo", b"x") == b"x"
            with ExitStack() as other, pytest.raises(OSError, match=f"port {first}: the port is already in use"):
                reserved(Settings(grpc_port=(first,)), other)
            await asyncio.gather(*(server.drain(1.0) for server in servers))

        asyncio.run(two())


def test_a_port_that_cannot_be_had() -> None:
    """UNAVAILABLE, naming the address."""

    async def listen() -> None:
        server = GrpcServer([], Guard(Settings(no_auth=True)), SMALL)
        await server.start([address("192.0.2.1", 1)])

    with pytest.raises(ServingError, match=r"192\.0\.2\.1:1") as caught:
        asyncio.run(listen())
    assert caught.value.kind is Kind.UNAVAILABLE


@pytest.mark.parametrize(("host", "text"), [("", "[::]:1"), ("::", "[::]:1"), ("::1", "[::1]:1"), ("127.0.0.1", "127.0.0.1:1")])
def test_addresses(host: str, text: str) -> None:
    """As the library writes them."""
    assert address(host, 1) == text


# --- health and reflection ---


def test_health() -> None:
    """Of the server and of each service; Watch tells of changes until the server shuts down (O27)."""
    state = {"ready": True, "draining": False}
    health = HealthService(lambda: state["ready"], lambda: state["draining"], frozenset({"probe.Probe"}))

    async def scenario(server: GrpcServer, probe: Probe, where: str) -> None:
        async with grpc.aio.insecure_channel(where) as channel:
            stub = importlib.import_module("grpc_health.v1.health_pb2_grpc").HealthStub(channel)
            asked = health_pb2.HealthCheckRequest
            serving = health_pb2.HealthCheckResponse
            for name in ("", "probe.Probe", "grpc.health.v1.Health"):
                assert (await stub.Check(asked(service=name))).status == serving.SERVING
            assert await refused(stub.Check(asked(service="none"))) == ("NOT_FOUND", "there is no service 'none'")
            listed = await stub.List(health_pb2.HealthListRequest())
            assert {name: told.status for name, told in listed.statuses.items()} == dict.fromkeys(
                ("", "probe.Probe", "grpc.health.v1.Health"), serving.SERVING
            )
            watched = stub.Watch(asked()).__aiter__()
            assert (await anext(watched)).status == serving.SERVING
            state["ready"] = False
            assert (await anext(watched)).status == serving.NOT_SERVING
            assert (await stub.Check(asked())).status == serving.NOT_SERVING
            unknown = stub.Watch(asked(service="none")).__aiter__()
            assert (await anext(unknown)).status == serving.SERVICE_UNKNOWN
            state["draining"] = True
            assert [answer async for answer in watched] == [answer async for answer in unknown] == []

    serve(scenario, services=[health])


def test_reflection() -> None:
    """Services, files with all that they import, symbols, and an answer for what there is not."""
    names = ["inference.GRPCInferenceService", "grpc.reflection.v1alpha.ServerReflection"]

    async def scenario(server: GrpcServer, probe: Probe, where: str) -> None:
        questions = [
            reflection_pb2.ServerReflectionRequest(host="h", list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="inference.GRPCInferenceService.ModelInfer"),
            reflection_pb2.ServerReflectionRequest(file_by_filename="triton_model_config.proto"),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="no.Such"),
            reflection_pb2.ServerReflectionRequest(all_extension_numbers_of_type="inference.ModelInferRequest"),
            reflection_pb2.ServerReflectionRequest(file_containing_extension={"containing_type": "a.B", "extension_number": 1}),
            reflection_pb2.ServerReflectionRequest(),
        ]
        async with grpc.aio.insecure_channel(where) as channel:
            stub = importlib.import_module("grpc_reflection.v1alpha.reflection_pb2_grpc").ServerReflectionStub(channel)
            answers = [answer async for answer in stub.ServerReflectionInfo(iter(questions))]
        assert [answer.original_request for answer in answers] == questions
        assert answers[0].valid_host == "h"
        assert [service.name for service in answers[0].list_services_response.service] == sorted(names)
        described = importlib.import_module("google.protobuf.descriptor_pb2").FileDescriptorProto
        files = [described.FromString(blob).name for blob in answers[1].file_descriptor_response.file_descriptor_proto]
        assert files == ["inference_service.proto", "triton_model_config.proto"]
        assert len(answers[2].file_descriptor_response.file_descriptor_proto) == 1
        assert [answers[index].error_response.error_code for index in (3, 5, 6)] == [5, 5, 3]
        assert answers[4].all_extension_numbers_response.base_type_name == "inference.ModelInferRequest"

    serve(scenario, services=[ReflectionService("v1alpha", names)])
