"""Our copy of Triton's schema: the committed descriptors match the .proto, the .proto matches a real client, and the pool is our own."""

import importlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

from dragoman.proto import messages

ROOT = Path(__file__).resolve().parents[2]
PROTOS = ROOT / "src" / "dragoman" / "proto"
SCRIPT = ROOT / "scripts" / "build_protos.py"


def build(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False, timeout=60)


def python(code: str) -> str:
    """What a fresh interpreter prints: for what depends on which modules are loaded, and in which order."""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env={"PYTHONPATH": str(ROOT / "src")})
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The proto folder in a place where it may be changed."""
    return Path(shutil.copytree(PROTOS, tmp_path / "proto"))


def test_committed_descriptors_match_the_protos() -> None:
    """Whoever changes a .proto has compiled it again."""
    done = build("--check")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_changed_proto_is_noticed_and_mended(copied: Path) -> None:
    """--check fails and names the command; the command without it writes what --check then accepts."""
    proto = copied / "triton_model_config.proto"
    proto.write_text(proto.read_text().replace("bool decoupled = 1;", "bool decoupled = 2;"))
    failed = build("--check", "--folder", str(copied))
    assert failed.returncode == 1
    assert "build_protos.py" in failed.stderr
    assert build("--folder", str(copied)).returncode == 0
    assert build("--check", "--folder", str(copied)).returncode == 0


def test_a_missing_descriptor_file_is_out_of_date(copied: Path) -> None:
    """Without the file there is nothing that could match."""
    (copied / "descriptors.binpb").unlink()
    assert build("--check", "--folder", str(copied)).returncode == 1


def test_a_broken_proto_is_refused(copied: Path) -> None:
    """A syntax error fails the command and leaves the descriptor file alone."""
    before = (copied / "descriptors.binpb").read_bytes()
    (copied / "triton_model_config.proto").write_text("syntax = 'proto3'; message {")
    assert build("--folder", str(copied)).returncode != 0
    assert (copied / "descriptors.binpb").read_bytes() == before


def _plain(file: descriptor_pb2.FileDescriptorProto) -> descriptor_pb2.FileDescriptorProto:
    """Without what is not the contract: the file's own name, and the JSON names that one compiler writes down and the other derives."""

    def strip(message: descriptor_pb2.DescriptorProto) -> None:
        for field in message.field:
            field.ClearField("json_name")
        for nested in message.nested_type:
            strip(nested)

    file.ClearField("name")
    for message in file.message_type:
        strip(message)
    return file


def test_schema_equals_the_clients() -> None:
    """Package, messages, fields, numbers, types, oneofs, maps, enum values, and their order: all as Triton's own client has them."""
    theirs = descriptor_pb2.FileDescriptorProto()
    importlib.import_module("tritonclient.grpc.model_config_pb2").DESCRIPTOR.CopyToProto(theirs)
    described = descriptor_pb2.FileDescriptorSet.FromString((PROTOS / "descriptors.binpb").read_bytes())
    ours = next(file for file in described.file if file.name == "triton_model_config.proto")
    assert _plain(ours) == _plain(theirs)


def _sorted(file: descriptor_pb2.FileDescriptorProto) -> descriptor_pb2.FileDescriptorProto:
    """As `_plain`, and without order, names of other files, and options, none of which are on the wire."""
    _plain(file)
    file.ClearField("dependency")
    file.ClearField("options")
    file.message_type.sort(key=lambda message: message.name)
    for message in file.message_type:
        message.nested_type.sort(key=lambda nested: nested.name)
        message.field.sort(key=lambda field: field.number)
    for service in file.service:
        service.method.sort(key=lambda method: method.name)
        for method in service.method:
            method.ClearField("options")
    return file


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("inference_service.proto", "tritonclient.grpc.service_pb2"),
        ("grpc_health.proto", "grpc_health.v1.health_pb2"),
        ("grpc_reflection_v1alpha.proto", "grpc_reflection.v1alpha.reflection_pb2"),
    ],
)
def test_services_equal_the_clients(ours: str, theirs: str) -> None:
    """Every message, field, number and method is as the clients of the service have it."""
    known = descriptor_pb2.FileDescriptorProto()
    importlib.import_module(theirs).DESCRIPTOR.CopyToProto(known)
    described = descriptor_pb2.FileDescriptorSet.FromString((PROTOS / "descriptors.binpb").read_bytes())
    assert _sorted(next(file for file in described.file if file.name == ours)) == _sorted(known)


def test_messages_cross_to_the_client_and_back() -> None:
    """What we write, the client reads, and the other way round, byte for byte."""
    ours: Any = messages.new("inference.ModelConfig")
    ours.name, ours.max_batch_size, ours.backend = "m", 8, "onnxruntime"
    ours.dynamic_batching.preferred_batch_size.extend([4, 8])
    ours.parameters["a"].string_value = "1"
    client = importlib.import_module("tritonclient.grpc.model_config_pb2").ModelConfig
    theirs = client.FromString(ours.SerializeToString())
    assert (theirs.name, theirs.max_batch_size, theirs.parameters["a"].string_value) == ("m", 8, "1")
    assert type(ours).FromString(theirs.SerializeToString(deterministic=True)) == ours


@pytest.mark.parametrize("ours_first", [True, False])
def test_a_client_in_the_same_process_does_not_collide(ours_first: bool) -> None:
    """A model may import Triton's client before or after us: both have classes of the same name, and each keeps its own."""
    lines = ["ours = messages.new('inference.ModelConfig')", "import tritonclient.grpc.model_config_pb2 as theirs"]
    order = lines if ours_first else lines[::-1]
    code = "\n".join(["from dragoman.proto import messages", *order, "print(type(ours) is not theirs.ModelConfig)"])
    assert python(code) == "True"


def test_the_process_wide_pool_stays_clean() -> None:
    """Our names are not registered where everybody's are."""
    code = """
from dragoman.proto import messages
from google.protobuf import descriptor_pool
messages.new("inference.ModelConfig")
try:
    descriptor_pool.Default().FindMessageTypeByName("inference.ModelConfig")
except KeyError:
    print("clean")
"""
    assert python(code) == "clean"
    pool = cast("Any", messages.new("inference.ModelConfig")).DESCRIPTOR.file.pool
    assert pool is not descriptor_pool.Default()


def test_protobuf_is_not_imported_until_asked() -> None:
    """A server without Triton repositories never pays for protobuf."""
    code = "import sys, dragoman.serving.triton, dragoman.proto.messages\nprint(any(m.startswith('google') for m in sys.modules))"
    assert python(code) == "False"


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        pytest.param("name: 3", 1, 7, id="a number where text belongs"),
        pytest.param('name: "a"\n  max_batch_size: many', 2, 19, id="on the second line"),
        pytest.param('name: "a" name: "b"', 1, 17, id="one value twice"),
        pytest.param("dynamic_batching {} sequence_batching {}", 1, 21, id="two members of a oneof"),
        pytest.param('name: "\\377"', 1, 13, id="bytes that are no text"),
    ],
)
def test_text_errors_have_a_place(text: str, line: int, column: int) -> None:
    """Line and column count from 1, and the message does not repeat them."""
    with pytest.raises(messages.TextError) as caught:
        messages.parse_text(text, messages.new("inference.ModelConfig"))
    assert (caught.value.line, caught.value.column) == (line, column)
    assert not caught.value.message.startswith(f"{line}:")


@pytest.mark.parametrize("text", ["input {" * 10_000, "x {" * 10_000, 'name: "\ud800"', "a: - b"])
def test_text_that_trips_the_parser_is_an_error_too(text: str) -> None:
    """Deep nesting, half a surrogate pair, and a lone sign are TextErrors like any other."""
    with pytest.raises(messages.TextError):
        messages.parse_text(text, messages.new("inference.ModelConfig"))


@pytest.mark.parametrize(
    "value",
    [
        {"nam": "x"},
        {"name": ["x"]},
        {"name": {"a": 1}},
        {"max_batch_size": 1 << 40},
        {"max_batch_size": "many"},
        {"input": {"a": 1}},
        {"input": [3]},
        {"input": [{"data_type": "TYPE_FP33"}]},
        {"parameters": ["a"]},
        {"parameters": {"a": "b"}},
        {"dynamic_batching": {}, "sequence_batching": {}},
    ],
)
def test_json_of_another_form_is_refused(value: dict[str, Any]) -> None:
    """Unknown fields, wrong types, numbers that do not fit, two members of a oneof: ValueError."""
    with pytest.raises(ValueError):
        messages.parse_json(value, messages.new("inference.ModelConfig"), 32)


def test_json_depth_is_bounded() -> None:
    """The limit that the caller gives holds."""
    value: dict[str, Any] = {"optimization": {"cuda": {"graph_spec": [{"graph_lower_bound": {"input": {"x": {"dim": [1]}}}}]}}}
    messages.parse_json(value, messages.new("inference.ModelConfig"), 10)
    with pytest.raises(ValueError):
        messages.parse_json(value, messages.new("inference.ModelConfig"), 3)
