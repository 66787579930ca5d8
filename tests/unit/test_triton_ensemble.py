"""ensemble_scheduling: steps come in an order in which they can run, and ensembles that cannot run are refused with the reason."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import BatchPolicy, Step
from dragoman.core.tensors import BYTES, FP32, TensorSpec
from dragoman.serving.settings import ModelSettings
from dragoman.serving.triton import read_config, translate

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "triton"
NOWHERE = Path("/nonexistent")


def tensor(kind: str, name: str) -> str:
    return f'{kind} {{ name: "{name}" data_type: TYPE_FP32 dims: 1 }}'


def step(model: str, reads: Mapping[str, str], writes: Mapping[str, str], more: str = "") -> str:
    maps = [f'input_map {{ key: "{key}" value: "{value}" }}' for key, value in reads.items()]
    maps += [f'output_map {{ key: "{key}" value: "{value}" }}' for key, value in writes.items()]
    return f'step {{ model_name: "{model}" {" ".join(maps)} {more} }}'


def ensemble(inputs: Sequence[str], outputs: Sequence[str], *steps: str) -> str:
    declared = [*(tensor("input", name) for name in inputs), *(tensor("output", name) for name in outputs)]
    return f'platform: "ensemble" {" ".join(declared)} ensemble_scheduling {{ {" ".join(steps)} }}'


def settings_of(text: str) -> ModelSettings:
    return translate(read_config(text, "e"), NOWHERE)


def refused(text: str) -> str:
    with pytest.raises(ServingError) as caught:
        settings_of(text)
    assert caught.value.kind is Kind.INVALID_INPUT
    assert caught.value.message.startswith("config.pbtxt of model 'e': ")
    return caught.value.message


A = step("a", {"in": "x"}, {"out": "t"})
B = step("b", {"in": "t"}, {"out": "y"})


def test_a_pipeline_in_any_order() -> None:
    """The steps of the sample come as they can run: what decodes first, then both that read what it wrote."""
    settings = translate(read_config((GOLDEN / "pipeline.pbtxt").read_bytes(), "pipeline"), NOWHERE)
    assert settings.steps == (
        Step("decode", "", {"bytes": "IMAGE"}, {"pixels": "decoded"}),
        Step("classify", "", {"pixels": "decoded"}, {"probabilities": "CLASS"}),
        Step("detect", "3", {"pixels": "decoded"}, {"boxes": "BOXES"}),
    )
    assert settings.inputs == (TensorSpec("IMAGE", BYTES, (-1, 1)),)
    assert settings.outputs == (TensorSpec("CLASS", FP32, (-1, 1000)), TensorSpec("BOXES", FP32, (-1, -1, 4)))
    assert (settings.runtime, settings.platform, settings.filename) == ("", "ensemble", "")
    assert settings.batch == BatchPolicy(max_size=4, refuse_larger=True)
    assert {warning.partition(": ")[2] for warning in settings.warnings} == {
        "ensemble_scheduling.max_inflight_requests has no effect here",
        "ensemble_scheduling.step[1].model_namespace has no effect here",
    }


def test_the_platform_may_be_left_out() -> None:
    """ensemble_scheduling says it already; without max_batch_size nothing is joined."""
    settings = settings_of(ensemble(["x"], ["y"], A, B).replace('platform: "ensemble"', ""))
    assert [s.model for s in settings.steps] == ["a", "b"]
    assert settings.batch == BatchPolicy(max_size=1)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(ensemble(["x"], ["y", "t"], A, B), id="a tensor between steps is an output too"),
        pytest.param(ensemble(["x"], ["y", "x"], A, B), id="an input is passed through"),
        pytest.param(ensemble(["x"], ["y"], step("a", {"p": "x", "q": "x"}, {"out": "y"})), id="one tensor feeds two inputs"),
        pytest.param(
            ensemble(["x"], ["y", "z"], step("a", {"in": "x"}, {"out": "y"}), step("a", {"in": "y"}, {"out": "z"})), id="one model twice"
        ),
    ],
)
def test_ensembles_that_can_run(text: str) -> None:
    """Shapes that are unusual and fine."""
    assert settings_of(text).steps


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param('platform: "ensemble"', "so ensemble_scheduling is expected", id="nothing scheduled"),
        pytest.param(f'backend: "onnxruntime" {ensemble(["x"], ["y"], A, B)}', "no backend, not 'onnxruntime'", id="a backend"),
        pytest.param(
            ensemble(["x"], ["y"], A, B).replace('"ensemble"', '"onnxruntime_onnx"'), "needs the platform 'ensemble'", id="a platform"
        ),
        pytest.param(ensemble(["x"], ["y"]), "0 steps, expected 1 to 1000", id="no step"),
        pytest.param(ensemble(["x"], ["y"], *[A] * 1001), "1001 steps", id="too many steps"),
        pytest.param(ensemble([], ["y"], A, B), "needs its inputs listed", id="no input"),
        pytest.param(ensemble(["x"], [], A, B), "needs its outputs listed", id="no output"),
        pytest.param(
            ensemble(["x"], ["y"], A, B).replace("dims: 1", "", 1), "input 'x' of an ensemble needs data_type and dims", id="no dims"
        ),
        pytest.param(
            ensemble(["x"], ["y"], A, B).replace('"y" data_type: TYPE_FP32', '"y"', 1),
            "output 'y' of an ensemble needs data_type and dims",
            id="no datatype",
        ),
        pytest.param(ensemble(["x"], ["y"], A, step("", {"in": "t"}, {"out": "y"})), "step[1]: expected model_name", id="no model"),
        pytest.param(ensemble(["x"], ["y"], A, step("e", {"in": "t"}, {"out": "y"})), "step[1]: the ensemble calls itself", id="itself"),
        pytest.param(ensemble(["x"], ["y"], A, step("b", {}, {"out": "y"})), "step[1]: expected input_map", id="reads nothing"),
        pytest.param(ensemble(["x"], ["y"], A, step("b", {"in": "t"}, {})), "step[1]: expected output_map", id="writes nothing"),
        pytest.param(
            ensemble(["x"], ["y"], step("a", {"": "x"}, {"out": "y"})), "step[0]: input_map: expected a name on both sides", id="no key"
        ),
        pytest.param(ensemble(["x"], ["y"], step("a", {"in": "x"}, {"out": ""})), "step[0]: output_map: expected a name", id="no value"),
        pytest.param(
            ensemble(["x"], ["y"], step("a", {"in": "x"}, {"out": "y"}, "model_version: -2")),
            "model_version is -2, expected -1",
            id="a version that cannot be",
        ),
        pytest.param(
            ensemble(["x"], ["y", "z"], A, B), "output 'z' of the ensemble is not written by any step", id="an output not written"
        ),
        pytest.param(ensemble(["x", "u"], ["y"], A, B), "input 'u' of the ensemble is not read by any step", id="an input not read"),
        pytest.param(
            ensemble(["x"], ["y"], A, step("b", {"in": "u"}, {"out": "y"})),
            "step[1]: input 'in' reads 'u', which is neither",
            id="reads what nobody writes",
        ),
        pytest.param(
            ensemble(["x"], ["y"], A, step("b", {"in": "t"}, {"out": "y", "more": "u"})),
            "tensor 'u' is written, but neither read",
            id="writes what nobody reads",
        ),
        pytest.param(
            ensemble(["x"], ["y"], A, B, step("c", {"in": "t"}, {"out": "y"})), "step[2] writes 'y', which step[1] writes too", id="twice"
        ),
        pytest.param(
            ensemble(["x"], ["y"], step("a", {"in": "x"}, {"one": "y", "two": "y"})),
            "step[0] writes 'y', which step[0] writes too",
            id="twice in one step",
        ),
        pytest.param(
            ensemble(["x", "t"], ["y"], A, step("b", {"in": "t"}, {"out": "y"})),
            "step[0] writes 't', which is an input of the ensemble",
            id="writes an input",
        ),
        pytest.param(
            ensemble(["x"], ["y"], step("a", {"p": "x", "q": "y"}, {"out": "t"}), B),
            "in a circle: step[0] (a), step[1] (b)",
            id="a circle of two",
        ),
        pytest.param(
            ensemble(["x"], ["y"], step("a", {"p": "x", "q": "y"}, {"out": "y"})), "in a circle: step[0] (a)", id="a circle of one"
        ),
    ],
)
def test_ensembles_that_cannot_run(text: str, expected: str) -> None:
    """Refused when the file is read, with the step and the tensor that are wrong."""
    assert expected in refused(text)


def test_what_only_single_models_have_is_named() -> None:
    """Instances, warm-up, parameters, batching belong to the members."""
    text = ensemble(["x"], ["y"], A, B) + ' instance_group { count: 2 } parameters { key: "a" value { } } default_model_filename: "m.onnx"'
    settings = settings_of(text + ' model_warmup { name: "w" batch_size: 9 }')
    assert (settings.instances, settings.arguments, settings.warmup, settings.filename) == ((), {}, (), "")
    named = {warning.partition(": ")[2].removesuffix(" has no effect here") for warning in settings.warnings}
    assert named == {
        "instance_group[0].count",
        "parameters['a']",
        "default_model_filename",
        "model_warmup[0].name",
        "model_warmup[0].batch_size",
    }


def test_long_names_are_cut_in_messages() -> None:
    """The text of a refusal stays readable whatever the file holds."""
    name = "n" * 50_000
    assert len(refused(ensemble(["x"], [name], A, B))) < 400


def test_a_thousand_steps_backwards() -> None:
    """A long chain that is written from its end is put in order without taking for ever."""
    chain = [step(f"m{index}", {"in": f"t{index}"}, {"out": f"t{index + 1}"}) for index in range(1000)]
    settings = settings_of(ensemble(["t0"], ["t1000"], *reversed(chain)))
    assert [s.model for s in settings.steps] == [f"m{index}" for index in range(1000)]


@given(st.data())
def test_any_order_of_a_graph_can_run(data: st.DataObject) -> None:
    """Random graphs, their steps shuffled: in the order that comes out, each step finds what it reads."""
    count = data.draw(st.integers(1, 8))
    reads = [data.draw(st.sets(st.integers(0, index), min_size=1)) for index in range(count)]
    read = set[int]().union(*reads)
    outputs = [f"t{index}" for index in range(1, count + 1) if index not in read]
    steps = [step(f"m{i}", {f"p{j}": f"t{j}" for j in reads[i]}, {"out": f"t{i + 1}"}) for i in range(count)]
    settings = settings_of(ensemble(["t0"], outputs, *data.draw(st.permutations(steps))))
    present = {"t0"}
    for member in settings.steps:
        assert present.issuperset(member.inputs.values())
        present.update(member.outputs.values())
    assert len(settings.steps) == count
    assert present.issuperset(outputs)
