"""`dragoman tfserving`: tensorflow_model_server's flags, files and variables under their own names and with their defaults.

What a flag does here is in `_start`; what has no effect says so in the table, and once in a warning. See docs/migrating.md.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dragoman.cli.foreign.flags import Flag, Given
from dragoman.cli.foreign.starting import LOCAL, Command, Start
from dragoman.core.errors import invalid
from dragoman.serving.tfserving_files import Monitoring, read_batching, read_certificates, read_monitoring

_THREADS = "requests wait on an event loop, not in threads"
_LOADS = "models load side by side, and none holds up another"
_TENSORFLOW = "TensorFlow's own default is used"
_TPU = "there is no TPU support"
_LITE = "a .tflite file is served where a version's folder holds one"

FLAGS = (
    Flag("port", int, "port of gRPC; 0 for none", 8500),
    Flag("host", text="address to listen on; 0.0.0.0 for all of them, as the original does", default=LOCAL),
    Flag("grpc_socket_path", idle="gRPC is answered on a port"),
    Flag("rest_api_port", int, "port of HTTP; 0 for none", 0),
    Flag("rest_api_num_threads", int, idle=_THREADS, default=None),
    Flag("rest_api_timeout_in_ms", int, "time that a request may take, gRPC without a deadline included", 30000),
    Flag("rest_api_enable_cors_support", bool, "let web pages of other origins call inference", False),
    Flag("enable_batching", bool, "join requests; without it each runs alone", False),
    Flag("batching_parameters_file", text="how requests are joined; needs --enable_batching"),
    Flag("enable_per_model_batching_parameters", bool, "only models with a batching_params.pbtxt are batched, as that says", False),
    Flag("allow_version_labels_for_unavailable_models", bool, "let new labels name versions that are not loaded yet", False),
    Flag("model_config_file", text="the list of models; then model_name and model_base_path have no effect"),
    Flag("model_config_file_poll_wait_seconds", int, "read that file again every so many seconds; 0 for once", 0),
    Flag("model_name", text="name of the one model", default="default"),
    Flag("model_base_path", text="folder with the versions of the one model"),
    Flag("num_load_threads", int, idle=_LOADS, default=0),
    Flag("num_unload_threads", int, idle=_LOADS, default=0),
    Flag("max_num_load_retries", int, "tries after a load has failed", 5),
    Flag("load_retry_interval_micros", int, "time between such tries", 60_000_000),
    Flag("file_system_poll_wait_seconds", int, "look for new versions every so many seconds; 0 for once", 1),
    Flag("flush_filesystem_caches", bool, idle="the system keeps its caches", default=True),
    Flag("tensorflow_session_parallelism", int, "threads per model", 0),
    Flag("tensorflow_intra_op_parallelism", int, "threads per model, before tensorflow_session_parallelism", 0),
    Flag("tensorflow_inter_op_parallelism", int, "operations of a SavedModel that run at the same time", 0),
    Flag("tensorflow_session_config_file", idle=_TENSORFLOW),
    Flag("use_alts_credentials", bool, refused="use --ssl_config_file", default=False),
    Flag("ssl_config_file", text="key and certificates of gRPC"),
    Flag("platform_config_file", idle="each model's own files say what loads it"),
    Flag("per_process_gpu_memory_fraction", float, "how much of a GPU's memory SavedModels may take; 0 for as it is needed", 0.0),
    Flag("saved_model_tags", text="which graph of a SavedModel is loaded", default="serve"),
    Flag("grpc_channel_arguments", idle="messages have the limit of --max-body, connections none"),
    Flag("grpc_max_threads", int, idle=_THREADS, default=None),
    Flag("enable_model_warmup", bool, "replay the warm-up requests that SavedModels bring", True),
    Flag("num_request_iterations_for_warmup", int, idle="each warm-up request is replayed once", default=0),
    Flag("version", bool, "print the version, and exit", False),
    Flag("monitoring_config_file", text="where metrics are shown to Prometheus"),
    Flag("remove_unused_fields_from_bundle_metagraph", bool, idle="what is not needed is not kept", default=True),
    Flag("prefer_tflite_model", bool, idle=_LITE, default=False),
    Flag("num_tflite_pools", int, idle=_LITE, default=None),
    Flag("num_tflite_interpreters_per_pool", int, idle=_LITE, default=None),
    Flag("enable_signature_method_name_check", bool, "refuse calls to signatures whose method is another one", False),
    Flag("xla_cpu_compilation_enabled", bool, idle=_TENSORFLOW, default=False),
    Flag("mixed_precision", idle=_TENSORFLOW),
    Flag("enable_profiler", bool, idle="there is no profiler service", default=True),
    Flag("thread_pool_factory_config_file", idle=_THREADS),
    Flag("skip_initialize_tpu", bool, idle=_TPU, default=False),
    Flag("enable_grpc_healthcheck_service", bool, "always on", False),
    Flag("enable_serialization_as_tensor_content", bool, idle="answers always have their tensors as bytes", default=False),
)
_OPTIONS: Mapping[str, str] = {
    "saved_model_tags": "saved_model_tags",
    "enable_model_warmup": "model_warmup",
    "tensorflow_inter_op_parallelism": "inter_op_parallelism",
    "per_process_gpu_memory_fraction": "per_process_gpu_memory_fraction",
}
"""Flag -> option of the SavedModel runtime."""
_DESCRIPTION = """\
Serve as tensorflow_model_server does: its flags, its files, its ports. What serves is Dragoman, which answers on the port of HTTP
in every other protocol, too. MODEL_NAME and MODEL_BASE_PATH name the model as in TensorFlow Serving's container, where no flag does."""


def _start(given: Given, environ: Mapping[str, str] = os.environ) -> Start:
    if given.words:
        raise invalid(f"unknown argument: {given.words[0]}; every flag is written --flag=value")
    start = Start()
    model, in_container = _model(given, environ)
    grpc, rest = given.get("port", 8500), given.get("rest_api_port", 8501 if in_container else 0)
    if not grpc and not rest:
        raise invalid("--port and --rest_api_port are both 0, so there is nothing to listen on")
    if grpc == rest:
        raise invalid(f"--rest_api_port cannot be same as --port ({grpc}): please use a different port for HTTP/REST API")
    retry_s = max(given.get("load_retry_interval_micros", 60_000_000) / 1e6, 0.001)
    start.settings = {
        **model,
        "host": given.get("host", LOCAL),
        "port": (rest,) if rest else (),
        "grpc_port": (grpc,) if grpc else (),
        "timeout": _least(given, "rest_api_timeout_in_ms", 30_000, 1) / 1000,
        "cors": given.get("rest_api_enable_cors_support"),
        "unavailable_labels": given.get("allow_version_labels_for_unavailable_models"),
        "load_retries": _least(given, "max_num_load_retries", 5, 0),
        "load_retry_interval": retry_s,
        "poll": float(max(0, given.get("file_system_poll_wait_seconds", 1))),
        "exit_on_error": True,
        "wait_for_models": True,
        "threads": given.get("tensorflow_intra_op_parallelism") or given.get("tensorflow_session_parallelism") or None,
        "option": tuple(f"{option}={given.get(flag)}" for flag, option in _OPTIONS.items() if given.get(flag, "") != ""),
        "check_signature_methods": given.get("enable_signature_method_name_check"),
        **_batching(given, start.warnings),
        **_monitoring(given),
    }
    if given.get("ssl_config_file"):
        found = read_certificates(Path(given.get("ssl_config_file")))
        start.files = {"grpc_tls_cert": found.cert, "grpc_tls_key": found.key, "grpc_tls_client_ca": found.client_ca}
    return start


def _model(given: Given, environ: Mapping[str, str]) -> tuple[dict[str, Any], bool]:
    """What is served, and whether the variables of the container say so."""
    listed = given.get("model_config_file", "")
    if listed:
        poll = float(max(0, given.get("model_config_file_poll_wait_seconds", 0)))
        return {"model_config_file": listed, "model_config_poll": poll}, False
    base = given.get("model_base_path", "")
    if base:
        return {"targets": (f"{given.get('model_name', 'default')}={base}",)}, False
    if "MODEL_NAME" not in environ and "MODEL_BASE_PATH" not in environ:
        raise invalid("model_base_path and model_config_file are both empty: give --model_base_path=FOLDER or --model_config_file=FILE")
    name = given.get("model_name") or environ.get("MODEL_NAME") or "model"
    folder = Path(environ.get("MODEL_BASE_PATH") or "/models") / (environ.get("MODEL_NAME") or "model")
    return {"targets": (f"{name}={folder}",)}, True


def _batching(given: Given, warnings: list[str]) -> dict[str, Any]:
    file, own = given.get("batching_parameters_file", ""), given.get("enable_per_model_batching_parameters", False)
    if not given.get("enable_batching"):
        if file:
            raise invalid("--batching_parameters_file needs --enable_batching")
        if own:
            raise invalid("--enable_per_model_batching_parameters needs --enable_batching")
        return {"batch_size": 1}
    if own:
        return {"batch_files": True}
    if not file:  # its own defaults
        return {"batch_size": 1000, "max_queue": 10_000}
    policy, threads = read_batching(Path(file))
    if threads:
        warnings.append(
            f"num_batch_threads in {file} has no effect here: each model runs one batch at a time, in the threads that it is given"
        )
    return {
        "batch_size": policy.max_size,
        "batch_delay_ms": policy.max_delay_s * 1000,
        "max_queue": policy.max_queue,
        "batch_sizes": policy.allowed,
        "batch_cut": policy.cut,
        "batch_pad": policy.pad,
    }


def _monitoring(given: Given) -> dict[str, Any]:
    file = given.get("monitoring_config_file", "")
    config = read_monitoring(Path(file)) if file else Monitoring()
    return {"monitoring_path": config.path if config.enabled else ""}


def _least(given: Given, name: str, default: int, least: int) -> int:
    value: int = given.get(name, default)
    if value < least:
        raise invalid(f"--{name} is {value}, expected {least} or more")
    return value


COMMAND = Command("tfserving", "tensorflow_model_server's start command: dragoman tfserving --help", _DESCRIPTION, FLAGS, _start)
