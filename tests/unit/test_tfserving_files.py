"""TensorFlow Serving's text files: batching parameters, monitoring, certificates."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import BatchPolicy
from dragoman.serving.tfserving_files import METRICS_PATH, own_batching, read_batching, read_certificates, read_monitoring


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "file.pbtxt"


def refused(path: Path, text: str | bytes) -> str:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ServingError) as error:
        read_batching(path)
    assert error.value.kind is Kind.INVALID_INPUT
    return error.value.message


def test_every_parameter(file: Path) -> None:
    """Micro-seconds become seconds, batches that may wait become requests."""
    file.write_text(
        """
        # as in the documentation
        max_batch_size { value: 128 }, batch_timeout_micros: { value: 2500 }
        max_enqueued_batches { value: 1000000 }
        num_batch_threads { value: 8 }
        thread_pool_name { value: 'pool' }
        allowed_batch_sizes: 32 allowed_batch_sizes: 128
        pad_variable_length_inputs: true
        """
    )
    policy, threads = read_batching(file)
    assert threads
    assert policy == BatchPolicy(max_size=128, max_delay_s=0.0025, max_queue=128_000_000, allowed=(32, 128), pad=True)


def test_an_empty_file_is_all_defaults(file: Path) -> None:
    """Those of the original: batches of a thousand, ten of them waiting, no delay."""
    file.write_text("")
    assert read_batching(file) == (BatchPolicy(max_size=1000, max_queue=10_000), False)


def test_long_requests_are_cut_where_the_file_says_so(file: Path) -> None:
    """Then the size of a run is another than that of a request."""
    file.write_text("max_batch_size { value: 64 } enable_large_batch_splitting { value: true } max_execution_batch_size { value: 16 }")
    policy, _ = read_batching(file)
    assert (policy.max_size, policy.cut) == (16, True)
    file.write_text("max_batch_size { value: 64 } enable_large_batch_splitting { value: false } max_execution_batch_size { value: 16 }")
    policy, _ = read_batching(file)
    assert (policy.max_size, policy.cut) == (64, False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("allowed_batch_sizes: [8, 4] max_batch_size { value: 4 }", "allowed_batch_sizes entries must be monotonically increasing"),
        ("allowed_batch_sizes: [4, 4] max_batch_size { value: 4 }", "must be monotonically increasing"),
        ("allowed_batch_sizes: [0, 4] max_batch_size { value: 4 }", "from 1"),
        ("allowed_batch_sizes: 4 max_batch_size { value: 8 }", "must equal max_batch_size; last entry was 4; expected 8"),
        ("allowed_batch_sizes: 4", "last entry was 4; expected 1000"),
        (
            "allowed_batch_sizes: 8 max_batch_size { value: 8 } enable_large_batch_splitting { value: true } max_execution_batch_size { value: 4 }",
            "must equal max_execution_batch_size",
        ),
        ("max_batch_size { value: 0 }", "max_batch_size is 0, expected 1 to"),
        ("batch_timeout_micros { value: -1 }", "batch_timeout_micros is -1, expected 0 to"),
        ("max_enqueued_batches { value: 0 }", "max_enqueued_batches is 0"),
        ("max_batch_size: 8", "line 1, column"),
        ("max_batch_sizes { value: 8 }", "line 1, column 1: there is no field 'max_batch_sizes'"),
        ("max_batch_size { value: 99999999999999999999 }", "line 1"),
        (b"\xff", "it is not UTF-8 text"),
        ("{", "line 1"),
    ],
)
def test_what_is_wrong_with_a_file(file: Path, text: str | bytes, message: str) -> None:
    """Named with the field, or the place."""
    assert message in refused(file, text)


@given(st.text(max_size=60) | st.from_regex(r"(max_batch_size|allowed_batch_sizes) ?[:{] ?[-0-9a-z ]*\}?", fullmatch=True))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_file_is_more_than_refused(file: Path, text: str) -> None:
    """Whatever is in it."""
    file.write_text(text, "utf-8", errors="replace")
    kind = Kind.INVALID_INPUT
    try:
        read_batching(file)
    except ServingError as error:
        kind = error.kind
    assert kind is Kind.INVALID_INPUT


def test_versions_with_a_file_of_their_own(tmp_path: Path) -> None:
    """It says all of it; without one requests for a version run alone, whatever holds for others."""
    usual = BatchPolicy(max_size=8, allowed=(4, 8), cut=True, pad=True, max_queue=7)
    assert own_batching(tmp_path, usual) == BatchPolicy(max_size=1, max_queue=7)
    (tmp_path / "batching_params.pbtxt").write_text("max_batch_size { value: 2 }")
    assert own_batching(tmp_path, usual) == BatchPolicy(max_size=2, max_queue=20)


def test_monitoring(file: Path) -> None:
    """Off unless it is switched on; the usual path unless it names another."""
    file.write_text("")
    assert not read_monitoring(file).enabled
    file.write_text("prometheus_config { enable: true }")
    found = read_monitoring(file)
    assert (found.enabled, found.path) == (True, METRICS_PATH)
    for path in ("metrics", "/a b", "/v1/models/x", "/"):
        file.write_text(f'prometheus_config {{ enable: true, path: "{path}" }}')
        with pytest.raises(ServingError, match=r"prometheus_config\.path is"):
            read_monitoring(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('server_cert: "C"', "server_key is missing"),
        ('server_key: "sesame"', "server_cert is missing"),
        ('server_key: "sesame" server_cert: "C" client_verify: true', "client_verify needs custom_ca"),
        ('server_key: "sesame" server_cert "C"', "it is not a text-format SSLConfig"),
    ],
)
def test_certificates_that_are_none(file: Path, text: str, message: str) -> None:
    """The message says why, and nothing of the key."""
    file.write_text(text)
    with pytest.raises(ServingError, match=message) as error:
        read_certificates(file)
    assert "sesame" not in error.value.message
