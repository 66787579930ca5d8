"""Other servers' start commands as they stand in their documentation: their folders, files and flags; only the program's name is changed.

What each flag comes to is in tests/unit/foreign.
"""

import json
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests
import trustme

from tests.e2e.running import Running, run, serving
from tests.models import build, savedmodels
from tests.ports import free_ports

LOCAL = "--host=127.0.0.1"


def curl(url: str, line: str) -> Any:
    """A line of the documentation, at this server instead of the documented one."""
    words = shlex.split(line.replace("http://localhost:8501", url))
    return json.loads(subprocess.run([*words, "-sS", "--max-time", "60"], capture_output=True, check=True).stdout)


def rows(url: str, model: str, count: int) -> list[list[float]]:
    body = {"instances": [[float(n), 1.0] for n in range(count)]}
    answer = requests.post(f"{url}/v1/models/{model}:predict", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    predictions: list[list[float]] = answer.json()["predictions"]
    return predictions


# --- TensorFlow Serving ---


@pytest.fixture(scope="module")
def tfserving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Its sample models and one of ours, from a list of models; requests joined in sizes of four; metrics for Prometheus."""
    folder = tmp_path_factory.mktemp("tfserving")
    savedmodels.copy("half_plus_two", folder / "half_plus_two" / "00000123")
    savedmodels.copy("half_plus_three", folder / "half_plus_three" / "1")
    build.identity(folder / "identity" / "1" / "model.onnx")
    names = ("half_plus_two", "half_plus_three", "identity")
    models = "\n".join(f"config {{ name: '{name}' base_path: '{folder / name}' model_platform: 'tensorflow' }}" for name in names)
    (folder / "models.config").write_text(f"model_config_list {{ {models} }}")
    (folder / "monitoring.config").write_text('prometheus_config { enable: true, path: "/monitoring/prometheus/metrics" }')
    (folder / "batching.config").write_text("max_batch_size { value: 8 } allowed_batch_sizes: 4 allowed_batch_sizes: 8")
    grpc, rest = free_ports(2)
    flags = (
        *(f"--port={grpc}", f"--rest_api_port={rest}", f"--model_config_file={folder}/models.config", "--num_load_threads=4"),
        *(
            f"--monitoring_config_file={folder}/monitoring.config",
            "--enable_batching",
            f"--batching_parameters_file={folder}/batching.config",
        ),
    )
    with serving(folder, LOCAL, *flags, verb=("tfserving",)) as running:
        yield running


def test_the_walk_through_of_the_documentation(tfserving: Running) -> None:
    """Its pages on REST and on containers, line by line, on its own sample models."""
    url = tfserving.url
    status = curl(url, "curl http://localhost:8501/v1/models/half_plus_three")
    assert status == {"model_version_status": [{"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}]}
    two = curl(url, "curl -d '{\"instances\": [1.0, 2.0, 5.0]}' -X POST http://localhost:8501/v1/models/half_plus_two:predict")
    assert two == {"predictions": [2.5, 3.0, 4.5]}
    three = curl(url, "curl -d '{\"instances\": [1.0,2.0,5.0]}' -X POST http://localhost:8501/v1/models/half_plus_three:predict")
    assert three == {"predictions": [3.5, 4.0, 5.5]}
    regressed = curl(
        url,
        'curl -d \'{"signature_name": "tensorflow/serving/regress", "examples": [{"x": 1.0}, {"x": 2.0}]}\''
        " -X POST http://localhost:8501/v1/models/half_plus_three:regress",
    )
    assert regressed == {"results": [3.5, 4.0]}
    metadata = curl(url, "curl http://localhost:8501/v1/models/half_plus_two/versions/123/metadata")
    assert metadata["model_spec"] == {"name": "half_plus_two", "signature_name": "", "version": "123"}
    refused = curl(url, 'curl -d \'{"instances": [1.0, "foo"]}\' -X POST http://localhost:8501/v1/models/half_plus_two:predict')
    assert set(refused) == {"error"}


def test_batches_have_allowed_sizes(tfserving: Running) -> None:
    """Nobody sees what was filled up, or in how many pieces a long request ran."""
    for count in (1, 3, 4, 7, 20):
        assert rows(tfserving.url, "identity", count) == [[float(n), 1.0] for n in range(count)]


def test_metrics_are_where_prometheus_was_told(tfserving: Running) -> None:
    """With TensorFlow Serving's names."""
    requests.get(f"{tfserving.url}/v1/models/identity", timeout=60)
    page = requests.get(f"{tfserving.url}/monitoring/prometheus/metrics", timeout=60)
    assert page.status_code == 200
    assert ":tensorflow:serving:request_count" in page.text


def test_a_flag_without_effect_is_in_the_log(tfserving: Running) -> None:
    """Once."""
    assert tfserving.output.count("no effect here: --num_load_threads") == 1
    assert "gRPC: 127.0.0.1:" in tfserving.output


def test_a_model_that_cannot_be_loaded_ends_the_start(tmp_path: Path) -> None:
    """With exit code 1 and its reason; a wrong flag with 2 and the nearest ones."""
    (tmp_path / "broken" / "1").mkdir(parents=True)
    (tmp_path / "broken" / "1" / "model.onnx").write_text("no model")
    (port,) = free_ports(1)
    flags = (LOCAL, f"--port={port}", f"--model_base_path={tmp_path}/broken", "--max_num_load_retries=0")
    ended = run(tmp_path, "tfserving", *flags)
    assert ended.returncode == 1
    assert "default" in ended.stderr
    assert "Traceback" not in ended.stderr
    wrong = run(tmp_path, "tfserving", "--model_base_pth=/m")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("dragoman: dragoman tfserving has no flag --model_base_pth; did you mean --model_base_path")


def test_certificates_of_the_ssl_config_are_for_grpc(tmp_path: Path) -> None:
    """The documented form: PEM texts in the file. REST is off unless it is asked for, and what is asked has an answer over TLS only."""
    build.identity(tmp_path / "m" / "1" / "model.onnx")
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    key, cert = issued.private_key_pem.bytes().decode(), issued.cert_chain_pems[0].bytes().decode()
    (tmp_path / "ssl.config").write_text(f"server_key: {json.dumps(key)}\nserver_cert: {json.dumps(cert)}\nclient_verify: false\n")
    (port,) = free_ports(1)
    flags = (LOCAL, f"--port={port}", f"--model_base_path={tmp_path}/m", f"--ssl_config_file={tmp_path}/ssl.config")
    with serving(tmp_path, *flags, verb=("tfserving",)) as running:
        assert running.urls == [f"127.0.0.1:{port}"]
        trusting = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
        with grpc.secure_channel(f"localhost:{port}", trusting) as channel:
            health = channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=30)
        assert health == b"\x08\x01"  # SERVING
        with grpc.insecure_channel(f"localhost:{port}") as channel, pytest.raises(grpc.RpcError):
            channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=2)


# --- Triton ---


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Mode explicit with one model of two, all ports free ones."""
    folder = tmp_path_factory.mktemp("triton")
    build.identity(folder / "models" / "identity" / "1" / "model.onnx")
    build.iris(folder / "models" / "iris" / "1" / "model.onnx")
    flags = (
        *(f"--model-repository={folder}/models", "--model-control-mode=explicit", "--load-model", "iris", "--log-verbose=1"),
        *("--http-port", "0", "--grpc-port=0", "--metrics-port=0", "--http-address=127.0.0.1", "--grpc-address=127.0.0.1"),
    )
    with serving(folder, *flags, verb=("triton",)) as running:
        yield running


def test_only_what_was_named_is_loaded(triton: Running) -> None:
    """The rest is in the index, and is loaded when a client asks."""
    assert requests.get(f"{triton.url}/v2/models/iris/ready", timeout=60).status_code == 200
    assert requests.get(f"{triton.url}/v2/models/identity/ready", timeout=60).status_code != 200
    assert requests.get(f"{triton.url}/v2", timeout=60).json()["name"] == "triton"
    index = requests.post(f"{triton.url}/v2/repository/index", timeout=60).json()
    assert {each["name"] for each in index} == {"iris", "identity"}
    assert requests.get(f"{triton.url}/v2/health/ready", timeout=60).status_code == 200
    loaded = requests.post(f"{triton.url}/v2/repository/models/identity/load", timeout=60)
    assert loaded.status_code == 200, loaded.text
    assert requests.get(f"{triton.url}/v2/models/identity/ready", timeout=60).status_code == 200


def metrics_url(running: Running) -> str:
    (line,) = [line for line in running.lines if line.startswith("Metrics, and nothing else: ")]
    return line.split(": ", 1)[1].strip().removesuffix("/metrics")


def test_metrics_have_a_port_of_their_own(triton: Running) -> None:
    """Where nothing else answers, whatever the path says; they are on the other port, too."""
    url = metrics_url(triton)
    assert "nv_inference_request_success" in requests.get(f"{url}/metrics", timeout=60).text
    assert "nv_inference_request_success" in requests.get(f"{triton.url}/metrics", timeout=60).text
    for path in ("/", "/v2/health/live", "/v2/models/iris", "/metrics/../v2", "/v1/models/iris"):
        assert requests.get(f"{url}{path}", timeout=60).status_code == 404, path
    assert requests.post(f"{url}/v2/repository/index", timeout=60).status_code == 404


# --- MLServer ---


def test_a_folder_of_mlserver(tmp_path: Path) -> None:
    """Its settings.json has the ports, a model's own file the rest; two workers share the ports, that of metrics, too."""
    build.iris(tmp_path / "models" / "iris" / "model.onnx")
    settings = {"name": "flowers", "implementation": "mlserver_onnx.OnnxModel", "parameters": {"uri": "./model.onnx"}}
    (tmp_path / "models" / "iris" / "model-settings.json").write_text(json.dumps(settings))
    server = {"host": "127.0.0.1", "http_port": 0, "grpc_port": 0, "metrics_port": 0, "parallel_workers": 2}
    (tmp_path / "models" / "settings.json").write_text(json.dumps(server))
    with serving(tmp_path, "start", str(tmp_path / "models"), verb=("mlserver",)) as running:
        assert requests.get(f"{running.url}/v2", timeout=60).json()["name"] == "mlserver"
        assert requests.get(f"{running.url}/v2/models/flowers/ready", timeout=60).status_code == 200
        assert requests.get(f"{metrics_url(running)}/metrics", timeout=60).status_code == 200
        assert running.terminate() == 0
