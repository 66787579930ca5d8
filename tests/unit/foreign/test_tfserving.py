"""tensorflow_model_server's command line as settings."""

import stat
from pathlib import Path

import pytest

from dragoman.cli.foreign import FOREIGN
from dragoman.server.settings import Settings
from tests.unit.foreign.reading import refused, settings_of, variables, warnings_of

MODEL = "--model_base_path=/models/half"


def settings(*arguments: str) -> Settings:
    return settings_of("tfserving", MODEL, *arguments)


def test_the_defaults_are_those_of_the_original() -> None:
    """gRPC on 8500 of all addresses, no REST, one model called default, no batching, new versions looked for every second."""
    found = settings()
    assert (found.host, found.port, found.grpc_port, found.metrics_port) == ("127.0.0.1", (), (8500,), -1)  # where it listens
    assert found.targets == ("default=/models/half",)
    assert (found.batch_size, found.timeout, found.poll) == (1, 30.0, 1.0)
    assert (found.load_retries, found.load_retry_interval) == (5, 60.0)
    assert found.exit_on_error
    assert found.wait_for_models
    assert (found.cors, found.monitoring_path, found.unavailable_labels, found.check_signature_methods) == (False, "", False, False)


def test_flags_reach_the_settings() -> None:
    """Each under the name that it has there."""
    found = settings(
        *("--port=1", "--rest_api_port=2", "--host=127.0.0.1", "--model_name=half", "--rest_api_timeout_in_ms=1500"),
        *("--rest_api_enable_cors_support", "--allow_version_labels_for_unavailable_models=true", "--enable_signature_method_name_check"),
        *("--max_num_load_retries=0", "--load_retry_interval_micros=-1", "--file_system_poll_wait_seconds=0", "--data-dir=/d"),
        *("--tensorflow_session_parallelism=3", "--tensorflow_intra_op_parallelism=2"),
    )
    assert (found.host, found.port, found.grpc_port, found.targets) == ("127.0.0.1", (2,), (1,), ("half=/models/half",))
    assert (found.timeout, found.load_retries, found.load_retry_interval, found.poll) == (1.5, 0, 0.001, 0.0)
    assert (found.cors, found.unavailable_labels, found.check_signature_methods) == (True, True, True)
    assert (found.threads, found.data_dir) == (2, "/d")


def test_a_list_of_models_comes_before_the_one_model() -> None:
    """As there; it is read again as often as the flag says."""
    found = settings("--model_config_file=/m.config", "--model_config_file_poll_wait_seconds=60", "--model_name=x")
    assert (found.targets, found.model_config_file, found.model_config_poll) == ((), "/m.config", 60.0)


def test_the_variables_of_the_container(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """They name the model where no flag does; REST is on then, as its entry point has it."""
    with variables(monkeypatch, tmp_path, MODEL_NAME="iris", MODEL_BASE_PATH="/m"):
        found = settings_of("tfserving")
        assert (found.targets, found.port, found.grpc_port) == (("iris=/m/iris",), (8501,), (8500,))
        assert settings_of("tfserving", "--rest_api_port=0").port == ()
        assert settings_of("tfserving", MODEL).targets == ("default=/models/half",)
    with variables(monkeypatch, tmp_path, MODEL_BASE_PATH="/m"):
        assert settings_of("tfserving").targets == ("model=/m/model",)
    with variables(monkeypatch, tmp_path, MODEL_NAME="iris"):
        assert settings_of("tfserving").targets == ("iris=/models/iris",)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "model_base_path and model_config_file are both empty"),
        ([MODEL, "extra"], "unknown argument: extra"),
        ([MODEL, "--port=0"], "--port and --rest_api_port are both 0"),
        ([MODEL, "--rest_api_port=8500"], "--rest_api_port cannot be same as --port (8500)"),
        ([MODEL, "--batching_parameters_file=/b"], "--batching_parameters_file needs --enable_batching"),
        ([MODEL, "--enable_per_model_batching_parameters"], "--enable_per_model_batching_parameters needs --enable_batching"),
        ([MODEL, "--enable_batching", "--batching_parameters_file=/none/b"], "Invalid protobuf file: '/none/b'"),
        ([MODEL, "--monitoring_config_file=/none/m"], "Invalid protobuf file: '/none/m'"),
        ([MODEL, "--ssl_config_file=/none/s"], "Invalid protobuf file: '/none/s'"),
        ([MODEL, "--use_alts_credentials"], "--use_alts_credentials is not possible here"),
        ([MODEL, "--max_num_load_retries=-1"], "--max_num_load_retries is -1, expected 0 or more"),
        ([MODEL, "--rest_api_timeout_in_ms=0"], "--rest_api_timeout_in_ms is 0, expected 1 or more"),
        ([MODEL, "--port=70000"], "--grpc-port is 70000"),
        ([MODEL, "--modell_name=x"], "did you mean --model_name"),
    ],
)
def test_what_the_server_does_not_start_with(arguments: list[str], text: str) -> None:
    """The same as there, and what it would pass over in silence."""
    assert text in refused("tfserving", *arguments)


def test_batching(tmp_path: Path) -> None:
    """Off: each request alone. On: its own defaults, or what the file says."""
    found = settings("--enable_batching")
    assert (found.batch_size, found.max_queue, found.batch_delay_ms) == (1000, 10_000, 0.0)
    file = tmp_path / "batching.config"
    file.write_text(
        "max_batch_size { value: 8 } batch_timeout_micros { value: 1500 } allowed_batch_sizes: [4, 8] pad_variable_length_inputs: true"
    )
    found = settings("--enable_batching=true", f"--batching_parameters_file={file}")
    assert (found.batch_size, found.batch_delay_ms, found.batch_sizes, found.batch_pad, found.batch_cut) == (8, 1.5, (4, 8), True, False)
    assert found.max_queue == 80
    assert settings("--enable_batching", "--enable_per_model_batching_parameters").batch_files
    assert warnings_of("tfserving", MODEL, "--enable_batching", f"--batching_parameters_file={file}") == []
    file.write_text("num_batch_threads { value: 4 }")
    (warning,) = warnings_of("tfserving", MODEL, "--enable_batching", f"--batching_parameters_file={file}")
    assert warning.startswith(f"num_batch_threads in {file} has no effect here")


def test_monitoring(tmp_path: Path) -> None:
    """Where the file says, and nowhere else than /metrics without it."""
    file = tmp_path / "monitoring.config"
    file.write_text('prometheus_config { enable: true, path: "/prom" }')
    assert settings(f"--monitoring_config_file={file}").monitoring_path == "/prom"
    file.write_text("prometheus_config { enable: false }")
    assert settings(f"--monitoring_config_file={file}").monitoring_path == ""


def test_certificates_are_for_grpc_alone(tmp_path: Path) -> None:
    """They are texts in the file; what is made of them only we can read."""
    file = tmp_path / "ssl.config"
    file.write_text('server_key: "KEY\\n" server_cert: "CERT\\n" custom_ca: "CA\\n" client_verify: true')
    found = settings(f"--ssl_config_file={file}", f"--data-dir={tmp_path}")
    made = [Path(path) for path in (found.grpc_tls_key, found.grpc_tls_cert, found.grpc_tls_client_ca)]
    assert [path.read_text() for path in made] == ["KEY\n", "CERT\n", "CA\n"]
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in made)
    assert (found.tls_cert, found.tls_key) == ("", "")
    file.write_text('server_key: "KEY" server_cert: "CERT" custom_ca: "CA"')
    assert settings(f"--ssl_config_file={file}", f"--data-dir={tmp_path}").grpc_tls_client_ca == ""


def test_flags_without_effect_are_named_in_one_warning() -> None:
    """Those that ask for what happens anyway are not."""
    (warning,) = warnings_of(
        "tfserving", MODEL, "--num_load_threads=4", "--grpc_max_threads=8", "--enable_model_warmup", "--saved_model_tags=serve"
    )
    assert warning.startswith("these flags have no effect here: --num_load_threads, --grpc_max_threads (")
    assert warnings_of("tfserving", MODEL, "--flush_filesystem_caches=false")[0].startswith("this flag has no effect here: ")


def test_each_port_has_a_data_directory_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """So that several servers run on one machine, as they did; unless one is named."""
    with variables(monkeypatch, tmp_path):
        assert settings("--rest_api_port=8501").data_dir == str(tmp_path / "dragoman" / "tfserving-8501")
        assert settings().data_dir == str(tmp_path / "dragoman" / "tfserving-8500")
    with variables(monkeypatch, tmp_path, DRAGOMAN_DATA_DIR="/own"):
        assert settings().data_dir == "/own"


def test_other_settings_come_from_a_file_or_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever has no flag there."""
    file = tmp_path / "own.toml"
    file.write_text('workers = 2\nhost = "10.0.0.1"\n')
    with variables(monkeypatch, tmp_path, DRAGOMAN_LOG_LEVEL="debug"):
        found = settings(f"--config={file}")
    assert (found.workers, found.log_level, found.host) == (2, "debug", "127.0.0.1")  # what the command says


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["--print-config", MODEL]])
def test_what_is_only_printed(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nothing starts."""
    with variables(monkeypatch, tmp_path):
        assert FOREIGN["tfserving"].main(arguments) == 0
    printed = capsys.readouterr().out
    assert {"--help": "--model_base_path=TEXT", "--version": "as tfserving", "--print-config": "grpc_port = [8500]"}[
        arguments[0]
    ] in printed
