"""Valid requests of the Open Inference Protocol, each with a check of its answer that knows the result from elsewhere."""

import gzip
import json
import zlib
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import numpy as np

from dragoman.core.tensors import DATATYPES, pack_bytes, unpack_bytes
from tests.fuzz.cases import LENGTH, Case, document, plain
from tests.fuzz.documents import dumps, spoilt
from tests.fuzz.models import DATATYPES as NAMES
from tests.fuzz.models import FLOWERS
from tests.fuzz.wire import Answer
from tests.models.build import IRIS_CENTRES, IRIS_CLASSES

_IN_JSON = tuple(name for name in NAMES if name not in ("FP16", "BF16"))
_WORDS = ("", "a", "hello world", "héllo", "日本", "\x00", '"quoted"\\', "NaN", "x" * 2_000, "\U0001f600")
Array = Any


def array_of(datatype: str, shape: Sequence[int], rng: Random) -> Array:
    """Random elements, with the extremes of the type among them."""
    size = int(np.prod(shape))
    values: list[Any]
    if datatype == "BYTES":
        values = [rng.choice(_WORDS).encode() for _ in range(size)]
        made = np.empty(size, object)
        made[:] = values
        return made.reshape(shape)
    dtype = DATATYPES[datatype].numpy
    if datatype == "BOOL":
        values = [rng.random() < 0.5 for _ in range(size)]
    elif datatype == "BF16":
        values = [rng.randrange(0x7F80) for _ in range(size)]
    elif dtype.kind == "f":
        values = [rng.choice((0.0, -0.0, 1.5, -2.25, rng.uniform(-60_000, 60_000), rng.gauss(0, 1))) for _ in range(size)]
    else:
        low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
        values = [rng.choice((low, high, 0, rng.randint(low, high))) for _ in range(size)]
    return np.array(values, dtype).reshape(shape)


def elements(array: Array, *, nested: bool) -> Any:
    """An array as it stands in JSON."""
    if array.dtype == object:
        texts = np.empty(array.size, object)
        texts[:] = [item.decode() for item in array.ravel().tolist()]
        array = texts.reshape(array.shape)
    return array.tolist() if nested else array.ravel().tolist()


def raw_bytes(array: Array) -> bytes:
    """An array as binary data."""
    return bytes(pack_bytes(array)) if array.dtype == object else array.tobytes()


def outputs_of(answer: Answer) -> dict[str, Any]:
    """Every output of an answer as an array (of texts for BYTES in JSON), by name."""
    body = plain(answer)
    assert answer.status == 200, answer.status
    length = answer.headers.get(LENGTH)
    head, tail = (body, b"") if length is None else (body[: int(length)], body[int(length) :])
    found: dict[str, Any] = {}
    for output in document(head)["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        shape, datatype = output["shape"], output["datatype"]
        if size is not None:
            part, tail = tail[:size], tail[size:]
            assert len(part) == size
            if datatype == "BYTES":
                found[output["name"]] = unpack_bytes(memoryview(part), int(np.prod(shape))).reshape(shape)
            else:
                found[output["name"]] = np.frombuffer(part, DATATYPES[datatype].numpy).reshape(shape)
        elif datatype == "BYTES":
            made = np.empty(len(output["data"]), object)
            made[:] = [text.encode() for text in output["data"]]
            found[output["name"]] = made.reshape(shape)
        else:
            values = [float("nan") if item is None else item for item in output["data"]]
            found[output["name"]] = np.array(values, DATATYPES[datatype].numpy).reshape(shape)
    assert not tail
    return found


def answers(wanted: dict[str, Array]) -> Callable[[Answer], None]:
    """A check that these outputs, and no others, came."""

    def check(answer: Answer) -> None:
        found = outputs_of(answer)
        assert found.keys() == wanted.keys(), f"outputs {sorted(found)}, expected {sorted(wanted)}"
        for name, array in wanted.items():
            assert found[name].shape == array.shape, f"{name} has shape {found[name].shape}, expected {array.shape}"
            assert found[name].tolist() == array.tolist(), f"{name} is {found[name].tolist()}, expected {array.tolist()}"

    return check


def infer(model: str, inputs: dict[str, tuple[str, Array]], wanted: dict[str, Array], rng: Random, version: str = "") -> Case:
    """A request for inference, in one of the many ways in which it can be written."""
    tree: dict[str, Any] = {"inputs": []}
    tail: list[bytes] = []
    binary_out = False
    for name, (datatype, array) in inputs.items():
        item: dict[str, Any] = {"name": name, "shape": list(array.shape), "datatype": datatype}
        if datatype in ("FP16", "BF16") or rng.random() < 0.4:
            tail.append(raw_bytes(array))
            item["parameters"] = {"binary_data_size": len(tail[-1])}
            binary_out = binary_out or datatype in ("FP16", "BF16")
        else:
            item["data"] = elements(array, nested=bool(array.ndim) and rng.random() < 0.5)
            item["data"] = item["data"] if isinstance(item["data"], list) else [item["data"]]
        tree["inputs"].append(item)
    if rng.random() < 0.4:
        tree["id"] = rng.choice(("", "7", "é", "x" * 100))
    if rng.random() < 0.3:
        tree["parameters"] = rng.choice(
            ({}, {"anything": 1}, {"sequence_id": 3, "sequence_start": True}, {"priority": 0}, {"timeout": 60_000_000})
        )
    if binary_out and rng.random() < 0.5:
        tree["parameters"] = {"binary_data_output": True}
    elif binary_out or rng.random() < 0.4:
        tree["outputs"] = [
            {"name": name, "parameters": {"binary_data": True}} if binary_out or rng.random() < 0.4 else {"name": name} for name in wanted
        ]
    where = f"/versions/{version}" if version else ""
    case = Case("POST", f"/v2/models/{model}{where}/infer".encode(), tree, b"".join(tail) if tail else None, what=f"infer {model}")
    case.check = answers(wanted)
    return case


def _compressed(case: Case, rng: Random) -> Case:
    """Now and then the body is compressed, and the answer wanted so."""
    if rng.random() < 0.1:
        case = case.materialised()
        coding = rng.choice((b"gzip", b"deflate"))
        case.raw = gzip.compress(case.raw or b"", 1, mtime=0) if coding == b"gzip" else zlib.compress(case.raw or b"", 1)
        case.headers.append((b"content-encoding", coding))
    if rng.random() < 0.1:
        case.headers.append((b"accept-encoding", rng.choice((b"gzip", b"deflate", b"gzip, deflate", b"br;q=1, gzip;q=0.5", b"identity"))))
    return case


def _identity(rng: Random) -> Case:
    datatype = rng.choice(NAMES)
    array = array_of(datatype, (rng.randrange(1, 5), rng.randrange(5)), rng)
    return infer(f"id_{datatype}", {"x": (datatype, array)}, {"y": array}, rng)


def _any_shape(rng: Random) -> Case:
    array = array_of("FP32", [rng.randrange(4) for _ in range(rng.randrange(5))], rng)
    return infer("any", {"x": ("FP32", array)}, {"y": array}, rng)


def _sums(rng: Random) -> Case:
    rows = rng.randrange(1, 4)
    a, b = (np.array([[rng.randrange(-1000, 1000) for _ in range(16)] for _ in range(rows)], "i4") for _ in range(2))
    if rng.random() < 0.5:
        return infer("sums", {"INPUT0": ("INT32", a), "INPUT1": ("INT32", b)}, {"OUTPUT0": a + b, "OUTPUT1": a - b}, rng)
    return infer("twice", {"B": ("INT32", b), "A": ("INT32", a)}, {"R": 2 * a}, rng)


def _small(rng: Random) -> Case:
    """The models of odd shapes."""
    x = np.array([[rng.randrange(-9, 9) / 2, 1.5]], "f4")
    match rng.randrange(5):
        case 0:
            return infer("scalar", {"x": ("FP32", x[0, 0])}, {"double": x[0, 0] * 2}, rng)
        case 1:
            return infer("optional_input", {"x": ("FP32", x)}, {"y": x * 10}, rng)
        case 2:
            factor = np.array([rng.randrange(5)], "f4")
            return infer("optional_input", {"factor": ("FP32", factor), "x": ("FP32", x)}, {"y": x * factor}, rng)
        case 3:
            two = np.array([[1, 2, 3], [4, 5, rng.randrange(9)]], "f4")
            return infer("fixed_batch", {"x": ("FP32", two)}, {"sums": two.sum(axis=1, keepdims=True)}, rng)
        case _:
            index = np.array([rng.randrange(-10, 10) for _ in range(rng.randrange(1, 5))], "i8")
            return infer("lookup", {"index": ("INT64", index)}, {"square": (index % 10) ** 2}, rng)


def _iris(rng: Random) -> Case:
    labels = [rng.randrange(3) for _ in range(rng.randrange(1, 5))]
    version = rng.choice(("", "1", "3"))
    case = infer("iris", {"X": ("FP32", IRIS_CENTRES[labels])}, {"label": np.array([[i] for i in labels])}, rng, version=version)
    if rng.random() < 0.3:
        case.tree["outputs"] = [{"name": "probabilities", "parameters": {"classification": 1, "binary_data": rng.random() < 0.5}}]

        def check(answer: Answer) -> None:
            texts = [text.decode().split(":") for text in outputs_of(answer)["probabilities"].ravel()]
            assert [text[1:] for text in texts] == [[str(i), IRIS_CLASSES[i]] for i in labels]

        case.check = check
    else:
        case.tree["outputs"] = [{"name": "label"}]
    return case


def _flowers(rng: Random) -> Case:
    picked = [rng.randrange(len(FLOWERS[1])) for _ in range(rng.randrange(1, 4))]
    case = infer("flowers", {"X": ("FP64", FLOWERS[0][picked])}, {}, rng)
    case.tree["outputs"] = []

    def check(answer: Answer) -> None:
        found = outputs_of(answer)
        assert any(array.ravel().tolist() == FLOWERS[1][picked].tolist() for array in found.values()), str(found)

    case.check = check
    return case


def _raw_binary(rng: Random) -> Case:
    datatype = rng.choice([name for name in NAMES if name != "BYTES"])
    array = array_of(datatype, (1, rng.randrange(1, 6)), rng)
    case = Case("POST", f"/v2/models/id_{datatype}/infer".encode(), raw=array.tobytes(), headers=[(LENGTH, b"0")], what="raw binary")
    case.check = answers({"y": array})
    return case


def _generate(rng: Random) -> Case:
    text = rng.choice(("hello", "a b c", "", "x" * 500))
    tree = {"text_input": text, **rng.choice(({}, {"temperature": 0.5}, {"parameters": {"max_tokens": 3}}, {"id": "9"}))}
    stream = rng.random() < 0.4

    def check(answer: Answer) -> None:
        assert answer.status == 200
        body = plain(answer)
        if stream:
            assert body.startswith(b"data: ")
            assert body.endswith(b"\n\n")
            body = body.removeprefix(b"data: ")
        assert json.loads(body)["text_output"] == text.upper()

    path = b"/v2/models/shout/generate_stream" if stream else b"/v2/models/shout/generate"
    return Case("POST", path, tree, check=check, what="generate")


def _fact(rng: Random) -> Case:
    """What is told about server and models."""
    model = rng.choice(("iris", "sums", "twice", "flowers", "shout", *(f"id_{name}" for name in NAMES)))
    version = rng.choice(("", "", "/versions/1"))
    path, key = rng.choice(
        (
            ("", "extensions"),
            ("/health/live", "live"),
            ("/models", "models"),
            (f"/models/{model}{version}", "inputs"),
            (f"/models/{model}{version}/ready", "ready"),
            (f"/models/{model}{version}/config", "input"),
            (f"/models/{model}{version}/stats", "model_stats"),
            ("/models/stats", "model_stats"),
            ("/logging", "log_info"),
            ("/trace/setting", "trace_rate"),
            (f"/models/{model}/trace/setting", "trace_level"),
        )
    )
    case = Case("GET", f"/v2{path}".encode(), what=f"GET {path}", check=lambda answer: _has(answer, key))
    if rng.random() < 0.1:
        case.method, case.check = "HEAD", lambda answer: _is(answer, 200)
    return case


def _index(rng: Random) -> Case:
    def check(answer: Answer) -> None:
        assert answer.status == 200
        assert {"iris", "sums"} <= {row["name"] for row in json.loads(answer.body)}

    return Case("POST", b"/v2/repository/index", rng.choice((None, {}, {"ready": True}, {"ready": False})), check=check, what="index")


def _change(rng: Random) -> Case:
    """What changes the server: the spare model comes and goes, settings are set and taken back."""
    tree: dict[str, Any]
    match rng.randrange(4):
        case 0:
            load = Case("POST", b"/v2/repository/models/spare/load")
            return Case(
                "POST",
                b"/v2/repository/models/spare/unload",
                {"parameters": {"unload_dependents": False}},
                check=lambda answer: _has(answer, "unload"),
                undo=load,
                what="unload",
            )
        case 1:
            tree = rng.choice([{}, {"parameters": {}}, {"parameters": {"config": json.dumps({"max_batch_size": 4})}}])
            return Case("POST", b"/v2/repository/models/spare/load", tree, check=lambda answer: _has(answer, "load"), what="load")
        case 2:
            undo = Case("POST", b"/v2/logging", dict.fromkeys(("log_info", "log_warning", "log_error", "log_verbose_level")))
            return Case(
                "POST", b"/v2/logging", {"log_info": True}, check=lambda answer: _has(answer, "log_info"), undo=undo, what="logging"
            )
    undo = Case("POST", b"/v2/trace/setting", dict.fromkeys(("trace_level", "trace_rate", "trace_count", "log_frequency")))
    tree = {"trace_level": ["TIMESTAMPS"], "trace_rate": "100", "trace_count": "3"}
    return Case("POST", b"/v2/trace/setting", tree, check=lambda answer: _has(answer, "trace_rate"), undo=undo, what="trace")


CONFIG: dict[str, Any] = {
    "name": "spare",
    "backend": "onnxruntime",
    "max_batch_size": 4,
    "input": [{"name": "x", "data_type": "TYPE_INT64", "dims": [-1]}],
    "output": [{"name": "y", "data_type": "TYPE_INT64", "dims": [-1], "label_filename": ""}],
    "instance_group": [{"count": 1, "kind": "KIND_CPU"}],
    "dynamic_batching": {"preferred_batch_size": [2, 4], "max_queue_delay_microseconds": 10, "default_queue_policy": {"max_queue_size": 9}},
    "parameters": {"intra_op_thread_count": {"string_value": "1"}},
    "model_warmup": [{"name": "w", "batch_size": 1, "inputs": {"x": {"data_type": "TYPE_INT64", "dims": [2], "zero_data": True}}}],
    "version_policy": {"latest": {"num_versions": 1}},
}


def _configured(rng: Random) -> Case:
    """The spare model is loaded with a configuration that comes in the request, mostly a spoilt one."""
    config = CONFIG if rng.random() < 0.2 else spoilt(CONFIG, rng)
    parameters: dict[str, Any] = {"config": dumps(config).decode("utf-8", "replace")}
    if rng.random() < 0.2:
        name = rng.choice(("1/model.onnx", "2/model.onnx", "../x", "/etc/x", "1/../../x", "", "1/model.onnx/x", "config.pbtxt"))
        parameters[f"file:{name}"] = rng.choice(("AAAA", "", "!", "A" * 5_000))
    load = Case("POST", b"/v2/repository/models/spare/load")
    return Case("POST", b"/v2/repository/models/spare/load", {"parameters": parameters}, undo=load, what="load with a configuration")


def _refused(rng: Random) -> Case:
    """What is not there, and must be refused with the right status."""
    method, path, status = rng.choice(
        (
            ("POST", "/v2/models/nothing/infer", 404),
            ("POST", "/v2/models/iris/versions/2/infer", 404),
            ("GET", "/v2/models/nothing", 404),
            ("GET", "/v2/models/nothing/ready", 404),
            ("GET", "/v2/models/iris/infer", 405),
            ("PUT", "/v2/models/iris/infer", 405),
            ("GET", "/v2/nothing", 404),
            ("POST", "/v2/repository/models/nothing/load", 404),
            ("POST", "/v2/repository/models/nothing/unload", 404),
            ("GET", "/v2/systemsharedmemory/status", 501),
            ("POST", "/v2/cudasharedmemory/region/x/register", 501),
        )
    )
    tree: Any = {"inputs": []} if method in ("POST", "PUT") else None
    return Case(method, path.encode(), tree, check=lambda answer: _is(answer, status), what=f"{method} {path}")


def _has(answer: Answer, key: str) -> None:
    assert answer.status == 200
    assert key in json.loads(plain(answer))


def _is(answer: Answer, status: int) -> None:
    assert answer.status == status


_KINDS = (
    *((_identity, 8), (_any_shape, 2), (_sums, 4), (_small, 5), (_iris, 4), (_flowers, 2), (_raw_binary, 2)),
    *((_generate, 3), (_fact, 3), (_index, 1), (_refused, 2), (_change, 0.1), (_configured, 0.1)),
)


def valid(rng: Random) -> Case:
    """Any request that must be answered rightly."""
    (kind,) = rng.choices([kind for kind, _ in _KINDS], [weight for _, weight in _KINDS])
    case = kind(rng)
    return _compressed(case, rng) if case.what.startswith("infer") else case
