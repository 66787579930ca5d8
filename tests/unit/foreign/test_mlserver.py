"""MLServer's start command, settings.json and variables as settings."""

import json
from pathlib import Path
from typing import Any

import pytest

from dragoman.server.settings import Settings
from tests.unit.foreign.reading import refused, settings_of, variables, warnings_of


def settings(folder: Path, **content: Any) -> Settings:
    (folder / "settings.json").write_text(json.dumps(content))
    return settings_of("mlserver", "start", str(folder))


def test_the_defaults_are_those_of_the_original(tmp_path: Path) -> None:
    """Three ports on all addresses; the folder is the repository."""
    found = settings_of("mlserver", "start", str(tmp_path))
    assert (found.host, found.port, found.grpc_port, found.metrics_port) == ("127.0.0.1", (8080,), (8081,), 8082)  # as it listens
    assert (found.targets, found.workers, found.server_name, found.load, found.cors) == ((str(tmp_path),), 1, "mlserver", "wait", False)


def test_the_file_reaches_the_settings(tmp_path: Path) -> None:
    """Each setting under the name that it has there."""
    found = settings(
        tmp_path,
        host="127.0.0.1",
        http_port=1,
        grpc_port=2,
        metrics_port=3,
        parallel_workers=4,
        server_name="mine",
        load_models_at_startup=False,
        model_repository_root="/models",
        cors_settings={"allow_origins": ["*"]},
        grpc_max_message_length=1 << 30,
        debug=True,
    )
    assert (found.host, found.port, found.grpc_port, found.metrics_port, found.workers) == ("127.0.0.1", (1,), (2,), 3, 4)
    assert (found.server_name, found.load, found.targets, found.cors, found.max_body) == ("mine", "request", ("/models",), True, 1 << 30)
    assert settings(tmp_path, metrics_endpoint=None).metrics_port == -1
    assert settings(tmp_path, parallel_workers=0).workers == 1


def test_the_file_wins_over_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As there."""
    with variables(monkeypatch, tmp_path, MLSERVER_HTTP_PORT="5", MLSERVER_GRPC_PORT="6", MLSERVER_LOAD_MODELS_AT_STARTUP="false"):
        found = settings(tmp_path, http_port=7)
    assert (found.port, found.grpc_port, found.load) == ((7,), (6,), "request")


def test_a_model_that_only_variables_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As KServe starts it: the folder has a file and no settings. Where anything says what the folder holds, that counts."""
    named = {"MLSERVER_MODEL_IMPLEMENTATION": "mlserver_sklearn.SKLearnModel", "MLSERVER_MODEL_NAME": "iris"}
    with variables(monkeypatch, tmp_path, **named):
        assert settings_of("mlserver", "start", str(tmp_path)).targets == (f"iris={tmp_path}",)
        with variables(monkeypatch, tmp_path, MLSERVER_MODEL_URI="/mnt/models/model.joblib"):
            assert settings_of("mlserver", "start", str(tmp_path)).targets == ("iris=/mnt/models/model.joblib",)
        (tmp_path / "iris").mkdir()
        (tmp_path / "iris" / "model-settings.json").write_text("{}")
        assert settings_of("mlserver", "start", str(tmp_path)).targets == (str(tmp_path),)


@pytest.mark.parametrize("arguments", [[], ["init", "."], ["start", ".", "more"], ["start", "/none/such"], ["start", ".", "--port=1"]])
def test_only_start_is_there(arguments: list[str]) -> None:
    """MLServer's other commands, other flags and folders that are not there are errors."""
    assert refused("mlserver", *arguments)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("[]", "expected a JSON object"),
        ("{", "is not JSON"),
        ('{"http_port": "a"}', "http_port in "),
        ('{"http_port": true}', "expected a whole number from 0 to 65535"),
        ('{"grpc_port": 70000}', "expected a whole number from 0 to 65535"),
        ('{"host": 5}', "expected text"),
    ],
)
def test_what_is_wrong_with_the_file(tmp_path: Path, content: str, text: str) -> None:
    """It is named with the setting."""
    (tmp_path / "settings.json").write_text(content)
    assert text in refused("mlserver", "start", str(tmp_path))


def test_what_has_no_effect_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With where it was said; what nobody misses is not."""
    (tmp_path / "settings.json").write_text(
        '{"cache_enabled": true, "debug": true, "gzip_enabled": true, "novel": 1, "metrics_endpoint": "/m"}'
    )
    with variables(monkeypatch, tmp_path, MLSERVER_KAFKA_ENABLED="true"):
        first, second = warnings_of("mlserver", "start", str(tmp_path))
    assert first.startswith("metrics_endpoint in ")
    assert "MLSERVER_KAFKA_ENABLED" in second
    assert "cache_enabled in" in second
    assert "novel in" in second
    assert "debug" not in second
