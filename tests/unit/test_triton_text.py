"""Reading config.pbtxt and its JSON form: what people write, what is unknown, what is wrong, what is too much."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import orjson
import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.serving.triton import TritonConfig, config_from_json, config_json, read_config

SAMPLES = sorted((Path(__file__).resolve().parents[1] / "golden" / "triton").glob("*.pbtxt"))


def message(config: TritonConfig) -> Any:
    """The parsed message; its fields are not known to the type checker."""
    return cast("Any", config.message)


def refused(text: str | bytes, kind: Kind = Kind.INVALID_INPUT) -> str:
    """The message of the error that reading this text raises."""
    with pytest.raises(ServingError) as caught:
        read_config(text, "m")
    assert caught.value.kind is kind
    return caught.value.message


def refused_json(text: str | bytes, kind: Kind = Kind.INVALID_INPUT) -> str:
    """The same for the JSON form."""
    with pytest.raises(ServingError) as caught:
        config_from_json(text, "m")
    assert caught.value.kind is kind
    return caught.value.message


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_samples_are_read_without_a_warning(path: Path) -> None:
    """Everything that people write in configuration files parses, and none of it is unknown."""
    config = read_config(path.read_bytes(), path.stem)
    assert config.name == message(config).name == path.stem
    assert config.unknown == ()


def set_fields(part: Any) -> Iterator[str]:
    """The full name of every field that is set in a message or below it."""
    for field, value in part.ListFields():
        yield field.full_name
        if field.message_type is not None:
            below = [value] if hasattr(value, "ListFields") else value.values() if hasattr(value, "values") else value
            for item in below:
                if hasattr(item, "ListFields"):
                    yield from set_fields(item)


def all_fields(descriptor: Any, known: set[str]) -> Iterator[str]:
    """The full name of every field that a message type or its parts have."""
    if descriptor.full_name in known:
        return
    known.add(descriptor.full_name)
    for field in descriptor.fields:
        if not descriptor.GetOptions().map_entry:
            yield field.full_name
        if field.message_type is not None:
            yield from all_fields(field.message_type, known)


def test_the_samples_hold_every_field_of_the_schema() -> None:
    """None can stop parsing unnoticed. Two enums have a single value, their default, which counts as not set."""
    samples = [message(read_config(path.read_bytes(), path.stem)) for path in SAMPLES]
    unset = set(all_fields(samples[0].DESCRIPTOR, set())) - {name for sample in samples for name in set_fields(sample)}
    assert unset == {"inference.BatchOutput.kind", "inference.ModelInstanceGroup.SecondaryDevice.kind"}


@pytest.mark.parametrize(
    "text",
    [
        'input { name: "x" data_type: TYPE_FP32 dims: [ 2, -1 ] }',
        'input: { name: "x" data_type: TYPE_FP32 dims: [ 2, -1 ] }',
        'input [ { name: "x" data_type: TYPE_FP32 dims: [ 2, -1 ] } ]',
        'input: [{name:"x",data_type:TYPE_FP32,dims:[2,-1]}]',
        "input < name: 'x' data_type: 11 dims: 2 dims: -1 >",
        'input {\n  # the only one\n  name: "x"; data_type: TYPE_FP32; dims: 0x2 dims: [ -1 ] # varies\n}',
        'input { name: "" "x" data_type: TYPE_FP32 dims: [ 2 ] dims: [ -1 ] }',
        '\ufeffname: "m"\r\ninput {\r\n\tname: "x"\r\n\tdata_type: TYPE_FP32\r\n\tdims: [ 2, -1 ]\r\n}\r\n',
        'input { name: "\\x78" data_type: TYPE_FP32 dims: [ 02, -1 ] }',
    ],
)
def test_the_spellings_of_one_input_mean_the_same(text: str) -> None:
    """Braces with or without colon, angle brackets, lists, repeated keys, commas, comments, quotes, numbers of several bases."""
    config = read_config(text, "m")
    tensor = message(config).input[0]
    assert (len(message(config).input), tensor.name, tensor.data_type, list(tensor.dims)) == (1, "x", 11, [2, -1])
    assert config.unknown == ()


def test_escape_sequences_mean_what_they_mean_in_c() -> None:
    """Letters, octal, hexadecimal and Unicode ones; a doubled backslash begins none."""
    text = r"""metric_tags { key: "\\s\x41\x4\101\7\u00e9" value: '\a\b\f\n\r\t\v\'\"' }"""
    assert dict(message(read_config(text, "m")).metric_tags) == {"\\sA\x04A\x07\u00e9": "\a\b\f\n\r\t\v'\""}


def test_an_empty_file_is_a_configuration() -> None:
    """ONNX models need none of it: everything comes from the file and the folder."""
    config = read_config("", "resnet")
    assert message(config).name == "resnet"
    assert config.source == "config.pbtxt of model 'resnet'"


@pytest.mark.parametrize(
    "read", [lambda name: read_config(f'name: "{name}"', "m"), lambda name: config_from_json(f'{{"name":"{name}"}}', "m")]
)
def test_the_name_must_be_the_folders(read: Any) -> None:
    """As in Triton, in both forms; the text names both."""
    assert message(read("m")).name == "m"
    with pytest.raises(ServingError, match=r"name is 'other', but it must equal the model's folder, 'm'"):
        read("other")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max_batch_size: eight", "line 1, column 17: Couldn't parse integer: eight"),
        ('name: "m"\nmax_batch_size: 8\ninput {', 'line 3, column 7: Expected "}"'),
        ('name: "m"\n\n  input { dims: [ 1, 2.5 ] }', "line 3, column 22: Couldn't parse integer: 2.5"),
        ("instance_group { kind: KIND_TPU }", "has no value named KIND_TPU"),
        ("input { data_type: FP32 }", "has no value named FP32"),
        ("max_batch_size: 99999999999", "Value out of range"),
        ('name: "m', "line 1, column 7"),
        ("}", "line 1, column 1"),
        ("input { dims [ 1 ] }", 'Expected ":"'),
        ("version_policy { latest {} all {} }", "another member of oneof"),
        ("[triton.extension]: 3", "line 1"),
        ('# \\s\nname: "a\\s"', "line 2, column 9: '\\\\s' is not an escape sequence"),
        ("name: 'a\\777'", "line 1, column 9: '\\\\7' is not an escape sequence"),
        ("unknown: '\\N{DOLLAR SIGN}'", "line 1, column 11: '\\\\N' is not an escape sequence"),
        ("name: '\\xzz'", "line 1, column 7"),
        ("name: '\\ud800'", "surrogates not allowed"),
        ("name: 'a\\", "line 1, column 7"),
        ("\x00", "line 1"),
    ],
)
def test_faults_are_placed(text: str, expected: str) -> None:
    """INVALID_INPUT names the file, the model, the line and the column, and says what is wrong without quoting the whole line."""
    error = refused(text)
    assert error.startswith("config.pbtxt of model 'm': line ")
    assert expected in error


def test_an_endless_line_is_not_repeated_in_the_error() -> None:
    """The parser quotes the line that it stumbles over; ours stays short."""
    assert len(refused(f"max_batch_size: {'x' * 500_000}")) < 500
    assert len(refused(f"{'x ' * 10_000} max_batch_size: many")) < 500


@pytest.mark.parametrize("text", [b'name: "\xff"', b"\xff\xfe", 'name: "\ud800"', "# \udfff"])
def test_what_is_no_utf8_is_refused(text: str | bytes) -> None:
    """Bytes of another encoding, and halves of surrogate pairs in text."""
    assert refused(text) == "config.pbtxt of model 'm': it is not UTF-8 text"


@pytest.mark.parametrize("text", ["#" * (1 << 20) + "\n", b"#" * (1 << 20) + b"\n"])
def test_a_file_above_one_mebibyte_is_too_large(text: str | bytes) -> None:
    """TOO_LARGE before anything is parsed; exactly one mebibyte is not."""
    assert "1048576 bytes" in refused(text, Kind.TOO_LARGE)
    assert message(read_config(text[:-1], "m")).name == "m"


@pytest.mark.parametrize(
    "text",
    [
        "input " + "{ input " * 40,
        "x " + "{ x " * 40,
        "x: [ " + "{ x: [ " * 40,
        "x " + "< y " * 40,
        "a { b " * 150_000,
    ],
)
def test_nesting_is_bounded(text: str) -> None:
    """Known or unknown, with brackets of any kind: more than 32 levels are refused by line."""
    error = refused(text)
    assert error.startswith("config.pbtxt of model 'm': line 1, column ")
    assert "more than 32 messages are nested" in error


def test_brackets_in_texts_and_comments_do_not_count() -> None:
    """Only what nests messages is nesting."""
    text = f"# {'{' * 100}\nmetric_tags {{ key: \"{'{' * 100}\" value: '{'<' * 100}' }}"
    assert dict(message(read_config(text, "m")).metric_tags) == {"{" * 100: "<" * 100}


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        pytest.param("frobnicate: 3", ["line 1, column 1: the field 'frobnicate'"], id="a number"),
        pytest.param('input { name: "x"\n  colour: "red" }', ["line 2, column 3: the field 'input.colour'"], id="in a message"),
        pytest.param("Name: 'm'", ["line 1, column 1: the field 'Name'"], id="case matters"),
        pytest.param(
            "a: 1 b { c: 2 }", ["column 1: the field 'a'", "column 6: the field 'b'"], id="what is below an unknown one is its own affair"
        ),
        pytest.param("a: [ x, y ] b: [ { c: 1 }, { d: 2 } ]", ["field 'a'", "field 'b'"], id="lists"),
        pytest.param('a: "one" "two" b: TRUE c: -1.5e3 d: inf e: 0x1F', ["'a'", "'b'", "'c'", "'d'", "'e'"], id="values of every sort"),
        pytest.param("optimization { graph { level: 1 depth: 2 } }", ["'optimization.graph.depth'"], id="two messages down"),
        pytest.param('parameters { key: "a" value { int_value: 3 } }', ["'parameters.value.int_value'"], id="in a map's value"),
        pytest.param("instance_group [ { count: 1 }, { cuont: 1 } ]", ["'instance_group.cuont'"], id="in the second of a list"),
    ],
)
def test_unknown_fields_are_named_and_skipped(text: str, paths: list[str]) -> None:
    """By path and place, one warning each; the rest of the file counts."""
    config = read_config(f"{text}\nmax_batch_size: 7", "m")
    assert message(config).max_batch_size == 7
    assert len(config.unknown) == len(paths)
    for warning, path in zip(config.unknown, paths, strict=True):
        assert path in warning
        assert warning.startswith("config.pbtxt of model 'm': line ")
        assert warning.endswith("is not known and has no effect")


def test_values_that_look_like_fields_are_not_reported() -> None:
    """Enum names, booleans and list items are words, too."""
    text = "input { data_type: TYPE_FP32 optional: true format: FORMAT_NCHW } response_cache { enable: t } version_policy: { all: {} }"
    assert read_config(text, "m").unknown == ()


def test_thousands_of_unknown_fields_make_few_warnings() -> None:
    """A hostile file cannot flood the log."""
    config = read_config("\n".join(f"f{index}: {index}" for index in range(5000)), "m")
    assert len(config.unknown) == 101
    assert config.unknown[-1] == "config.pbtxt of model 'm': 4900 more fields are not known and have no effect"


def test_names_from_the_file_stay_on_one_line_of_the_log() -> None:
    """A field's name has no control characters, and a long one is cut."""
    (warning,) = read_config(f"{'f' * 10_000}: 1", "m").unknown
    assert len(warning) < 300


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_the_json_form_says_the_same(path: Path) -> None:
    """A load request may send back what the configuration endpoint answered."""
    config = read_config(path.read_bytes(), path.stem)
    again = config_from_json(orjson.dumps(config_json(config.message)), path.stem)
    assert message(again) == message(config)


def test_json_takes_numbers_as_numbers_or_text_and_enums_by_name_or_number() -> None:
    """Protobuf's own JSON writes 64-bit integers as text, Triton's as numbers; both are read."""
    text = '{"max_batch_size":8,"input":[{"name":"x","data_type":"TYPE_FP32","dims":["-1",3]},{"name":"y","data_type":9,"dims":[1]}]}'
    tensors = message(config_from_json(text, "m")).input
    assert [(tensor.data_type, list(tensor.dims)) for tensor in tensors] == [(11, [-1, 3]), (9, [1])]


def test_json_may_be_bytes_and_begin_with_a_mark() -> None:
    """As some editors write it."""
    assert message(config_from_json(b'\xef\xbb\xbf{"maxBatchSize": 3}', "m")).max_batch_size == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "it is not JSON"),
        ('{"name": }', "line 1, column 10: it is not JSON"),
        ("[]", "expected a JSON object, not list"),
        ('"m"', "expected a JSON object, not str"),
        ('{"max_batch": 3}', 'no field named "max_batch"'),
        ('{"max_batch_size": "many"}', "max_batch_size"),
        ('{"max_batch_size": 1.5}', "max_batch_size"),
        ('{"input": [{"data_type": "FP32"}]}', "FP32"),
        (b'{"name": "\xff"}', "it is not UTF-8 text"),
        ('{"a":' * 100 + "1" + "}" * 100, "configuration of model 'm'"),
        ("[" * 100_000, "it is not JSON"),
    ],
)
def test_json_that_is_no_configuration_is_refused(text: str | bytes, expected: str) -> None:
    """Unknown fields too: whoever sends a request is there to correct it."""
    error = refused_json(text)
    assert error.startswith("configuration of model 'm': ")
    assert expected in error
    assert len(error) < 500


def test_json_above_one_mebibyte_is_too_large() -> None:
    """The same bound as for files."""
    refused_json(" " * (1 << 20) + "{}", Kind.TOO_LARGE)
