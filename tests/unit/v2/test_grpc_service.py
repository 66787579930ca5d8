"""GRPCInferenceService without its transport (O27, O28): what surrounds inference, and streams of requests."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import InferResult

from dragoman.core.errors import Kind, ServingError
from dragoman.dialects import Access
from dragoman.dialects.rpc import Code, RpcCall
from tests.unit.v2.client import Client, words
from tests.unit.v2.test_grpc_codec import flower, given_input, pb, request

SHARED_MEMORY = [f"{kind}SharedMemory{act}" for kind in ("System", "Cuda") for act in ("Status", "Register", "Unregister")]


def ask(server: Client, method: str, **fields: Any) -> Any:
    message = getattr(pb, f"{method}Request")(**fields)
    return getattr(pb, f"{method}Response").FromString(server.call(method, message.SerializeToString()))


def test_the_service_has_every_method() -> None:
    """By the names of Triton's own description; whoever changes the server needs a key for that."""
    with Client([words()]) as server:
        methods = server.service.methods
        assert methods.keys() == {method.name for method in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods}
        assert methods["ModelStreamInfer"].access is methods["ModelInfer"].access is Access.INFER
        admin = {name for name, method in methods.items() if method.access is Access.ADMIN}
    changing = {"RepositoryModelLoad", "RepositoryModelUnload", "TraceSetting", "LogSettings"}
    assert admin == changing | {name for name in SHARED_MEMORY if not name.endswith("Status")}


def test_every_error_has_a_status() -> None:
    """And its message as the text."""
    with Client([]) as server:
        codes = {kind: server.service.refuse(ServingError(kind, "why")) for kind in Kind}
    assert {text for _, text in codes.values()} == {"why"}
    assert codes[Kind.NOT_FOUND][0] is Code.NOT_FOUND
    assert codes[Kind.INVALID_INPUT][0] is Code.INVALID_ARGUMENT
    assert codes[Kind.TOO_LARGE][0] is Code.RESOURCE_EXHAUSTED


def test_health(server: Client) -> None:
    """Live, ready, and a model that is not known is not ready (row 43)."""
    assert ask(server, "ServerLive").live
    assert ask(server, "ServerReady").ready
    assert ask(server, "ModelReady", name="iris").ready
    assert ask(server, "ModelReady", name="iris", version="1").ready
    assert not ask(server, "ModelReady", name="iris", version="7").ready
    assert not ask(server, "ModelReady", name="none").ready


def test_not_ready_while_the_server_shuts_down() -> None:
    """As over HTTP."""
    with Client([words()]) as server:
        server.gateway.draining = True
        assert not ask(server, "ServerReady").ready
        assert ask(server, "ServerLive").live


def test_metadata_says_what_rest_says(server: Client) -> None:
    """Of the server and of a model, with every version or one."""
    told, rest = ask(server, "ServerMetadata"), server.send("GET", "/v2").json
    assert (told.name, told.version, list(told.extensions)) == (rest["name"], rest["version"], rest["extensions"])
    for version in ("", "1"):
        model = ask(server, "ModelMetadata", name="iris", version=version)
        said = server.send("GET", "/v2/models/iris" + (f"/versions/{version}" if version else "")).json
        assert (model.name, list(model.versions), model.platform) == (said["name"], said["versions"], said["platform"])
        for ours, theirs in ((model.inputs, said["inputs"]), (model.outputs, said["outputs"])):
            assert [(t.name, t.datatype, list(t.shape)) for t in ours] == [(t["name"], t["datatype"], t["shape"]) for t in theirs]


def test_configuration_and_statistics(server: Client) -> None:
    """As messages of Triton's own types."""
    config = ask(server, "ModelConfig", name="iris").config
    assert (config.name, config.max_batch_size, config.input[0].name, list(config.input[0].dims)) == ("iris", 8, "input", [4])
    before = ask(server, "ModelStatistics", name="iris", version="2").model_stats[0].inference_count
    server.call("ModelInfer", flower().SerializeToString())
    stats = ask(server, "ModelStatistics", name="iris", version="2").model_stats
    assert [(row.name, row.version, row.inference_count) for row in stats] == [("iris", "2", before + 1)]
    assert {row.name for row in ask(server, "ModelStatistics").model_stats} > {"iris", "text"}


def test_the_index(server: Client) -> None:
    """One row per version, with the state in Triton's word (row 45)."""
    rows = {(row.name, row.version): row.state for row in ask(server, "RepositoryIndex").models}
    assert rows["iris", "1"] == rows["iris", "2"] == "READY"
    assert ask(server, "RepositoryIndex", ready=True).models


@pytest.mark.parametrize("method", ["ModelMetadata", "ModelConfig", "ModelStatistics"])
@pytest.mark.parametrize("given", [{"name": "none"}, {"name": "iris", "version": "9"}])
def test_unknown_models(server: Client, method: str, given: dict[str, str]) -> None:
    """NOT_FOUND, for versions too."""
    with pytest.raises(ServingError) as caught:
        ask(server, method, **given)
    assert caught.value.kind is Kind.NOT_FOUND


@pytest.mark.parametrize("method", SHARED_MEMORY)
def test_there_is_no_shared_memory(server: Client, method: str) -> None:
    """UNIMPLEMENTED, in words (O26)."""
    with pytest.raises(ServingError, match="no shared memory extension") as caught:
        ask(server, method)
    assert server.service.refuse(caught.value)[0] is Code.UNIMPLEMENTED


def _parameter(**chosen: Any) -> Any:
    return pb.ModelRepositoryParameter(**chosen)


@pytest.mark.parametrize(
    ("method", "parameters", "text"),
    [
        ("RepositoryModelLoad", {"config": {"int64_param": 3}}, "the parameter 'config' is 3, expected the JSON text"),
        ("RepositoryModelLoad", {"file:1/m.onnx": {"string_param": "x"}, "config": {"string_param": "{}"}}, "expected bytes"),
        ("RepositoryModelLoad", {"file:1/m.onnx": {"bytes_param": b"x"}}, "needs the parameter 'config' too"),
        ("RepositoryModelLoad", {"version": {"bool_param": True}}, "the parameter 'version' is true"),
        ("RepositoryModelUnload", {"unload_dependents": {"string_param": "x"}}, "expected true or false"),
    ],
)
def test_wrong_repository_parameters(server: Client, method: str, parameters: dict[str, Any], text: str) -> None:
    """Each is named, with what was expected."""
    given = {name: _parameter(**chosen) for name, chosen in parameters.items()}
    with pytest.raises(ServingError, match=text) as caught:
        ask(server, method, model_name="iris", parameters=given)
    assert caught.value.kind is Kind.INVALID_INPUT


def test_load_of_an_unknown_model(server: Client) -> None:
    """NOT_FOUND (O18)."""
    with pytest.raises(ServingError) as caught:
        ask(server, "RepositoryModelLoad", model_name="none")
    assert caught.value.kind is Kind.NOT_FOUND


def test_log_settings(server: Client) -> None:
    """Asked for by changing none; one that cannot be had is refused by its name."""
    settings = ask(server, "LogSettings").settings
    assert {name: value.WhichOneof("parameter_choice") for name, value in settings.items()} == {
        "log_file": "string_param",
        "log_info": "bool_param",
        "log_warning": "bool_param",
        "log_error": "bool_param",
        "log_verbose_level": "uint32_param",
        "log_format": "string_param",
    }
    changed = {"log_verbose_level": pb.LogSettingsRequest.SettingValue(uint32_param=1)}
    assert ask(server, "LogSettings", settings=changed).settings["log_verbose_level"].uint32_param == 1
    with pytest.raises(ServingError, match="no log setting 'loud'"):
        ask(server, "LogSettings", settings={"loud": pb.LogSettingsRequest.SettingValue(bool_param=True)})


def test_trace_settings(server: Client) -> None:
    """Of all models and of one; no value at all takes a setting back."""

    def given(**values: list[str]) -> dict[str, Any]:
        return {name: pb.TraceSettingRequest.SettingValue(value=value) for name, value in values.items()}

    of_one = ask(server, "TraceSetting", model_name="iris", settings=given(trace_rate=["7"], trace_level=["TIMESTAMPS"])).settings
    assert (list(of_one["trace_rate"].value), list(of_one["trace_level"].value)) == (["7"], ["TIMESTAMPS"])
    assert list(ask(server, "TraceSetting").settings["trace_rate"].value) == ["1000"]
    back = ask(server, "TraceSetting", model_name="iris", settings=given(trace_rate=[], trace_level=[])).settings
    assert (list(back["trace_rate"].value), list(back["trace_level"].value)) == (["1000"], ["OFF"])
    with pytest.raises(ServingError, match="trace_rate"):
        ask(server, "TraceSetting", settings=given(trace_rate=["1", "2"]))
    with pytest.raises(ServingError, match="none"):
        ask(server, "TraceSetting", model_name="none")


@pytest.mark.parametrize("method", ["ModelReady", "ModelConfig", "RepositoryModelLoad", "LogSettings", "ServerLive"])
def test_undecodable_messages(server: Client, method: str) -> None:
    """INVALID_INPUT by the name of what was expected."""
    with pytest.raises(ServingError, match=f"is no {method}Request") as caught:
        server.call(method, b"\x0a\xff")
    assert caught.value.kind is Kind.INVALID_INPUT


# --- streams ---


def streamed(server: Client, *messages: bytes, stop_after: int = 0) -> list[Any]:
    """The answers to a stream of requests; with `stop_after` only so many are read."""

    async def sent() -> AsyncIterator[bytes]:
        for message in messages:
            yield message

    async def read() -> list[Any]:
        stream = server.service.methods["ModelStreamInfer"].stream
        assert stream is not None
        found: list[Any] = []
        async with aclosing(stream(sent(), RpcCall())) as answers:
            async for answer in answers:
                found.append(pb.ModelStreamInferResponse.FromString(answer))
                if len(found) == stop_after:
                    break
        return found

    return server.run(read())


def text_request(text: str, *, model: str = "words", **fields: Any) -> Any:
    return request(model, given_input("text_input", np.array([[text]], object), "BYTES"), **fields)


def final(answer: Any) -> bool:
    flag = answer.infer_response.parameters["triton_final_response"]
    assert flag.WhichOneof("parameter_choice") == "bool_param"
    return bool(flag.bool_param)


def texts(answers: list[Any]) -> list[bytes]:
    made = [InferResult(answer.infer_response).as_numpy("text_output") for answer in answers]
    return [bytes(array.ravel()[0]) for array in made if array is not None]


def test_a_stream_answers_in_order(server: Client) -> None:
    """One response per request, each the last of its own, by its id."""
    answers = streamed(server, *(flower(id=f"r{index}").SerializeToString() for index in range(100)))
    assert [answer.infer_response.id for answer in answers] == [f"r{index}" for index in range(100)]
    assert all(final(answer) for answer in answers)
    assert not any(answer.error_message for answer in answers)


def test_a_bad_request_leaves_the_stream_alive(server: Client) -> None:
    """It comes back as an error message with its id, what cannot be read without (section 10)."""
    bad = flower(id="bad")
    del bad.inputs[0].shape[:]
    missing = flower(id="none")
    missing.model_name = "none"
    answers = streamed(server, bad.SerializeToString(), b"\xff", missing.SerializeToString(), flower(id="good").SerializeToString())
    assert [bool(answer.error_message) for answer in answers] == [True, True, True, False]
    assert [answer.infer_response.id for answer in answers] == ["bad", "", "none", "good"]
    assert "iris" in answers[0].error_message
    assert "damaged" in answers[1].error_message
    assert "model 'none' is not known" in answers[2].error_message


def test_a_failing_model_leaves_the_stream_alive(server: Client) -> None:
    """What was answered before stays answered."""
    answers = streamed(server, text_request("one bad three").SerializeToString(), text_request("four").SerializeToString())
    assert texts([answers[0], answers[2]]) == [b"one", b"four"]
    assert answers[1].error_message == "model 'words' failed: a bad word"


def test_models_that_answer_in_parts(server: Client) -> None:
    """One response per part; requests of one stream do not mix."""
    answers = streamed(server, *(text_request(text, id=text[0]).SerializeToString() for text in ("a b c", "d e")))
    assert texts(answers) == [b"a", b"b", b"c", b"d", b"e"]
    assert [answer.infer_response.id for answer in answers] == ["a", "a", "a", "d", "d"]
    assert [final(answer) for answer in answers] == [False, False, True, False, True]


def test_the_flag_of_the_end(server: Client) -> None:
    """Who asked gets the end by an empty answer where the last part could not tell it, others at the last part; it must be a boolean."""
    unknown = text_request("a ...", id="u")
    assert [final(answer) for answer in streamed(server, unknown.SerializeToString())] == [False, True]
    unknown.parameters["triton_enable_empty_final_response"].bool_param = True
    answers = streamed(server, unknown.SerializeToString())
    assert [final(answer) for answer in answers] == [False, False, True]
    assert (answers[2].infer_response.id, list(answers[2].infer_response.outputs)) == ("u", [])
    asked = flower()
    asked.parameters["triton_enable_empty_final_response"].bool_param = True
    wrong = flower()
    wrong.parameters["triton_enable_empty_final_response"].string_param = "yes"
    answers = streamed(server, asked.SerializeToString(), wrong.SerializeToString())
    assert final(answers[0])
    assert "must be true or false" in answers[1].error_message


@pytest.mark.parametrize("asked", [False, True])
def test_no_parts_at_all(server: Client, asked: bool) -> None:
    """Are one answer without outputs: nobody waits for ever."""
    request = text_request("", id="none")
    if asked:
        request.parameters["triton_enable_empty_final_response"].bool_param = True
    (answer,) = streamed(server, request.SerializeToString())
    assert final(answer)
    assert (answer.infer_response.id, list(answer.infer_response.outputs), answer.error_message) == ("none", [], "")


def test_who_stops_reading_cancels(server: Client) -> None:
    """Nothing that was asked for runs on."""
    before = server.gateway.find("words").in_flight
    assert len(streamed(server, *[text_request("a " * 50).SerializeToString()] * 3, stop_after=2)) == 2
    assert server.gateway.find("words").in_flight == before == 0


def test_a_stream_that_breaks_ends(server: Client) -> None:
    """What was asked before is answered, then its error is the stream's."""

    async def sent() -> AsyncGenerator[bytes, None]:
        yield flower(id="first").SerializeToString()
        await asyncio.sleep(0)
        raise ConnectionError("gone")

    async def read() -> list[bytes]:
        stream = server.service.methods["ModelStreamInfer"].stream
        assert stream is not None
        found: list[bytes] = []
        try:
            async for answer in stream(sent(), RpcCall()):
                found.append(answer)  # noqa: PERF401 # what came before the error counts
        except ConnectionError:
            return found
        raise AssertionError("it ended as if nothing had happened")

    (answer,) = server.run(read())
    assert pb.ModelStreamInferResponse.FromString(answer).infer_response.id == "first"
