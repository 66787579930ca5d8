"""Classify, Regress and MultiInference over toy models, called as the listener calls them."""

from typing import Any

import pytest

from dragoman.core.tensors import Tensors
from dragoman.dialects.rpc import Code
from dragoman.proto.messages import message_class, new
from tests.fakes_tfs_grpc import CLASSIFY, REGRESS, Fake, of_examples, several, spec_of


@pytest.fixture(scope="module")
def fake() -> Fake:
    return several()


def example(**features: float) -> Any:
    made: Any = new("tensorflow.Example")
    for name, value in features.items():
        made.features.feature[name].float_list.value.append(value)
    return made


def given(*examples: Any, context: Any = None) -> dict[str, Any]:
    if context is None:
        return {"example_list": {"examples": list(examples)}}
    return {"example_list_with_context": {"examples": list(examples), "context": context}}


def test_classify_and_regress(fake: Fake) -> None:
    """One result per example, in order; labels are empty where the model has none."""
    short, long = example(x=1), example(x=1, yyyy=2)
    sizes = [each.ByteSize() for each in (short, long)]
    answer = fake.predictions.send("Classify", model_spec={"name": "examples"}, input=given(short, long))
    found = [[(each.label, each.score) for each in classes.classes] for classes in answer.result.classifications]
    assert found == [[("", size / 2)] for size in sizes]
    assert spec_of(answer) == ("examples", 3, "serving_default")
    answer = fake.predictions.send("Regress", model_spec={"name": "examples", "signature_name": "longer"}, input=given(short, long))
    assert [each.value for each in answer.result.regressions] == sizes
    assert spec_of(answer) == ("examples", 3, "longer")


def test_the_context_is_part_of_every_example() -> None:
    """Its features come before those of the example, which win."""
    toy = of_examples()
    served = Fake({"m": toy})
    served.predictions.send("Classify", model_spec={"name": "m"}, input=given(example(x=1), example(y=2), context=example(x=5, z=6)))
    inputs = toy.seen[0].inputs
    assert isinstance(inputs, Tensors)
    fed = [message_class("tensorflow.Example").FromString(each) for each in inputs.items[0].array]
    values = [{name: each.float_list.value[0] for name, each in one.features.feature.items()} for one in fed]  # type: ignore[attr-defined] # made at run time
    assert values == [{"x": 1, "z": 6}, {"x": 5, "y": 2, "z": 6}]


def test_features_are_inputs_of_other_models(fake: Fake) -> None:
    """A model that parses no Examples gets their features by name."""
    answer = fake.predictions.send("Regress", model_spec={"name": "half"}, input=given(example(x=1), example(x=3)))
    assert [each.value for each in answer.result.regressions] == [3.5, 4.5]


def test_multi_inference(fake: Fake) -> None:
    """Several signatures over the same examples: each answer says which it is from, in the order of the tasks."""
    tasks = [
        {"model_spec": {"name": "examples", "signature_name": "longer"}, "method_name": REGRESS},
        {"model_spec": {"name": "examples"}, "method_name": CLASSIFY},
    ]
    one = example(x=1)
    answer = fake.predictions.send("MultiInference", tasks=tasks, input=given(one))
    regression, classification = answer.results
    assert regression.regression_result.regressions[0].value == one.ByteSize()
    assert classification.classification_result.classifications[0].classes[0].score == one.ByteSize() / 2
    assert [spec_of(each)[2] for each in answer.results] == ["longer", "serving_default"]


TASK = {"model_spec": {"name": "examples"}, "method_name": CLASSIFY}


@pytest.mark.parametrize(
    ("method", "fields", "code", "text"),
    [
        pytest.param("Classify", {"model_spec": {"name": "examples"}}, Code.INVALID_ARGUMENT, "Input is empty.", id="no input"),
        pytest.param(
            "Regress", {"model_spec": {"name": "examples"}, "input": given()}, Code.INVALID_ARGUMENT, "Input is empty.", id="no examples"
        ),
        pytest.param("Classify", {"input": given(example(x=1))}, Code.INVALID_ARGUMENT, "has no name", id="no model"),
        pytest.param(
            "Classify", {"model_spec": {"name": "no"}, "input": given(example(x=1))}, Code.NOT_FOUND, "Latest(no)", id="another model"
        ),
        pytest.param(
            "Regress",
            {"model_spec": {"name": "examples", "signature_name": "no"}, "input": given(example(x=1))},
            Code.INVALID_ARGUMENT,
            "No signature was found with the name: no",
            id="another signature",
        ),
        pytest.param(
            "Regress",
            {"model_spec": {"name": "examples"}, "input": given(example(x=1))},
            Code.INVALID_ARGUMENT,
            "No regression outputs found in SignatureDef",
            id="a signature of another kind",
        ),
        pytest.param("MultiInference", {"input": given(example(x=1))}, Code.INVALID_ARGUMENT, "tasks are empty", id="no tasks"),
        pytest.param("MultiInference", {"tasks": [TASK]}, Code.INVALID_ARGUMENT, "Input is empty.", id="tasks without input"),
        pytest.param(
            "MultiInference",
            {"tasks": [TASK, {"model_spec": {"name": "half"}}], "input": given(example(x=1))},
            Code.INVALID_ARGUMENT,
            "must access the same model name",
            id="two models",
        ),
        pytest.param(
            "MultiInference",
            {"tasks": [TASK, TASK], "input": given(example(x=1))},
            Code.INVALID_ARGUMENT,
            "Duplicate evaluation of signature: serving_default",
            id="one task twice",
        ),
        pytest.param(
            "MultiInference",
            {"tasks": [{"model_spec": {"name": "examples"}, "method_name": "predict"}], "input": given(example(x=1))},
            Code.UNIMPLEMENTED,
            "Unsupported signature method_name: predict",
            id="another method",
        ),
    ],
)
def test_refusals_of_examples(fake: Fake, method: str, fields: dict[str, Any], code: Code, text: str) -> None:
    """As for Predict, but for the signature: this protocol calls that INVALID_ARGUMENT here."""
    refused = fake.predictions.send(method, **fields)
    assert refused.code is code
    assert text in refused.text


def test_a_context_cannot_be_multiplied_without_end() -> None:
    """What a context takes in all examples together counts against the same limit as one value for all."""
    served = Fake({"m": of_examples()}, max_inflated=1000)
    many = given(*[example()] * 50, context=example(x=1, y=2))
    assert served.predictions.send("Classify", model_spec={"name": "m"}, input=many).code is Code.RESOURCE_EXHAUSTED
