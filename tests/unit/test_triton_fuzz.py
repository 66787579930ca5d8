"""No configuration does more than be refused: soups of tokens, damaged samples, and valid ones with values that nobody writes."""

import contextlib
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragoman.core.errors import ServingError
from dragoman.proto import messages
from dragoman.serving.triton import TritonConfig, config_from_json, config_json, read_config, translate

SAMPLES = [path.read_text() for path in sorted((Path(__file__).resolve().parents[1] / "golden" / "triton").glob("*.pbtxt"))]
NOWHERE = Path("/nonexistent")
MESSAGE: Any = messages.new("inference.ModelConfig")


def names_below(descriptor: Any, seen: dict[str, None]) -> dict[str, None]:
    """Every field name and enum value of a message type and its parts."""
    for field in descriptor.fields:
        new = field.name not in seen
        seen[field.name] = None
        if field.enum_type is not None:
            seen.update((value.name, None) for value in field.enum_type.values)
        if field.message_type is not None and (new or field.message_type.full_name.endswith("Entry")):
            names_below(field.message_type, seen)
    return seen


WORDS = list(names_below(MESSAGE.DESCRIPTOR, {}))
SIGNS = ["{", "}", "[", "]", "<", ">", ":", ",", ";", "-", "#", "\n", '"', "'", "\\", " ", "\0", "\u00e9", "\u2028"]
VALUES = [
    "0",
    "1",
    "-1",
    "3.5",
    "1e400",
    "nan",
    "inf",
    "true",
    "0x10",
    str(2**63),
    '"m"',
    '"x"',
    '"../a"',
    '"ensemble"',
    '"onnxruntime"',
    "a.b",
]
TOKENS = st.sampled_from([*WORDS, *SIGNS, *VALUES]) | st.text(max_size=3)


def exercise(config: TritonConfig) -> None:
    """Everything that is done with a configuration that parsed."""
    answer = orjson.dumps(config_json(config.message))
    assert config_from_json(answer, config.name).message == config.message
    result = translate(config, NOWHERE)
    assert result.name == "m"
    assert result.instance_count >= 1
    assert len(result.warnings) <= 101
    assert all("\n" not in warning for warning in result.warnings)


@settings(max_examples=300)
@given(st.lists(TOKENS, max_size=60))
def test_soups_of_tokens(tokens: list[str]) -> None:
    """Words of the schema, signs and values in any order: read, or a ServingError."""
    with contextlib.suppress(ServingError):
        exercise(read_config(" ".join(tokens), "m"))


@settings(max_examples=300)
@given(st.data())
def test_damaged_samples(data: st.DataObject) -> None:
    """Real files with pieces cut out, doubled, and replaced."""
    text = data.draw(st.sampled_from(SAMPLES))
    for _ in range(data.draw(st.integers(1, 4))):
        begin = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(begin, min(len(text), begin + 40)))
        text = text[:begin] + data.draw(st.sampled_from(["", text[begin:end] * 2, *SIGNS, *VALUES])) + text[end:]
    with contextlib.suppress(ServingError):
        exercise(read_config(text.replace(text.partition('name: "')[2].partition('"')[0], "m", 1), "m"))


@given(st.text(max_size=200) | st.binary(max_size=200))
def test_any_text_and_any_bytes(text: str | bytes) -> None:
    """Nothing of the schema in it."""
    with contextlib.suppress(ServingError):
        exercise(read_config(text, "m"))


NUMBERS = st.sampled_from([-(2**31), -2, -1, 0, 1, 2, 3, 8, 33, 2**31 - 1, 2**32 - 1])
TEXTS = st.sampled_from(["", "m", "x", "y", "../x", "/x", "ensemble", "onnxruntime", "pytorch_libtorch", "model.onnx", "a\nb"])


def of_type(field: Any, depth: int) -> st.SearchStrategy[Any]:
    """JSON values that a field accepts, and some that it does not."""
    if field.message_type is not None:
        return objects(field.message_type, depth - 1)
    if field.enum_type is not None:
        return st.sampled_from([value.name for value in field.enum_type.values] + [0, 99])
    if field.cpp_type == field.CPPTYPE_STRING:
        return TEXTS
    if field.cpp_type == field.CPPTYPE_BOOL:
        return st.booleans()
    return NUMBERS


def objects(descriptor: Any, depth: int = 4) -> st.SearchStrategy[dict[str, Any]]:
    """JSON objects of a message type, a few of its fields set."""
    if depth < 0:
        return st.just({})
    fields: dict[str, st.SearchStrategy[Any]] = {}
    for field in descriptor.fields:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            key, value = field.message_type.fields_by_name["key"], field.message_type.fields_by_name["value"]
            keys = TEXTS if key.cpp_type == key.CPPTYPE_STRING else st.sampled_from(["0", "1", "2", "9"])
            fields[field.name] = st.dictionaries(keys, of_type(value, depth), max_size=2)
        else:
            value = of_type(field, depth)
            fields[field.name] = st.lists(value, max_size=3) if field.is_repeated else value
    return st.fixed_dictionaries({}, optional=fields)


@settings(max_examples=300)
@given(objects(MESSAGE.DESCRIPTOR))
def test_configurations_with_any_values(value: dict[str, Any]) -> None:
    """Of the right form and, mostly, without sense."""
    with contextlib.suppress(ServingError):
        exercise(config_from_json(orjson.dumps(value), "m"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=3), inner, max_size=4),
    max_leaves=15,
)


@settings(max_examples=300)
@given(JSON | st.dictionaries(st.sampled_from(WORDS), JSON, min_size=1, max_size=4))
def test_any_json(value: Any) -> None:
    """Of any form."""
    with contextlib.suppress(ServingError):
        exercise(config_from_json(orjson.dumps(value), "m"))


SIZE = (1 << 20) - 100


@pytest.mark.parametrize(
    "text",
    [
        '"' + '\\"' * (SIZE // 2),
        '\\"' * (SIZE // 2),
        "a:1 " * (SIZE // 4),
        f"a:[{'1,' * (SIZE // 2 - 10)}]",
        f"input{{dims:[{'1,' * (SIZE // 2 - 20)}1]}}",
        "".join(f'output{{name:"{index}"}}' for index in range(SIZE // 25)),
        f"max_batch_size:0x{'9' * (SIZE - 50)}",
    ],
    ids=["quotes", "escapes", "unknown fields", "an unknown list", "dimensions", "tensors", "digits"],
)
def test_the_largest_files_of_the_worst_sort(text: str) -> None:
    """Each takes a second or two; work that grows with the square of the length would run into the time limit of every test."""
    with contextlib.suppress(ServingError):
        exercise(read_config(text, "m"))
