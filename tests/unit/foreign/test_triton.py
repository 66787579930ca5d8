"""tritonserver's command line as settings."""

from pathlib import Path

import pytest

from dragoman.server.settings import Settings
from tests.unit.foreign.reading import refused, settings_of, warnings_of

MODELS = "--model-repository=/models"


def settings(*arguments: str) -> Settings:
    return settings_of("triton", MODELS, *arguments)


def test_the_defaults_are_those_of_the_original() -> None:
    """Three ports on all addresses, everything loaded at start, an end when something cannot be."""
    found = settings()
    assert (found.host, found.port, found.grpc_port, found.metrics_port) == ("127.0.0.1", (8000,), (8001,), 8002)  # as it listens
    assert (found.targets, found.load, found.poll, found.server_name) == (("/models",), "wait", 0.0, "triton")
    assert (found.exit_on_error, found.lenient_readiness, found.drain_timeout, found.log_level) == (True, False, 30.0, "info")


def test_flags_reach_the_settings() -> None:
    """With = or the next word, as start scripts write them."""
    found = settings(
        *("--model-store", "/more", "--http-port", "1", "--grpc-port=2", "--metrics-port=3", "--http-address", "127.0.0.1"),
        *("--grpc-address=127.0.0.2", "--metrics-address=127.0.0.3", "--id=mine", "--exit-on-error=false", "--strict-readiness", "false"),
        *("--exit-timeout-secs=5", "--model-load-retry-count=2", "--http-max-input-size=1048576", "--log-verbose=1"),
        *("--backend-config=onnxruntime,default-max-batch-size=16",),
    )
    assert (found.targets, found.port, found.grpc_port, found.metrics_port) == (("/models", "/more"), (1,), (2,), 3)
    assert (found.host, found.grpc_host, found.metrics_host) == ("127.0.0.1", "127.0.0.2", "127.0.0.3")
    assert (found.server_name, found.exit_on_error, found.lenient_readiness) == ("mine", False, True)
    assert (found.drain_timeout, found.load_retries, found.max_body, found.log_level, found.batch_size) == (5.0, 2, 1 << 20, "debug", 16)


@pytest.mark.parametrize(
    ("arguments", "ports"),
    [
        (["--allow-http=false"], ((), (8001,), 8002)),
        (["--allow-grpc=false"], ((8000,), (), 8002)),
        (["--allow-metrics=false"], ((8000,), (8001,), -1)),
    ],
)
def test_ports_can_be_left_out(arguments: list[str], ports: tuple[object, ...]) -> None:
    """Each of the three."""
    found = settings(*arguments)
    assert (found.port, found.grpc_port, found.metrics_port) == ports


def test_control_modes() -> None:
    """What is loaded at start, and when the repositories are looked at again."""
    found = settings("--model-control-mode=explicit", "--load-model=a", "--load-model=b")
    assert (found.load, found.load_model, found.poll) == ("request", ("a", "b"), 0.0)
    assert settings("--model-control-mode=explicit").load_model == ()
    assert settings("--model-control-mode=explicit", "--load-model=*").load == "wait"
    assert settings("--model-control-mode=poll").poll == 15.0
    assert settings("--model-control-mode", "poll", "--repository-poll-secs", "1").poll == 1.0


@pytest.mark.parametrize(("arguments", "level"), [(["--log-info=false"], "warning"), (["--log-info=0", "--log-warning=0"], "error")])
def test_log_levels(arguments: list[str], level: str) -> None:
    """The lowest that is left."""
    assert settings(*arguments).log_level == level


def test_certificates_of_grpc(tmp_path: Path) -> None:
    """Files, as there; clients are asked for theirs with the mutual flag only."""
    files = ("--grpc-server-cert=/c", "--grpc-server-key=/k", "--grpc-root-cert=/r")
    assert settings(*files).grpc_tls_cert == ""
    found = settings("--grpc-use-ssl=true", *files)
    assert (found.grpc_tls_cert, found.grpc_tls_key, found.grpc_tls_client_ca) == ("/c", "/k", "")
    assert settings("--grpc-use-ssl-mutual=1", *files).grpc_tls_client_ca == "/r"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "--model-repository=FOLDER must be specified"),
        ([MODELS, "extra"], "unexpected argument: extra"),
        ([MODELS, "--allow-http=0", "--allow-grpc=0"], "both false"),
        ([MODELS, "--model-control-mode=auto"], "expected one of none, poll, explicit"),
        ([MODELS, "--model-control-mode=explicit", "--load-model=*", "--load-model=a"], "--load-model=* means every model"),
        ([MODELS, "--model-control-mode=poll", "--repository-poll-secs=-1"], "--repository-poll-secs is -1"),
        ([MODELS, "--grpc-use-ssl=true"], "--grpc-use-ssl needs --grpc-server-cert=FILE"),
        ([MODELS, "--backend-config=python"], "expected <backend>,<setting>=<value>"),
        ([MODELS, "--backend-config=onnxruntime,default-max-batch-size=x"], "expected a whole number"),
        ([MODELS, "--http-restricted-api=model-repository:a=b"], "ask for API keys instead"),
        ([MODELS, "--grpc-restricted-protocol=inference:a=b"], "ask for API keys instead"),
        ([MODELS, "--model-repositry=/x"], "did you mean --model-repository"),
    ],
)
def test_what_the_server_does_not_start_with(arguments: list[str], text: str) -> None:
    """As there, and where it would be open although the script says otherwise."""
    assert text in refused("triton", *arguments)


def test_what_has_no_effect_is_named() -> None:
    """Flags in one warning; what only goes with another flag on its own."""
    idle = ("--pinned-memory-pool-byte-size=1", "--rate-limit=off")
    found = warnings_of("triton", MODELS, "--load-model=a", "--backend-config=tensorflow,version=2", *idle)
    assert [text.split(" has ")[0].split(" have ")[0] for text in found] == [
        "--load-model",
        "--backend-config=tensorflow,version=2",
        "this flag",
    ]
    assert "--pinned-memory-pool-byte-size" in found[-1]
    assert "--repository-poll-secs has no effect" in warnings_of("triton", MODELS, "--repository-poll-secs=5")[0]
