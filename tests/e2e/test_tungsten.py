"""Tungsten's REST protocol over real sockets: the real command serves a model file as users wrote it, a plain client drives it."""

import json
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.plain import Plain, until
from tests.e2e.running import Running, serving
from tests.models import tungsten_files

UNFINISHED = ("pending", "running")


@dataclass
class Talking:
    """A server with the talker, which waits wherever a prompt says `wait FILE` until that file exists."""

    running: Running
    model: Path
    gates: Path

    @property
    def client(self) -> Plain:
        return Plain(self.running.port)

    def gate(self, name: str) -> Path:
        return self.gates / name

    def submit(self, *inputs: dict[str, Any], path: str = "/predictions") -> str:
        reply = self.client.post(path, list(inputs))
        assert reply.status == 200, reply.body
        answer = reply.json()
        assert list(answer) == (["demo_id"] if path.endswith("/demo") else ["prediction_id"])
        return str(next(iter(answer.values())))

    def state(self, prediction: str) -> dict[str, Any]:
        reply = self.client.get(f"/predictions/{prediction}")
        assert reply.status == 200, reply.body
        answer: dict[str, Any] = reply.json()
        return answer

    def reach(self, prediction: str, *statuses: str) -> dict[str, Any]:
        """Poll until the prediction has one of these statuses."""

        def ask() -> dict[str, Any] | None:
            state = self.state(prediction)
            return state if state["status"] in statuses else None

        return until(ask, what=f"a status of {' or '.join(statuses)}")

    def end(self, prediction: str) -> dict[str, Any]:
        return self.reach(prediction, "success", "failed")

    def runs(self) -> list[list[list[Any]]]:
        """Every batch so far: per input its prompt, times and style."""
        log = self.model / "runs.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def runs_with(self, *prompts: str) -> list[list[str]]:
        """The prompts of each batch that had one of these, in order."""
        return [[i[0] for i in batch] for batch in self.runs() if any(i[0] in prompts for i in batch)]


@pytest.fixture(scope="module")
def talking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Talking]:
    folder = tungsten_files.write_talker(tmp_path_factory.mktemp("talker") / "talker")
    gates = tmp_path_factory.mktemp("gates")
    with serving(tmp_path_factory.mktemp("data"), str(folder)) as running:
        yield Talking(running, folder, gates)


@pytest.fixture
def busy(talking: Talking, request: pytest.FixtureRequest) -> Iterator[Path]:
    """The model is busy until the gate (this file) is made; it is made at the end at the latest."""
    gate = talking.gate(request.node.name.replace("[", "_").replace("]", "_"))
    held = talking.submit({"prompt": f"wait {gate}"})
    talking.reach(held, "running")
    yield gate
    gate.touch()
    assert talking.end(held)["status"] == "success"


# --- predictions ---


def test_a_prediction_is_accepted_before_it_has_run(talking: Talking, busy: Path) -> None:
    """T7, T9, T10: the id comes at once, waiting shows pending, running shows running, and all three keys are always there."""
    waiting = talking.submit({"prompt": "later"})
    assert len(waiting) == 32
    assert set(waiting) <= set("0123456789abcdef")
    assert talking.state(waiting) == {"outputs": None, "status": "pending", "error_message": None}
    busy.touch()
    done = talking.end(waiting)
    assert done["status"] == "success"
    assert done["error_message"] is None
    assert done["outputs"][0]["text"] == "later"


def test_outputs_come_in_the_order_of_inputs_with_the_declared_names(talking: Talking) -> None:
    """T8, T9: keys are the fields of the output class; twelve inputs at batch size 4 keep their order."""
    prompts = [f"number {i}" for i in range(12)]
    done = talking.end(talking.submit(*({"prompt": p} for p in prompts)))
    assert [o["text"] for o in done["outputs"]] == prompts
    assert list(done["outputs"][0]) == ["text", "batch", "pid", "number", "parts", "counts"]
    assert done["outputs"][0]["parts"] == [{"words": 2}]
    assert done["outputs"][0]["counts"] == {"hello": 8}


def test_the_model_runs_in_its_own_folder_and_process(talking: Talking) -> None:
    """T17: working directory and import path are the model's folder; user code is not in the server's process."""
    assert (talking.model / "imported.txt").read_text() == str(talking.model.resolve())
    done = talking.end(talking.submit({"prompt": "where"}))
    assert done["outputs"][0]["pid"] != talking.running.process.pid


def test_predict_waits_for_the_answer(talking: Talking) -> None:
    """T15: POST /predict answers what GET of the prediction would, failures included."""
    reply = talking.client.post("/predict", [{"prompt": "now"}])
    assert reply.status == 200
    assert reply.json()["status"] == "success"
    assert reply.json()["outputs"][0]["text"] == "now"
    failed = talking.client.post("/predict", [{"prompt": "boom at once"}])
    assert failed.status == 200
    assert failed.json()["status"] == "failed"
    assert failed.json()["outputs"] is None
    assert failed.json()["error_message"].rstrip().endswith("ValueError: boom happened to at once")


# --- batches ---


def test_waiting_inputs_share_a_batch_when_their_options_agree(talking: Talking, busy: Path) -> None:
    """T20, T21: up to batch_size, over requests; an omitted option equals its default; the queue keeps its order."""
    plain = [talking.submit({"prompt": f"grouped p{i}"}) for i in range(3)]
    loud = [talking.submit({"prompt": f"grouped l{i}", "style": "loud"}) for i in range(2)]
    explicit = talking.submit({"prompt": "grouped p3", "times": 1, "style": "plain", "note": None})
    last = talking.submit({"prompt": "grouped p4"})
    busy.touch()
    ended = [talking.end(each) for each in (*plain, *loud, explicit, last)]
    assert all(e["status"] == "success" for e in ended)
    assert ended[3]["outputs"][0]["text"] == "GROUPED L0"
    batches = talking.runs_with(*(f"grouped p{i}" for i in range(5)), "grouped l0", "grouped l1")
    assert batches == [
        ["grouped p0", "grouped p1", "grouped p2", "grouped p3"],
        ["grouped l0", "grouped l1"],
        ["grouped p4"],
    ]


def test_a_request_of_mixed_options_is_split(talking: Talking) -> None:
    """T21: one request with two styles runs as two batches, and its outputs keep their order."""
    done = talking.end(talking.submit(*({"prompt": f"mix {i}", "style": ("plain", "loud")[i % 2]} for i in range(6))))
    assert [o["text"] for o in done["outputs"]] == ["mix 0", "MIX 1", "mix 2", "MIX 3", "mix 4", "MIX 5"]


def test_an_idle_model_is_not_kept_waiting(talking: Talking) -> None:
    """T20: a lone request runs alone, and a batch of several clients forms only while the model is busy."""
    done = talking.end(talking.submit({"prompt": "lonely"}))
    assert done["outputs"][0]["batch"] == 1


def test_forty_clients_get_their_own_answers(talking: Talking) -> None:
    """T20: identity of answers under concurrency, with batches above one."""

    def ask(index: int) -> dict[str, Any]:
        answer: dict[str, Any] = talking.client.post("/predict", [{"prompt": f"client {index}; sleep 0.01"}]).json()
        return answer

    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(ask, range(40)))
    assert [a["outputs"][0]["text"] for a in answers] == [f"client {i}; sleep 0.01" for i in range(40)]
    assert max(a["outputs"][0]["batch"] for a in answers) > 1


# --- failures ---


def test_an_exception_is_told_to_the_one_who_asked(talking: Talking) -> None:
    """T22: failed, with type and message as the last line of a traceback; the server goes on."""
    failed = talking.end(talking.submit({"prompt": "boom today"}))
    assert failed["status"] == "failed"
    assert failed["outputs"] is None
    assert failed["error_message"].startswith("Traceback")
    assert failed["error_message"].rstrip().splitlines()[-1] == "ValueError: boom happened to today"
    assert talking.end(talking.submit({"prompt": "fine"}))["status"] == "success"


def test_one_bad_input_does_not_fail_strangers(talking: Talking, busy: Path) -> None:
    """T33: in a batch of several predictions only the bad one fails, and nobody else sees its traceback."""
    before = talking.submit({"prompt": "stranger one"})
    bad = talking.submit({"prompt": "boom among strangers"})
    after = talking.submit({"prompt": "stranger two"})
    busy.touch()
    assert talking.end(bad)["error_message"].rstrip().endswith("boom happened to among strangers")
    for each in (before, after):
        done = talking.end(each)
        assert done["status"] == "success"
        assert done["error_message"] is None


@pytest.mark.parametrize("prompt", ["leave now", "few", "wrong", "nothing"])
def test_a_model_that_breaks_its_word_fails_at_once(talking: Talking, prompt: str) -> None:
    """T22, T32: SystemExit, too few outputs, an output of the wrong kind and none at all are failures of that prediction alone."""
    failed = talking.end(talking.submit({"prompt": prompt}))
    assert failed["status"] == "failed"
    assert failed["error_message"]
    assert talking.end(talking.submit({"prompt": "next"}))["status"] == "success"


@pytest.mark.parametrize("prompt", ["nan", "inf"])
def test_numbers_that_json_does_not_have_are_no_server_error(talking: Talking, prompt: str) -> None:
    """T31: a non-finite float in an output never gives 500, and the answer is JSON."""
    reply = talking.client.post("/predict", [{"prompt": prompt}])
    assert reply.status == 200
    json.loads(reply.body, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert reply.json()["status"] == "success"


# --- cancel ---


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_waiting_prediction_is_cancelled_and_never_runs(talking: Talking, busy: Path, method: str) -> None:
    """T12, T13, T23: POST and GET alike, an empty body, failed with `Canceled`; twice is once."""
    waiting = talking.submit({"prompt": f"never {method}"})
    for _ in range(2):
        reply = talking.client.call(method, f"/predictions/{waiting}/cancel")
        assert reply.status == 200
        assert talking.state(waiting) == {"outputs": None, "status": "failed", "error_message": "Canceled"}
    busy.touch()
    assert talking.end(talking.submit({"prompt": f"after never {method}"}))["status"] == "success"
    assert talking.runs_with(f"never {method}") == []


def test_a_running_prediction_is_interrupted(talking: Talking) -> None:
    """T12: the worker is free at once, although the run would have slept for an hour."""
    running = talking.submit({"prompt": "sleep 3600"})
    talking.reach(running, "running")
    assert talking.client.post(f"/predictions/{running}/cancel").status == 200
    assert talking.state(running)["status"] == "failed"
    assert talking.state(running)["error_message"] == "Canceled"
    assert talking.end(talking.submit({"prompt": "the worker is free"}))["status"] == "success"


def test_cancelling_one_of_a_shared_batch_leaves_the_others_alone(talking: Talking, busy: Path) -> None:
    """T23: the batch runs on; only the cancelled prediction has no result."""
    gate = talking.gate("shared")
    first = talking.submit({"prompt": f"wait {gate}"})
    second = talking.submit({"prompt": f"wait {gate}; second"})
    busy.touch()
    talking.reach(second, "running")
    assert talking.client.post(f"/predictions/{first}/cancel").status == 200
    assert talking.state(first)["error_message"] == "Canceled"
    gate.touch()
    done = talking.end(second)
    assert done["status"] == "success"
    assert done["outputs"][0]["batch"] == 2
    assert talking.state(first)["status"] == "failed"


def test_cancelling_a_finished_prediction_changes_nothing(talking: Talking) -> None:
    """T23: 200, and the outputs stay."""
    done = talking.submit({"prompt": "finished"})
    before = talking.end(done)
    assert talking.client.post(f"/predictions/{done}/cancel").status == 200
    assert talking.state(done) == before


def test_a_client_that_hangs_up_on_predict_cancels_it(talking: Talking) -> None:
    """T36: the run is interrupted, and the next one starts."""
    body = json.dumps([{"prompt": "sleep 3601"}]).encode()
    with socket.create_connection(("127.0.0.1", talking.running.port)) as line:
        line.sendall(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        line.sendall(body)
        until(lambda: talking.runs_with("sleep 3601"), what="the start of the run")
    assert talking.client.post("/predict", [{"prompt": "whoever is next"}]).json()["status"] == "success"


def test_many_that_wait_hold_up_nobody_who_polls(talking: Talking, busy: Path) -> None:
    """T36: with 60 open /predict calls, polls, cancels and new predictions are answered."""
    with ThreadPoolExecutor(60) as pool:
        waiting = [pool.submit(talking.client.post, "/predict", [{"prompt": f"crowd {i}"}]) for i in range(60)]
        late = talking.submit({"prompt": "late"})
        assert talking.state(late)["status"] == "pending"
        assert talking.client.post(f"/predictions/{late}/cancel").status == 200
        assert not any(each.done() for each in waiting)
        busy.touch()
        assert all(each.result().json()["status"] == "success" for each in waiting)


# --- beyond the original ---


def test_long_polls_answer_when_it_is_done_or_time_is_up(talking: Talking, busy: Path) -> None:
    """`?wait=SECONDS`: the state then, terminal or not."""
    waiting = talking.submit({"prompt": "patience"})
    assert talking.client.get(f"/predictions/{waiting}?wait=0.05").json()["status"] == "pending"
    with ThreadPoolExecutor(1) as pool:
        poll = pool.submit(talking.client.get, f"/predictions/{waiting}?wait=60")
        busy.touch()
        assert poll.result().json()["status"] == "success"


def test_events_tell_status_and_logs_as_they_come(talking: Talking) -> None:
    """Server-sent events until the terminal status."""
    gate = talking.gate("events")
    running = talking.submit({"prompt": f"say first words; wait {gate}; say last words"})
    with socket.create_connection(("127.0.0.1", talking.running.port), timeout=60) as line:
        line.sendall(b"GET /predictions/%b/events HTTP/1.1\r\nHost: localhost\r\n\r\n" % running.encode())
        seen = b""
        while b"first words" not in seen:
            seen += line.recv(65536)
        assert b"text/event-stream" in seen.lower()
        assert b"last words" not in seen
        gate.touch()
        while b"success" not in seen:
            more = line.recv(65536)
            assert more, seen
            seen += more
    assert seen.index(b"running") < seen.index(b"last words") < seen.index(b"success")


# --- demo ---


def test_demo_shows_its_own_outputs_and_live_logs(talking: Talking) -> None:
    """T15, T26: logs grow while it runs; demo outputs beside the outputs; each GET works with either id."""
    gate = talking.gate("demo")
    demo = talking.submit({"prompt": f"say in the middle; wait {gate}"}, path="/demo")

    def logs() -> str | None:
        answer = talking.client.get(f"/demo/{demo}").json()
        return answer["logs"] if "in the middle" in (answer["logs"] or "") else None

    so_far = until(logs, what="live logs")
    assert "demo begins" in so_far
    assert "demo ends" not in so_far
    gate.touch()
    talking.end(demo)
    done = talking.client.get(f"/demo/{demo}").json()
    assert set(done) == {"outputs", "status", "error_message", "demo_outputs", "logs"}
    assert done["status"] == "success"
    assert done["demo_outputs"][0]["shown"].startswith("<say in the middle")
    assert done["outputs"][0]["text"].startswith("say in the middle")
    assert "demo ends" in done["logs"]


def test_demo_and_predictions_never_share_a_batch(talking: Talking, busy: Path) -> None:
    """T21, T26: the demo flag separates batches."""
    demo = talking.submit({"prompt": "apart one"}, path="/demo")
    plain = talking.submit({"prompt": "apart two"})
    busy.touch()
    talking.end(demo)
    talking.end(plain)
    assert talking.runs_with("apart one", "apart two") == [["apart one"], ["apart two"]]


def test_demos_are_cancelled_like_predictions(talking: Talking, busy: Path) -> None:
    """T15: POST /demo/{id}/cancel."""
    demo = talking.submit({"prompt": "no demo"}, path="/demo")
    assert talking.client.post(f"/demo/{demo}/cancel").status == 200
    assert talking.client.get(f"/demo/{demo}").json()["error_message"] == "Canceled"


# --- what the model says of itself ---


def test_the_root_describes_the_model(talking: Talking) -> None:
    """T15, T29: three schemas, inlined, with constraints, choices and default descriptions."""
    answer = talking.client.get("/").json()
    schema = answer["input_schema"]
    assert schema["type"] == "object"
    assert schema["required"] == ["prompt"]
    assert schema["properties"]["prompt"] == {"type": "string", "description": "What to say", "minLength": 1, "maxLength": 400}
    assert schema["properties"]["times"] == {"type": "integer", "description": "Times", "default": 1, "minimum": 1, "maximum": 5}
    assert schema["properties"]["style"]["choices"] == ["plain", "loud"]
    assert schema["properties"]["note"]["type"] == "string"
    assert "default" not in schema["properties"]["note"]
    assert "$ref" not in json.dumps(answer)
    assert answer["output_schema"]["properties"]["parts"]["items"]["properties"]["words"] == {"type": "integer"}
    assert list(answer["demo_output_schema"]["properties"]) == ["shown"]


def test_the_model_has_an_address_of_its_own(talking: Talking) -> None:
    """Everything at the root answers below /models/NAME, too."""
    reply = talking.client.post("/models/talker/predict", [{"prompt": "by name"}])
    assert reply.json()["outputs"][0]["text"] == "by name"
    waiting = talking.client.post("/models/talker/predictions", [{"prompt": "by name"}]).json()["prediction_id"]
    assert talking.client.get(f"/models/talker/predictions/{waiting}?wait=60").json()["status"] == "success"
    assert talking.client.get("/models/talker").json()["input_schema"] == talking.client.get("/").json()["input_schema"]
    missing = talking.client.post("/models/nobody/predict", [{"prompt": "by name"}])
    assert missing.status == 404
    assert "nobody" in missing.json()["detail"]


def test_documents(talking: Talking) -> None:
    """T15: /openapi.json with the model's real fields, and a page at /docs."""
    document = talking.client.get("/openapi.json")
    assert document.status == 200
    assert "What to say" in document.body.decode()
    assert "/predictions" in document.json()["paths"]
    page = talking.client.get("/docs", headers={"Accept": "text/html"})
    assert page.status == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "/predictions" in page.body.decode()


# --- bad input ---

ROOT = ["body", "__root__"]


@pytest.mark.parametrize(
    ("body", "loc", "code"),
    [
        ({"prompt": "x"}, ROOT, "type_error.list"),
        ([], ROOT, "value_error.list.min_items"),
        ([{}], [*ROOT, 0, "prompt"], "value_error.missing"),
        ([{"prompt": "a"}, {}], [*ROOT, 1, "prompt"], "value_error.missing"),
        ([{"prompt": None}], [*ROOT, 0, "prompt"], "type_error.none.not_allowed"),
        ([{"prompt": ""}], [*ROOT, 0, "prompt"], "value_error.any_str.min_length"),
        ([{"prompt": "x" * 401}], [*ROOT, 0, "prompt"], "value_error.any_str.max_length"),
        ([{"prompt": "x", "times": 0}], [*ROOT, 0, "times"], "value_error.number.not_ge"),
        ([{"prompt": "x", "times": 6}], [*ROOT, 0, "times"], "value_error.number.not_le"),
        ([{"prompt": "x", "times": "many"}], [*ROOT, 0, "times"], "type_error.integer"),
        ([{"prompt": ["x"]}], [*ROOT, 0, "prompt"], "type_error.str"),
        ([{"prompt": "x", "style": "whispered"}], [*ROOT, 0, "style"], None),
        (["x"], [*ROOT, 0], "type_error.dict"),
    ],
)
@pytest.mark.parametrize("path", ["/predictions", "/predict", "/demo", "/models/talker/predict"])
def test_wrong_inputs_are_422(talking: Talking, path: str, body: object, loc: list[object], code: str | None) -> None:
    """T14, T18, T31: the original's list of problems, for every door."""
    reply = talking.client.post(path, body)
    assert reply.status == 422, reply.body
    problems = reply.json()["detail"]
    assert [p["loc"] for p in problems] == [loc]
    assert set(problems[0]) >= {"loc", "msg", "type"}
    assert code is None or problems[0]["type"] == code


def test_limits_are_told(talking: Talking) -> None:
    """T18: the limit stands in ctx."""
    problem = talking.client.post("/predictions", [{"prompt": "x", "times": 9}]).json()["detail"][0]
    assert problem["ctx"] == {"limit_value": 5}
    assert problem["msg"] == "ensure this value is less than or equal to 5"


def test_coercion_is_as_lax_as_it_was(talking: Talking) -> None:
    """Sheet 2.3: texts become numbers, numbers become texts, unknown keys are ignored."""
    done = talking.client.post("/predict", [{"prompt": 7, "times": "2", "unknown": {}}]).json()
    assert done["outputs"][0]["text"] == "7 7"


@pytest.mark.parametrize(
    ("sent", "kind"), [(b"{", "json_invalid"), (b"", None), (b"null", None), (b'[{"prompt": "x"}', "json_invalid"), (b"\xff\xfe", None)]
)
def test_what_is_no_json_is_422(talking: Talking, sent: bytes, kind: str | None) -> None:
    """T19: invalid JSON, no body and null."""
    reply = talking.client.call("POST", "/predictions", body=sent, headers={"Content-Type": "application/json"})
    assert reply.status == 422
    problem = reply.json()["detail"][0]
    assert problem["loc"][0] == "body"
    assert kind is None or problem["type"] == kind


def test_content_types(talking: Talking) -> None:
    """Sheet section 4: text/plain is not parsed; a missing header is JSON."""
    body = b'[{"prompt": "typed"}]'
    assert talking.client.call("POST", "/predictions", body=body, headers={"Content-Type": "text/plain"}).status == 422
    assert talking.client.call("POST", "/predictions", body=body).status == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "detail"),
    [
        ("GET", "/predictions/nope", 404, "nope"),
        ("GET", "/demo/nope", 404, "nope"),
        ("POST", "/predictions/nope/cancel", 404, "nope"),
        ("GET", "/predictions/nope/cancel", 404, "nope"),
        ("POST", "/demo/nope/cancel", 404, "nope"),
        ("DELETE", "/predictions", 405, "Method Not Allowed"),
        ("PUT", "/predict", 405, "Method Not Allowed"),
        ("GET", "/predictions/x/y/z", 404, "Not Found"),
    ],
)
def test_unknown_ids_and_wrong_methods(talking: Talking, method: str, path: str, status: int, detail: str) -> None:
    """T19: JSON detail."""
    reply = talking.client.call(method, path)
    assert reply.status == status
    assert reply.json() == {"detail": detail}


# --- the other doors ---


def test_the_same_model_through_the_open_inference_protocol(talking: Talking) -> None:
    """Fields are tensors; metadata comes from the schema."""
    metadata = talking.client.get("/v2/models/talker").json()
    assert [i["name"] for i in metadata["inputs"]] == ["prompt", "times", "style", "note"]
    assert metadata["inputs"][1]["datatype"] == "INT64"
    asked = {
        "inputs": [
            {"name": "prompt", "shape": [2], "datatype": "BYTES", "data": ["one", "two"]},
            {"name": "times", "shape": [2], "datatype": "INT64", "data": [1, 2]},
        ]
    }
    reply = talking.client.post("/v2/models/talker/infer", asked)
    assert reply.status == 200, reply.body
    outputs = {o["name"]: o for o in reply.json()["outputs"]}
    assert outputs["text"]["data"] == ["one", "two two"]
    assert outputs["text"]["datatype"] == "BYTES"
    wrong = {"inputs": [{"name": "prompt", "shape": [1], "datatype": "BYTES", "data": [""]}]}
    refused = talking.client.post("/v2/models/talker/infer", wrong)
    assert refused.status == 400
    assert "prompt" in refused.json()["error"]


def test_the_same_model_through_tensorflow_serving(talking: Talking) -> None:
    """Rows are rows."""
    reply = talking.client.post("/v1/models/talker:predict", {"instances": [{"prompt": "one"}, {"prompt": "two", "style": "loud"}]})
    assert reply.status == 200, reply.body
    assert [p["text"] for p in reply.json()["predictions"]] == ["one", "TWO"]
    refused = talking.client.post("/v1/models/talker:predict", {"instances": [{"prompt": "one", "times": 99}]})
    assert refused.status == 400
    assert "times" in refused.json()["error"]


# --- faults ---


def test_death_of_the_model_process(talking: Talking, busy: Path) -> None:
    """T34: the batch that ran fails, what waited is kept, the process comes back after its setup."""
    victim = talking.submit({"prompt": "die please"})
    waiting = talking.submit({"prompt": "patient", "style": "loud"})
    busy.touch()
    failed = talking.end(victim)
    assert failed["status"] == "failed"
    assert "process" in failed["error_message"].lower()
    done = talking.end(waiting)
    assert done["status"] == "success"
    assert done["outputs"][0]["text"] == "PATIENT"


def test_death_of_the_model_process_while_a_caller_waits(talking: Talking) -> None:
    """The answer is that of any failed prediction, as the original gives it: 200."""
    answer = talking.client.post("/predict", [{"prompt": "die please"}])
    assert (answer.status, answer.json()["status"], answer.json()["outputs"]) == (200, "failed", None)
    assert "model process ended" in answer.json()["error_message"]


def test_prints_of_the_model_are_in_the_log(talking: Talking) -> None:
    """Output of setup and of predictions reaches the server's log as it comes."""
    talking.end(talking.submit({"prompt": "say something for the log"}))
    until(lambda: "something for the log" in talking.running.output, what="the line in the log")
    assert "setup of the talker" in talking.running.output


def test_sigterm_ends_it(tmp_path: Path) -> None:
    """T5: a banner with URL and how to stop; SIGTERM and SIGINT end it with code 0 or 130, and no process stays."""
    folder = tungsten_files.write_model(tmp_path / "adder", tungsten_files.NUMBERS)
    for number in (signal.SIGTERM, signal.SIGINT):
        with serving(tmp_path / "data", str(folder)) as running:
            assert Plain(running.port).post("/predict", [{"a": 1.5}]).json()["outputs"] == [{"total": 3.5, "label": "small"}]
            assert "ctrl" in running.output.lower()
            running.process.send_signal(number)
            assert running.process.wait(60) in (0, 130)


def test_a_setup_that_fails_is_told(tmp_path: Path) -> None:
    """T28: a visible reason, exit code 1, and the port was never open."""
    folder = tungsten_files.write_model(tmp_path / "broken", tungsten_files.BROKEN_SETUP)
    with pytest.raises(AssertionError, match="ended with 1 before it listened") as told, serving(tmp_path / "data", str(folder)):
        pass
    lines = str(told.value).splitlines()
    assert sum("Traceback" in line for line in lines) == 1
    assert sum("the weights are missing" in line for line in lines) == 3, lines  # the line that raises, the traceback's end, the reason
    assert not any("importlib" in line or "dragoman/runtimes" in line for line in lines)


@pytest.mark.parametrize("source", ["import nothing_of_that_name\n", "import x\nclass ("])
def test_a_file_that_cannot_be_imported_is_told_once(tmp_path: Path, source: str) -> None:
    """One line with the reason, whether it was read or run."""
    folder = tungsten_files.write_model(tmp_path / "broken", source)
    with pytest.raises(AssertionError, match="ended with 1 before it listened") as told, serving(tmp_path / "data", str(folder)):
        pass
    reasons = [line for line in str(told.value).splitlines() if "model 'broken'" in line]
    assert len(reasons) == 1, reasons
    assert "nothing_of_that_name" in reasons[0] or "line 2" in reasons[0]
