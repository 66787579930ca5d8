"""`dragoman triton`: tritonserver's flags under their own names and with their defaults.

What a flag does here is in `_start`; what has no effect says so in the table, and once in a warning. See docs/migrating.md.
"""

from typing import Any

from dragoman.cli.foreign.flags import Flag, Given
from dragoman.cli.foreign.starting import LOCAL, Command, Start
from dragoman.core.errors import invalid

_THREADS = "requests wait on an event loop, not in threads"
_PORTS = "one server listens on a port; --workers of `dragoman serve` share one"
_KEYS = "ask for API keys instead (docs/security.md)"
_HEADERS = "no header becomes a parameter of a request"
_GRPC = "gRPC's own default is used"
_MEMORY = "memory is taken as it is needed"
_GPU = "what a model needs of a GPU is its framework's business"
_TRACES = "traces are switched on while the server runs, with /v2/trace/setting"
_CACHE = "answers are not cached"
_RATE = "instances run when they are free"
_FOLDERS = "runtimes are Python packages"
_CLOUD = "that port does not exist here"
_CONFIG = "what a configuration leaves out is read from the model"
_METRICS = "all metrics are shown, as they are when somebody asks"

FLAGS = (
    Flag("model-repository", text="folder of models; may be repeated", many=True),
    Flag("model-store", text="the same", many=True),
    Flag("id", text="what the server calls itself", default="triton"),
    Flag("exit-timeout-secs", int, "time for requests in flight at the end", 30),
    Flag("exit-on-error", bool, "end when a model cannot be loaded at start", True),
    Flag("strict-readiness", bool, "be ready only when every model is", True),
    Flag("model-control-mode", text="none, poll or explicit", default="none"),
    Flag("repository-poll-secs", int, "look at the repositories every so many seconds in mode poll", 15),
    Flag("load-model", text="model that is loaded at start in mode explicit, or * for all; may be repeated", many=True),
    Flag("model-load-retry-count", int, "tries after a load has failed", 0),
    Flag("allow-http", bool, "answer over HTTP", True),
    Flag("http-address", text="address for HTTP; 0.0.0.0 for all of them, as the original does", default=LOCAL),
    Flag("http-port", int, "port for HTTP", 8000),
    Flag("http-max-input-size", int, "largest body, in bytes (default: that of `dragoman serve`)", None),
    Flag("allow-grpc", bool, "answer over gRPC", True),
    Flag("grpc-address", text="address for gRPC; 0.0.0.0 for all of them, as the original does", default=LOCAL),
    Flag("grpc-port", int, "port for gRPC", 8001),
    Flag("grpc-use-ssl", bool, "TLS for gRPC", False),
    Flag("grpc-use-ssl-mutual", bool, "TLS for gRPC that asks clients for certificates", False),
    Flag("grpc-server-cert", text="file with the certificate of gRPC"),
    Flag("grpc-server-key", text="file with its key"),
    Flag("grpc-root-cert", text="file with the authorities of clients"),
    Flag("allow-metrics", bool, "answer with metrics on a port of their own", True),
    Flag("metrics-address", text="address for metrics (default: that for HTTP)"),
    Flag("metrics-port", int, "port for metrics", 8002),
    Flag("log-verbose", int, "above 0: log everything", 0),
    Flag("log-info", bool, "log what happens", True),
    Flag("log-warning", bool, "log warnings", True),
    Flag("log-error", bool, idle="errors are always logged", default=True),
    Flag("backend-config", text="onnxruntime,default-max-batch-size=N; others have no effect", many=True),
    Flag("http-restricted-api", many=True, refused=_KEYS),
    Flag("grpc-restricted-protocol", many=True, refused=_KEYS),
    Flag("log-format", idle="--log-format of `dragoman serve` is pretty or json", default="default"),
    Flag("log-file", idle="the log goes to standard error"),
    Flag("disable-auto-complete-config", bool, idle=_CONFIG, default=False),
    Flag("strict-model-config", bool, idle=_CONFIG, default=False),
    Flag("model-config-name", idle="config.pbtxt is read"),
    Flag("model-load-thread-count", int, idle="models load side by side", default=4),
    Flag("model-namespacing", bool, idle="names are unique in a server", default=False),
    Flag("enable-peer-access", bool, idle=_GPU, default=True),
    Flag("reuse-http-port", bool, idle=_PORTS, default=False),
    Flag("reuse-grpc-port", bool, idle=_PORTS, default=False),
    Flag("http-header-forward-pattern", idle=_HEADERS),
    Flag("grpc-header-forward-pattern", idle=_HEADERS),
    Flag("http-thread-count", int, idle=_THREADS, default=8),
    Flag("grpc-infer-thread-count", int, idle=_THREADS, default=2),
    Flag("grpc-infer-allocation-pool-size", int, idle=_MEMORY, default=8),
    Flag("grpc-max-response-pool-size", int, idle=_MEMORY, default=None),
    Flag("grpc-infer-response-compression-level", idle=_GRPC, default="none"),
    Flag("grpc-keepalive-time", int, idle=_GRPC, default=7_200_000),
    Flag("grpc-keepalive-timeout", int, idle=_GRPC, default=20_000),
    Flag("grpc-keepalive-permit-without-calls", bool, idle=_GRPC, default=False),
    Flag("grpc-http2-max-pings-without-data", int, idle=_GRPC, default=2),
    Flag("grpc-http2-min-recv-ping-interval-without-data", int, idle=_GRPC, default=300_000),
    Flag("grpc-http2-max-ping-strikes", int, idle=_GRPC, default=2),
    Flag("grpc-max-connection-age", int, idle=_GRPC, default=None),
    Flag("grpc-max-connection-age-grace", int, idle=_GRPC, default=None),
    Flag("allow-client-shm", bool, idle="there is no shared memory", default=False),
    Flag("allow-sagemaker", bool, idle=_CLOUD, default=False),
    Flag("sagemaker-port", int, idle=_CLOUD, default=8080),
    Flag("sagemaker-safe-port-range", idle=_CLOUD),
    Flag("sagemaker-thread-count", int, idle=_CLOUD, default=8),
    Flag("allow-vertex-ai", bool, idle=_CLOUD, default=False),
    Flag("vertex-ai-port", int, idle=_CLOUD, default=8080),
    Flag("vertex-ai-thread-count", int, idle=_CLOUD, default=8),
    Flag("vertex-ai-default-model", idle=_CLOUD),
    Flag("allow-gpu-metrics", bool, idle=_METRICS, default=True),
    Flag("allow-cpu-metrics", bool, idle=_METRICS, default=True),
    Flag("metrics-interval-ms", float, idle=_METRICS, default=2000.0),
    Flag("metrics-config", idle=_METRICS, many=True),
    Flag("trace-config", idle=_TRACES, many=True),
    Flag("trace-file", idle=_TRACES),
    Flag("trace-level", idle=_TRACES, many=True),
    Flag("trace-rate", int, idle=_TRACES, default=1000),
    Flag("trace-count", int, idle=_TRACES, default=-1),
    Flag("trace-log-frequency", int, idle=_TRACES, default=0),
    Flag("cache-config", idle=_CACHE, many=True),
    Flag("cache-directory", idle=_CACHE),
    Flag("response-cache-byte-size", int, idle=_CACHE, default=0),
    Flag("rate-limit", idle=_RATE, default="off"),
    Flag("rate-limit-resource", idle=_RATE, many=True),
    Flag("pinned-memory-pool-byte-size", int, idle=_MEMORY, default=None),
    Flag("cuda-memory-pool-byte-size", idle=_MEMORY, many=True),
    Flag("cuda-virtual-address-size", idle=_MEMORY, many=True),
    Flag("min-supported-compute-capability", float, idle=_GPU, default=None),
    Flag("buffer-manager-thread-count", int, idle=_THREADS, default=0),
    Flag("host-policy", idle=_GPU, many=True),
    Flag("model-load-gpu-limit", idle=_GPU, many=True),
    Flag("backend-directory", idle=_FOLDERS),
    Flag("repoagent-directory", idle=_FOLDERS),
)
_DESCRIPTION = """\
Serve as tritonserver does: its flags, its model repositories, its ports. What serves is Dragoman, which answers on the port of HTTP
in every other protocol, too."""
_MODES = ("none", "poll", "explicit")


def _start(given: Given) -> Start:
    if given.words:
        raise invalid(f"unexpected argument: {given.words[0]}; every flag is written --flag=value")
    repositories = [*given.get("model-repository", []), *given.get("model-store", [])]
    if not repositories:
        raise invalid("--model-repository=FOLDER must be specified")
    http, grpc = given.get("allow-http", True), given.get("allow-grpc", True)
    if not http and not grpc:
        raise invalid("--allow-http and --allow-grpc are both false, so nothing could be asked")
    host = given.get("http-address", LOCAL)
    start = Start()
    start.settings = {
        "targets": tuple(repositories),
        "host": host,
        "port": (given.get("http-port", 8000),) if http else (),
        "grpc_port": (given.get("grpc-port", 8001),) if grpc else (),
        "grpc_host": given.get("grpc-address", LOCAL),
        "metrics_port": given.get("metrics-port", 8002) if given.get("allow-metrics", True) else -1,
        "metrics_host": given.get("metrics-address", host),
        "server_name": given.get("id", "triton"),
        "exit_on_error": given.get("exit-on-error", True),
        "lenient_readiness": not given.get("strict-readiness", True),
        "drain_timeout": float(given.get("exit-timeout-secs", 30)),
        "load_retries": given.get("model-load-retry-count"),
        "max_body": given.get("http-max-input-size"),
        "log_level": _level(given),
        **_control(given, start.warnings),
        **_backends(given.get("backend-config", []), start.warnings),
        **_certificates(given),
    }
    return start


def _control(given: Given, warnings: list[str]) -> dict[str, Any]:
    """Which models are loaded, and when the repositories are looked at again."""
    mode, named = given.get("model-control-mode", "none"), given.get("load-model", [])
    if mode not in _MODES:
        raise invalid(f"--model-control-mode is {mode!r}, expected one of {', '.join(_MODES)}")
    seconds = given.get("repository-poll-secs", 15)
    if seconds < 0:
        raise invalid(f"--repository-poll-secs is {seconds}, expected 0 or more")
    if mode == "explicit":
        if "*" in named and len(named) > 1:
            raise invalid("--load-model=* means every model, so it cannot stand beside other --load-model")
        return {} if named == ["*"] else {"load": "request", "load_model": tuple(named)}
    if named:
        warnings.append("--load-model has no effect without --model-control-mode=explicit: every model is loaded")
    if mode == "poll":
        return {"poll": float(seconds)}
    if "repository-poll-secs" in given:
        warnings.append("--repository-poll-secs has no effect without --model-control-mode=poll")
    return {}


def _level(given: Given) -> str | None:
    """The lowest level that is logged."""
    if given.get("log-verbose", 0) > 0:
        return "debug"
    if given.get("log-info", True):
        return None
    return "warning" if given.get("log-warning", True) else "error"


def _backends(texts: list[str], warnings: list[str]) -> dict[str, Any]:
    """`onnxruntime,default-max-batch-size=N` bounds the batches of models without a config.pbtxt; the rest is for other backends."""
    settings: dict[str, Any] = {}
    for text in texts:
        backend, comma, setting = text.rpartition(",")
        key, separator, value = setting.partition("=")
        if not separator:
            raise invalid(f"--backend-config is {text!r}, expected <backend>,<setting>=<value>")
        if key == "default-max-batch-size" and (backend == "onnxruntime" or not comma):
            try:
                size = int(value)
            except ValueError:
                size = -1
            if size < 0:
                raise invalid(f"--backend-config={text}: expected a whole number from 0")
            settings["batch_size"] = size or 1
        else:
            warnings.append(f"--backend-config={text} has no effect here")
    return settings


def _certificates(given: Given) -> dict[str, Any]:
    mutual = given.get("grpc-use-ssl-mutual", False)
    if not mutual and not given.get("grpc-use-ssl", False):
        return {}
    for name in ("grpc-server-cert", "grpc-server-key", *(("grpc-root-cert",) if mutual else ())):
        if not given.get(name):
            raise invalid(f"--grpc-use-ssl{'-mutual' if mutual else ''} needs --{name}=FILE")
    return {
        "grpc_tls_cert": given.get("grpc-server-cert"),
        "grpc_tls_key": given.get("grpc-server-key"),
        "grpc_tls_client_ca": given.get("grpc-root-cert") if mutual else None,
    }


COMMAND = Command("triton", "tritonserver's start command: dragoman triton --help", _DESCRIPTION, FLAGS, _start)
