"""The Open Inference Protocol over gRPC, from the real command: tritonclient.grpc (blocking, asyncio, streams), KServe's own clients, health,
reflection (O11, O27 to O29, O32)."""

import asyncio
import importlib
import json
import queue
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
import trustme
from tritonclient.utils import InferenceServerException

from tests import clients
from tests.e2e.crowd import until
from tests.e2e.running import Running, run, serving
from tests.e2e.test_oip import ROW, repository
from tests.models import build, learned, snippets

COUNTER = """
from collections.abc import Iterator

def predict(upto: int) -> Iterator[int]:
    for number in range(upto):
        yield number
"""
GREETER = """
def predict(name: str, times: int = 1) -> dict:
    return {"text": f"Hello {name}" * times, "length": len(name)}
"""
WAIT_S = 60.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("oip_grpc")
    root = repository(folder / "models")
    build.add_sub(root / "spare" / "1" / "model.onnx")
    flowers = learned.write(folder / "flowers.skops", learned.skops_of(learned.classifier()))
    counter = snippets.write(folder / "counter", COUNTER).parent
    greeter = snippets.write(folder / "greeter", GREETER).parent
    targets = [str(path) for path in (root, flowers, counter, greeter)]
    with serving(folder, *targets, "--grpc-port", "0", "--max-body", "70MB") as running:
        yield running


@pytest.fixture
def client(server: Running) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.grpc) as made:
        yield made


def given(name: str, array: Any, datatype: str) -> triton.InferInput:
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


def flowers(*rows: list[float]) -> triton.InferInput:
    return given("X", np.array(rows, "f4"), "FP32")


@contextmanager
def refused(status: str, text: str = "") -> Iterator[None]:
    """A call that ends with a status of that name."""
    with pytest.raises(InferenceServerException) as caught:
        yield
    assert caught.value.status() == f"StatusCode.{status}", caught.value
    assert text in caught.value.message()


# --- one call ---


def test_health_and_metadata(server: Running, client: triton.InferenceServerClient) -> None:
    """O27: every call of tritonclient that tells something, in the words that REST has."""
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("iris")
    assert not client.is_model_ready("nothing")
    assert client.get_server_metadata().name == "dragoman"
    model = client.get_model_metadata("iris", as_json=True)
    assert model["versions"] == ["1", "3"]
    assert model["inputs"] == [{"name": "X", "datatype": "FP32", "shape": ["-1", "4"]}]
    assert client.get_model_config("iris").config.dynamic_batching.preferred_batch_size == [4, 8]
    assert {row.name: row.state for row in client.get_model_repository_index().models}["iris"] == "READY"
    with refused("NOT_FOUND", "nothing"):
        client.get_model_metadata("nothing")


def test_inference(client: triton.InferenceServerClient) -> None:
    """O28: numbers, versions, chosen outputs, classes with labels, an ensemble, text, half precision and NaN."""
    result = client.infer("iris", [flowers(ROW, [6.5, 3.0, 5.6, 2.0])], request_id="one")
    assert result.as_numpy("label").ravel().tolist() == [0, 2]
    assert (result.get_response().id, result.get_response().model_version) == ("one", "3")
    assert client.infer("iris", [flowers(ROW)], model_version="1").get_response().model_version == "1"
    best = client.infer("iris", [flowers(ROW)], outputs=[triton.InferRequestedOutput("probabilities", class_count=2)])
    assert [text.decode().split(":")[2] for text in best.as_numpy("probabilities")[0]] == ["setosa", "versicolor"]
    ones = np.ones((1, 16), "i4")
    assert client.infer("twice", [given("A", ones, "INT32"), given("B", ones, "INT32")]).as_numpy("R").tolist() == [[2] * 16]
    words = np.array([["a", "é"], ["", "x y"]], object)
    assert client.infer("text", [given("x", words, "BYTES")]).as_numpy("y").tolist() == [[b"a", "é".encode()], [b"", b"x y"]]
    halves = np.array([[np.nan, -np.inf, 0.5]], "f2")
    np.testing.assert_array_equal(client.infer("halves", [given("x", halves, "FP16")]).as_numpy("y"), halves)


def test_every_kind_of_model_answers(client: triton.InferenceServerClient) -> None:
    """A pipeline of scikit-learn and a function of rows, by what their metadata say."""
    (spec,) = client.get_model_metadata("flowers").inputs
    answer = client.infer("flowers", [given(spec.name, np.array([ROW], np.float64 if spec.datatype == "FP64" else "f4"), spec.datatype)])
    assert answer.get_response().outputs
    names = {spec.name: spec.datatype for spec in client.get_model_metadata("greeter").inputs}
    assert names == {"name": "BYTES", "times": "INT64"}
    inputs = [given("name", np.array([["Ada"], ["Bo"]], object), "BYTES"), given("times", np.array([[1], [2]], "i8"), "INT64")]
    answer = client.infer("greeter", inputs)
    assert answer.as_numpy("text").ravel().tolist() == [b"Hello Ada", b"Hello BoHello Bo"]
    assert answer.as_numpy("length").ravel().tolist() == [3, 2]


def test_errors_have_statuses(client: triton.InferenceServerClient) -> None:
    """O28: whose doing it was, and the text that REST has."""
    with refused("NOT_FOUND", "model 'none' is not known"):
        client.infer("none", [flowers(ROW)])
    with refused("NOT_FOUND", "has no version '9'"):
        client.infer("iris", [flowers(ROW)], model_version="9")
    with refused("INVALID_ARGUMENT", "X"):
        client.infer("iris", [given("X", np.ones((1, 5), "f4"), "FP32")])
    with refused("INVALID_ARGUMENT", "9"):
        client.infer("iris", [flowers(*[ROW] * 9)])
    with refused("INVALID_ARGUMENT", "nope"):
        client.infer("iris", [flowers(ROW)], outputs=[triton.InferRequestedOutput("nope")])
    with refused("UNIMPLEMENTED", "no shared memory"):
        client.get_system_shared_memory_status()
    assert client.infer("iris", [flowers(ROW)], timeout=5_000_000, priority=1).as_numpy("label").tolist() == [[0]]


def test_large_messages(client: triton.InferenceServerClient) -> None:
    """O11: 64 MiB there and back, far above gRPC's own limit; above the server's limit RESOURCE_EXHAUSTED, and the connection goes on."""
    values = np.random.default_rng(1).random((1, 16 << 20), np.float32)
    np.testing.assert_array_equal(client.infer("floats", [given("x", values, "FP32")]).as_numpy("y"), values)
    with refused("RESOURCE_EXHAUSTED"):
        client.infer("floats", [given("x", np.zeros((1, 18 << 20), "f4"), "FP32")])
    small = np.zeros((1, 1000), "f4")
    assert client.infer("floats", [given("x", small, "FP32")], compression_algorithm="gzip").as_numpy("y").tolist() == small.tolist()


def test_statistics_and_settings(client: triton.InferenceServerClient) -> None:
    """Counters of both protocols are one; settings are read and changed."""
    before = client.get_inference_statistics("sums").model_stats[0].inference_count
    ones = np.ones((3, 16), "i4")
    client.infer("sums", [given("INPUT0", ones, "INT32"), given("INPUT1", ones, "INT32")])
    assert client.get_inference_statistics("sums").model_stats[0].inference_count == before + 3
    changed = client.update_trace_settings("sums", {"trace_rate": "7"})
    assert list(changed.settings["trace_rate"].value) == ["7"]
    assert list(client.update_trace_settings("sums", {"trace_rate": None}).settings["trace_rate"].value) == ["1000"]
    assert client.get_log_settings().settings["log_error"].bool_param


def test_load_and_unload(client: triton.InferenceServerClient) -> None:
    """O18: over gRPC, with a configuration and files in the request, too."""
    client.unload_model("spare")
    until(lambda: not client.is_model_ready("spare"))
    ones = [given(name, np.ones((1, 16), "i4"), "INT32") for name in ("INPUT0", "INPUT1")]
    with refused("UNAVAILABLE", "spare"):
        client.infer("spare", ones)
    client.load_model("spare")
    assert client.infer("spare", ones).as_numpy("OUTPUT0").tolist() == [[2] * 16]
    with refused("NOT_FOUND", "unknown-model"):
        client.load_model("unknown-model")
    with refused("INVALID_ARGUMENT"):
        client.load_model("evil", config="{}", files={"file:../../evil": b"x"})


def test_files_come_with_a_load(client: triton.InferenceServerClient, tmp_path: Path) -> None:
    """As bytes, where REST has base64."""
    content = build.add_sub(tmp_path / "source.onnx").read_bytes()
    client.load_model("fresh", config=json.dumps({"backend": "onnxruntime", "max_batch_size": 4}), files={"file:1/model.onnx": content})
    assert client.get_model_config("fresh").config.max_batch_size == 4


# --- streams ---


class Stream:
    """A stream of tritonclient, with its answers in a queue."""

    def __init__(self, client: triton.InferenceServerClient) -> None:
        self._answers: queue.Queue[tuple[Any, InferenceServerException | None]] = queue.Queue()
        self._client = client
        client.start_stream(callback=lambda result, error: self._answers.put((result, error)))

    def ask(self, model: str, *inputs: triton.InferInput, **options: Any) -> None:
        self._client.async_stream_infer(model, list(inputs), **options)

    def answer(self) -> Any:
        result, error = self._answers.get(timeout=WAIT_S)
        return error or result

    def part(self) -> tuple[list[int], bool]:
        """The numbers of the next part, and whether it is the last."""
        response = self.answer().get_response()
        flag = response.parameters["triton_final_response"].bool_param
        return [int(x) for raw in response.raw_output_contents for x in np.frombuffer(raw, "i8")], flag


def test_a_stream_of_requests(client: triton.InferenceServerClient) -> None:
    """O28: answers in the order of the requests; a bad one is an error, and the stream lives on."""
    stream = Stream(client)
    for index in range(50):
        stream.ask("iris", flowers([float(index), 0.0, 0.0, 0.0]), request_id=str(index))
    assert [stream.answer().get_response().id for _ in range(50)] == [str(index) for index in range(50)]
    stream.ask("none", flowers(ROW))
    stream.ask("iris", flowers(ROW), request_id="after")
    failed = stream.answer()
    assert isinstance(failed, InferenceServerException)
    assert "model 'none' is not known" in failed.message()
    assert stream.answer().get_response().id == "after"
    client.stop_stream()


def test_a_model_that_answers_in_parts(client: triton.InferenceServerClient) -> None:
    """O27: each part as it comes, the end told by the last one or by an answer of its own; two requests of one stream do not mix."""
    stream = Stream(client)
    stream.ask("counter", given("upto", np.array([[3]], "i8"), "INT64"))
    stream.ask("counter", given("upto", np.array([[2]], "i8"), "INT64"), enable_empty_final_response=True)
    assert [stream.part() for _ in range(3)] == [([0], False), ([1], False), ([2], True)]
    assert [stream.part() for _ in range(3)] == [([0], False), ([1], False), ([], True)]
    client.stop_stream()


def test_asyncio_client(server: Running) -> None:
    """O29: calls at the same time, and a stream."""

    async def work() -> None:
        async with triton_aio.InferenceServerClient(server.grpc) as client:
            assert await client.is_server_ready()
            answers = await asyncio.gather(*(client.infer("iris", [flowers(ROW)], request_id=str(index)) for index in range(20)))
            assert [answer.get_response().id for answer in answers] == [str(index) for index in range(20)]

            async def asked() -> Any:
                for _ in range(3):
                    yield {"model_name": "iris", "inputs": [flowers(ROW)]}

            got = [answer async for answer in client.stream_infer(asked())]
            assert [error for _, error in got] == [None] * 3

    asyncio.run(work())


# --- other clients ---

KSERVE = """
import asyncio
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
import grpc, numpy as np

row = np.array([[5.0, 3.4, 1.5, 0.2]], np.float32)

def request(binary):
    made = InferInput("X", [1, 4], "FP32")
    made.set_data_from_numpy(row, binary_data=binary)
    return InferRequest("iris", [made], request_id="mine")

async def work():
    said = {}
    async with InferenceGRPCClient(given["grpc"]) as client:
        said["grpc_live"] = await client.is_server_live()
        said["grpc_ready"] = [await client.is_server_ready(), await client.is_model_ready("iris")]
        for binary in (False, True):
            answer = await client.infer(request(binary))
            said[f"grpc_{binary}"] = [answer.id, answer.model_name, *(o.as_numpy().ravel().tolist() for o in answer.outputs if o.name == "label")]
        wrong = request(True)
        wrong.model_name = "none"
        try:
            await client.infer(wrong)
        except grpc.RpcError as error:
            said["grpc_error"] = [error.code().name, error.details()]
    rest = InferenceRESTClient(RESTConfig(protocol="v2"))
    said["rest_live"] = await rest.is_server_live(given["url"])
    said["rest_ready"] = [await rest.is_server_ready(given["url"]), await rest.is_model_ready(given["url"], "iris")]
    for binary in (False, True):
        answer = await rest.infer(given["url"], request(binary), model_name="iris")
        said[f"rest_{binary}"] = [answer.id, answer.model_name, *(o.as_numpy().ravel().tolist() for o in answer.outputs if o.name == "label")]
    return said

answer(asyncio.run(work()))
"""


def test_kserves_clients(server: Running) -> None:
    """O29: InferenceGRPCClient and InferenceRESTClient, with typed and with binary data."""
    said = clients.run("kserve", KSERVE, grpc=server.grpc, url=server.url)
    assert said["grpc_live"]
    assert said["rest_live"]
    assert said["grpc_ready"] == said["rest_ready"] == [True, True]
    for way in ("grpc_False", "grpc_True", "rest_False", "rest_True"):
        assert said[way] == ["mine", "iris", [0]], way
    assert said["grpc_error"] == ["NOT_FOUND", "model 'none' is not known to this server"]


def test_health_and_reflection(server: Running) -> None:
    """O27: the standard services, by gRPC's own clients; every service of the port is listed and ready."""
    health_pb2: Any = importlib.import_module("grpc_health.v1.health_pb2")
    database: Any = importlib.import_module("grpc_reflection.v1alpha.proto_reflection_descriptor_database")
    with grpc.insecure_channel(server.grpc) as channel:
        listed = database.ProtoReflectionDescriptorDatabase(channel).get_services()
        ours = {"inference.GRPCInferenceService", "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"}
        assert ours | {"grpc.health.v1.Health"} <= set(listed)
        check = importlib.import_module("grpc_health.v1.health_pb2_grpc").HealthStub(channel).Check
        for name in ("", *ours):
            assert check(health_pb2.HealthCheckRequest(service=name)).status == health_pb2.HealthCheckResponse.SERVING


# --- the port ---


def test_keys_and_tls(tmp_path: Path) -> None:
    """The same keys and certificates as over HTTP; without a key, health is told and nothing else."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    key = run(tmp_path, "keys", "add", "caller", "--scope", "infer").stdout.split()[-1]
    files = ("--tls-cert", str(tmp_path / "server.pem"), "--tls-key", str(tmp_path / "server.pem"))
    model = str(build.iris(tmp_path / "iris.onnx"))
    with (
        serving(tmp_path, model, "--grpc-port", "0", "--require-key", *files) as server,
        triton.InferenceServerClient(server.grpc, ssl=True, root_certificates=str(tmp_path / "ca.pem")) as client,
    ):
        assert client.is_server_ready()
        with refused("UNAUTHENTICATED", "API key"):
            client.infer("iris", [flowers(ROW)])
        assert client.infer("iris", [flowers(ROW)], headers={"authorization": f"Bearer {key}"}).as_numpy("label").tolist() == [[0]]
        with refused("PERMISSION_DENIED", "scope admin"):
            client.unload_model("iris", headers={"x-api-key": key})


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sigterm_under_load_loses_no_call(workers: str, tmp_path: Path) -> None:
    """O32: every call that a server took is answered; those after it find nobody."""
    model = str(build.iris(tmp_path / "iris.onnx"))
    ends: Counter[tuple[str, str]] = Counter()
    answered = 0
    with serving(tmp_path, model, "--grpc-port", "0", "--workers", workers) as server:

        def ask() -> None:
            nonlocal answered
            with triton.InferenceServerClient(server.grpc, channel_args=[("grpc.use_local_subchannel_pool", 1)]) as client:
                while True:
                    try:
                        client.infer("iris", [flowers(ROW)], client_timeout=WAIT_S)
                    except InferenceServerException as error:
                        ends[str(error.status()), "connect" if "onnect" in error.message() else error.message()] += 1
                        return
                    answered += 1

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        until(lambda: answered > 100)
        assert server.terminate() == 0, server.output
        for thread in threads:
            thread.join(WAIT_S)
    assert ends == {("StatusCode.UNAVAILABLE", "connect"): 8}


def test_a_port_that_is_taken(server: Running, tmp_path: Path) -> None:
    """Is an error that names it, before anything is loaded, although workers of one server could share it."""
    port = server.grpc.rpartition(":")[2]
    done = run(tmp_path, "serve", str(build.iris(tmp_path / "iris.onnx")), "--port", "0", "--grpc-port", port)
    assert done.returncode == 1
    assert f"port {port}: the port is already in use" in done.stderr
