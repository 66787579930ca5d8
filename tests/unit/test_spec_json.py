"""Specifications and signatures as JSON: every field comes back, in strict JSON, and documents that are wrong are refused."""

import json
import math
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.model import BatchPolicy, Environment, ModelSpec, Step
from dragoman.core.spec_json import plain, restored, signatures_from_json, signatures_to_json, spec_from_json, spec_to_json
from dragoman.core.tensors import ALL_PARAMETERS, BF16, BYTES, DATATYPES, FP32, Form, Signature, TensorSpec

SIGNATURE = Signature(
    Form.ROWS,
    (TensorSpec("x", FP32, (-1, 2), True, ("a", "b"), "x:0"), TensorSpec("any", None, None), TensorSpec("s", BYTES, ())),
    (TensorSpec("y", BF16, (-1,)),),
    batch=True,
    options=("seed", "mode"),
    reads=frozenset({"temperature", "top_k"}),
    input_schema={"type": "object", "properties": {"x": {"minimum": 0.5, "choices": [1, "a", None]}}},
    output_schema={"type": "object"},
    input_files={"image": "image", "files.$item": "audio"},
    output_files={"inner.pic": "video"},
    method="tensorflow/serving/predict",
    any_name=True,
    whole=True,
)
SPEC = ModelSpec(
    name="m", version="7", runtime="python", artifact="/models/m", revision="abc", engine="process", instances=3,
    batch=BatchPolicy(
        8, True, 0.5, (2, 4), 100, 3, 2, 1.5, True, timeout_override=False, level_max_queue={1: 5, 2: 6}, level_timeout_s={1: math.inf, 2: 0.5},
        allowed=(4, 8), cut=True, pad=True,
    ),
    arguments={"module": "tungsten_model", "nested": {"a": [1, 2.5, None, True, math.nan]}, "$dragoman": ["float", "1"]},
    signature=SIGNATURE, input_reshapes={"x": (-1, 2, 1)}, output_reshapes={"y": ()},
    steps=(Step("a", "1", {"x": "in"}, {"y": "out"}), Step("b")),
    warmup=({"inputs": {"x": [[1.0, 2.0]]}, "count": 2}, {"inputs": {"x": np.ones((1, 2), "f4"), "s": np.array([b"\0", b"x"], dtype=object)}}),
    run_timeout_s=7200.0, interrupt_grace_s=2.0, load_timeout_s=3600.0,
    environment=Environment("3.12", ("numpy==2.0", "pillow"), "x --hash=sha256:00\n"), repeatable=True, platform="p",
    config={"max_batch_size": 8, "dims": [[1, 2]]}, warnings=("one", "two"), digest="0abc", readme="# About",
    explainer={"method": "exact", "rows": 5}, named_version=True,
)  # fmt: skip


def strict(document: Any) -> Any:
    """Through the text of JSON as any parser in the world takes it."""
    return json.loads(json.dumps(document, allow_nan=False))


def there_and_back(spec: ModelSpec) -> ModelSpec:
    return spec_from_json(strict(spec_to_json(spec)))


def test_the_example_sets_every_field() -> None:
    """So that a field that is added and forgotten here is noticed."""
    records: list[tuple[Any, Any]] = [
        (SPEC, ModelSpec("")),
        (SPEC.batch, BatchPolicy()),
        (SIGNATURE, Signature()),
        (SPEC.environment, Environment()),
        (SPEC.steps[0], Step("")),
        (SIGNATURE.inputs[0], TensorSpec("", None, None)),
    ]
    for record, plain_record in records:
        for each in fields(record):
            if each.init:
                assert repr(getattr(record, each.name)) != repr(getattr(plain_record, each.name)), each.name


def test_every_field_of_a_specification_comes_back() -> None:
    """Compared as texts where arrays and NaN are, and by equality everywhere else."""
    back = there_and_back(SPEC)
    for each in fields(SPEC):
        before, after = getattr(SPEC, each.name), getattr(back, each.name)
        if each.name in ("arguments", "warmup"):
            assert repr(plain(before)) == repr(plain(after))
        else:
            assert before == after, each.name
    assert back.warmup[1]["inputs"]["x"].dtype == np.dtype("f4")
    assert back.warmup[1]["inputs"]["s"].tolist() == [b"\0", b"x"]
    assert math.isnan(back.arguments["nested"]["a"][4])
    assert type(back.batch.preferred) is tuple
    assert there_and_back(back).with_revision("state").revision == back.with_revision("state").revision


def test_a_plain_specification_is_a_short_document() -> None:
    """Defaults are left out, so that a new field changes no stored document."""
    assert spec_to_json(ModelSpec("m", artifact="/a")) == {"name": "m", "artifact": "/a"}
    assert there_and_back(ModelSpec("m")) == ModelSpec("m")


def test_signatures_come_back() -> None:
    """Every datatype is the one object that there is of it, and ALL_PARAMETERS stays itself."""
    given = {
        "": SIGNATURE,
        "@demo": Signature(reads=ALL_PARAMETERS),
        "all": Signature(inputs=tuple(TensorSpec(d.name, d, (1,)) for d in DATATYPES.values())),
    }
    back = signatures_from_json(strict(signatures_to_json(given)))
    assert back == given
    assert back["@demo"].reads is ALL_PARAMETERS
    assert back[""].input_by_name["x"].datatype is FP32


_SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()


@given(
    st.recursive(
        _SCALARS,
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.text() | st.just("$dragoman"), inner) | st.dictionaries(st.integers(), inner, min_size=1)
        ),
        max_leaves=10,
    )
)
def test_values_of_configurations_come_back(value: Any) -> None:
    """Infinities, bytes, dicts by number, and dicts with the very key that marks these."""
    assert repr(restored(strict(plain(value)))) == repr(value)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"name": "m", "colour": "red"},
        {"name": "m", "batch": 5},
        {"name": "m", "batch": {"size": 5}},
        {"name": "m", "signature": {"form": "poem"}},
        {"name": "m", "signature": {"inputs": [{"name": "x", "datatype": "FP31", "shape": [1]}]}},
        {"name": "m", "arguments": {"$dragoman": ["soul", 1]}},
        {"name": "m", "arguments": {"$dragoman": "float"}},
        {"name": "m", "steps": 7},
        "m",
        None,
    ],
)
def test_a_wrong_document_is_refused(document: Any) -> None:
    """Unknown fields too: they would be settings without effect."""
    with pytest.raises(ValueError):
        spec_from_json(document)


def test_what_no_configuration_can_hold_is_refused() -> None:
    """When it is written, naming the type."""
    with pytest.raises(ValueError, match="type object"):
        spec_to_json(ModelSpec("m", arguments={"x": object()}))
