"""Every setting of the server in one frozen object.

The table of settings is this dataclass; the command line, the file, the environment and --print-config are all made from its fields, by
configuration.py.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dragoman.serving.library.opening import Place
from dragoman.serving.tfserving_files import METRICS_PATH
from dragoman.store.addresses import shown, sqlite_path, store_url

_PASSWORD = re.compile(r"(//[^/@:]*):[^/@]*@")
_QUERY_VALUE = re.compile(r"([?&][^=&]*=)[^&]*")


def _default_data_dir() -> str:
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return str(Path(base) / "dragoman")


def _without_password(url: str) -> str:
    """An address as a configuration is printed: all of it but its password, and of a web address what its query says, which may be a token."""
    url = _PASSWORD.sub(r"\1:***@", url)
    return _QUERY_VALUE.sub(r"\1***", url) if url.startswith(("http://", "https://")) else url


def setting(
    default: Any,
    text: str,
    *,
    unit: str = "",
    choices: tuple[str, ...] = (),
    short: str = "",
    metavar: str = "",
    of: type = str,
    shown: Callable[[str], str] | None = None,
    table: bool = False,
    commas: bool = False,
) -> Any:
    """One setting: its default and what help says. `unit` "size" takes 64MB and the like; lists are repeatable flags, their items `of` one type.

    With `table` a list may be written as a table, whose keys and values are its items NAME=JSON. With `commas` items have such of their own, so
    that a variable holds one of them. `shown` makes of a value that may hold a
    password what may be printed.
    """
    meta = {
        "help": text,
        "unit": unit,
        "choices": choices,
        "short": short,
        "metavar": metavar,
        "shown": shown,
        "table": table,
        "commas": commas,
    }
    if isinstance(default, list):
        return field(default_factory=lambda: tuple(default), metadata={**meta, "many": True, "of": of}, repr=shown is None)
    if default is dict:
        return field(default_factory=dict, metadata=meta)
    return field(default=default, metadata=meta, repr=shown is None)


@dataclass(frozen=True, slots=True)
class Settings:
    targets: tuple[str, ...] = setting([], "what to serve: files, folders, URIs, NAME=PATH or NAME:VERSION=PATH", metavar="TARGET")
    port: tuple[int, ...] = field(
        default=(3000,),
        metadata={"help": "port to listen on; repeat it to listen on several, each answering every protocol", "many": True, "of": int,
                  "short": "-p", "unit": "", "choices": (), "metavar": "PORT"},
    )  # fmt: skip
    grpc_port: tuple[int, ...] = setting(
        [], "port for gRPC, where the Open Inference Protocol and TensorFlow Serving answer; 0 takes a free one", of=int, metavar="PORT"
    )
    grpc_host: str = setting("", "address of --grpc-port (default: that of --host)")
    metrics_port: int = setting(-1, "port that answers /metrics and nothing else, beside the others (0: any free one; -1: none)")
    metrics_host: str = setting("", "address of --metrics-port (default: that of --host)")
    host: str = setting("127.0.0.1", "address to listen on; anything but loopback turns keys on for what changes the server")
    public_url: str = setting(
        "",
        "address by which clients reach this server, for URLs in answers: https://models.example.org (default: whatever each client used)",
        metavar="URL",
    )
    workers: int = setting(1, "processes that share the ports, each with its own copy of the models that run in the server")
    engine: str = setting(
        "auto",
        "where models run that do not say it themselves: local in the server, process each in a process of its own, auto as suits their format"
        " (SavedModels in processes)",
        choices=("auto", "local", "process"),
    )
    name: str = setting("", "name of the model when there is one target")
    batch_size: int = setting(
        0,
        "join up to this many rows of waiting requests into one run, where the model's own files do not say (0: 32); Python models take it"
        " over what they declare",
    )
    batch_delay_ms: float = setting(0.0, "let the oldest request wait this long for company while the model is free")
    batch_sizes: tuple[int, ...] = setting(
        [],
        "run tensors only in batches of this many rows, filled up to the next such number; ascending, the last is the batch size",
        of=int,
    )
    batch_cut: bool = setting(
        False, "run requests with more rows than --batch-size in pieces; without, such a request runs alone and whole"
    )
    batch_pad: bool = setting(False, "join tensors of different lengths, too: the shorter are filled up with their first element")
    batch_files: bool = setting(
        False,
        "TensorFlow Serving's batching_params.pbtxt in a version's folder says how its requests are joined; without that file they are not",
    )
    max_queue: int = setting(4096, "requests that may wait for one model; one more is refused at once")
    timeout: float = setting(300.0, "seconds after which a request that names no time-out is given up (0: never)")
    max_body: int = setting(256 << 20, "largest request body, for example 64MB", unit="size")
    max_inputs: int = setting(1000, "inputs that one prediction may have")
    max_file: int = setting(64 << 20, "largest file inside an input, also one that is fetched or uploaded", unit="size")
    max_predictions: int = setting(1000, "asynchronous predictions of one model that may wait in one worker; one more is refused at once")
    prediction_timeout: float = setting(7200.0, "seconds that a Python model may work on one batch (0: any time)")
    setup_timeout: float = setting(3600.0, "seconds that the process of a model may take to import and set it up (0: any time)")
    repeat: bool = setting(
        False,
        "run once more what was running when its model process or its server died; for models whose runs have no effects outside",
    )
    result_expiration: float = setting(3600.0, "seconds that the result of an asynchronous prediction is kept")
    model_wait: float = setting(300.0, "seconds that an accepted prediction waits for a model that has gone, before it fails")
    upload_expiration: float = setting(600.0, "seconds after its last use that an uploaded file is removed")
    max_connections: int = setting(10_000, "open connections per worker; one more is refused")
    keep_alive: float = setting(75.0, "seconds that an idle connection stays open")
    drain_timeout: float = setting(30.0, "seconds that requests in flight may take to finish at shutdown and unload")
    load: str = setting(
        "wait",
        "'wait' opens the port when every target has loaded or failed, 'background' at once, 'request' when --load-model has: everything else is"
        " loaded when a client asks for it by name",
        choices=("wait", "background", "request"),
    )
    load_model: tuple[str, ...] = setting([], "model that is loaded at start with --load request", metavar="NAME")
    lenient_readiness: bool = setting(False, "say ready while models load or have failed, as soon as the server answers")
    server_name: str = setting("dragoman", "what the server calls itself in the Open Inference Protocol", metavar="NAME")
    exit_on_error: bool = setting(False, "end with exit code 1 when any target cannot be loaded at start, not only when none can")
    wait_for_models: bool = setting(
        False, "wait at start for targets that are not there yet, or have no version yet: with --load wait no port is open before"
    )
    poll: float = setting(
        0.0,
        "look at the targets' files every so many seconds: load what is new, replace what has changed, unload what has gone (0: only at start)",
    )
    version_policy: str = setting(
        "latest",
        "which numeric folders of a model are served, where its own files do not say: latest, latest:N, all, or numbers as 1,3",
        metavar="POLICY",
    )
    model_config_file: str = setting(
        "", "TensorFlow Serving's list of models as text: model_config_list { config { name: ... base_path: ... } }", metavar="FILE"
    )
    model_config_poll: float = setting(0.0, "read --model-config-file again every so many seconds (0: only at start)")
    unavailable_labels: bool = setting(False, "let the list of models give a new label to a version that is not loaded yet")
    load_retries: int = setting(0, "try so often again what could not be loaded, each after --load-retry-interval")
    load_retry_interval: float = setting(60.0, "seconds between such tries")
    threads: int = setting(0, "threads per model inside its framework (0: what suits the framework, at most cores divided by workers)")
    instances: int = setting(1, "copies of each model that run at the same time in one worker")
    environments: str = setting(
        "auto",
        "virtualenvs of Python models: auto makes one where packages are missing here, always for every model that declares any, never none",
        choices=("auto", "always", "never"),
    )
    trust_pickle: bool = setting(False, "load pickle and joblib files; they can run any code, so only for files that you made")
    model_root: tuple[str, ...] = setting(
        [], "folder that models may be registered and loaded from; pickles and Python code in it are refused", metavar="DIR"
    )
    trusted_root: tuple[str, ...] = setting(
        [], "as --model-root, for folders with files that you made: pickles and Python code in it are loaded", metavar="DIR"
    )
    mlflow_registry: str = setting(
        "", "address of the MLflow registry that models:/ URIs mean (default: MLFLOW_REGISTRY_URI, else this server's own)", metavar="URL"
    )
    device: str = setting("", "where models run: cpu, cuda, cuda:1 (default: cpu)")
    router: tuple[str, ...] = setting(
        [],
        "model that is made of others: KIND is VotingEnsemble, ParallelRun or ModelRouter, or FILE.py:CLASS for a subclass of one",
        metavar="NAME=KIND:MEMBER,MEMBER",
        commas=True,
    )
    option: tuple[str, ...] = setting(
        [], "option for runtimes where a model's own files do not give it, as the page of the format describes them", metavar="NAME=VALUE"
    )
    class_args: tuple[str, ...] = setting(
        [],
        "class arguments of an MLRun model or a router, a JSON object: model_path, what get_param asks for; in a file also a table of tables",
        metavar="NAME[:VERSION]=JSON",
        table=True,
        commas=True,
    )
    data_dir: str = setting("", "where the server keeps its own files (default: the user's data directory)", metavar="DIR")
    store: str = setting(
        "",
        "database of models, wishes and predictions: sqlite:///FILE, or postgresql://USER:PASSWORD@HOST:PORT/DATABASE for servers that share"
        " one (default: a SQLite file in the data directory)",
        metavar="URL",
        shown=shown,
    )
    log_level: str = setting(
        "info", "trace (as debug), debug, info, warning or error", choices=("trace", "debug", "info", "warning", "error")
    )
    log_format: str = setting("auto", "pretty, json, or auto: pretty on a terminal", choices=("auto", "pretty", "json"))
    access_log: bool = setting(False, "log one line per request")
    api_key_file: str = setting("", "file of API keys (default: keys.toml in the data directory)", metavar="FILE")
    require_key: bool = setting(False, "ask for a key for inference too")
    no_auth: bool = setting(False, "ask for no key at all, whatever the address")
    cors: bool = setting(False, "let web pages of other origins call inference")
    allow_fetch: tuple[str, ...] = setting(
        [], "host, address range, file:///DIR or s3://BUCKET that requests may make the server read", metavar="WHERE"
    )
    fetch_timeout: float = setting(30.0, "seconds that a fetch for a request may take")
    explain: tuple[str, ...] = setting(
        [], "explain a model that does not do so itself, by auto, exact or permutation", metavar="NAME=METHOD[:OPTION=VALUE...]"
    )
    tracking: str = setting(
        "",
        "where to record requests and answers: kafka://BROKER/TOPIC, http://..., https://..., FILE.jsonl or FILE.parquet (default: nowhere)",
        metavar="URL",
        shown=_without_password,
    )
    tracking_sample: int = setting(1, "record every so many-th request of each model and worker; those that fail are always recorded")
    tracking_batch: int = setting(1, "requests of one model in one record; of Parquet: rows of one file (1: as many as suit it)")
    stream: tuple[str, ...] = setting(
        [],
        "messages that models answer: kafka://BROKER/TOPIC?out=TOPIC&group=NAME, mqtt://BROKER/TOPIC?out=TOPIC, kinesis://STREAM?out=STREAM; add"
        " &model=NAME for one model, else each message names its own",
        metavar="URL",
        shown=_without_password,
    )
    monitoring_path: str = setting(
        METRICS_PATH, "a second path of the metrics page, where TensorFlow Serving has it (empty: none)", metavar="PATH"
    )
    check_signature_methods: bool = setting(
        False, "refuse calls of TensorFlow Serving's protocol to signatures whose method name is not that of the call"
    )
    jobs: str = setting(
        "auto",
        "run people's own programs as jobs, as FloydHub did (they are code of whoever may call this server): auto only on a loopback address",
        choices=("auto", "on", "off"),
    )
    max_jobs: int = setting(32, "jobs that run at the same time; others wait in line (0: any number)")
    job_memory: int = setting(0, "memory that all processes of a job may use together (0: any)", unit="size")
    job_cpus: int = setting(0, "processor cores that a job may use (0: all)")
    job_processes: int = setting(1024, "processes and threads that a job may have (0: any number)")
    job_file_size: int = setting(0, "largest file that a job may write (0: any)", unit="size")
    job_log_size: int = setting(16 << 20, "output of a job that is kept", unit="size")
    job_max_runtime: float = setting(604800.0, "seconds of running after which a job is ended; jobs may ask for less (0: any time)")
    job_start_timeout: float = setting(600.0, "seconds in which a served program must accept connections (0: any time)")
    job_idle_timeout: float = setting(0.0, "seconds without a request after which a served job sleeps until the next one (0: never)")
    job_concurrency: int = setting(1, "requests that a job is given at the same time; more wait in line")
    job_isolation: str = setting(
        "auto",
        "how jobs are kept apart: namespaces (bubblewrap), shim (moved ports and paths, no protection), auto the best that this machine allows",
        choices=("auto", "namespaces", "shim"),
    )
    no_job_network: bool = setting(False, "give no job a network beyond its own endpoint")
    env_frameworks: bool = setting(
        False, "install the framework that the name of a job's environment means, in its nearest release, once for all jobs that ask for it"
    )
    max_code: int = setting(512 << 20, "largest upload of one job's code", unit="size")
    max_code_files: int = setting(50_000, "files that one upload of code may have")
    max_data_set: int = setting(100 << 30, "largest data set, packed and unpacked", unit="size")
    data_root: tuple[str, ...] = setting([], "folder whose sub-folders may be named as data sets of jobs, without an upload", metavar="DIR")
    tls_cert: str = setting("", "certificate chain in PEM; turns TLS on", metavar="FILE")
    tls_key: str = setting("", "private key in PEM", metavar="FILE")
    tls_client_ca: str = setting("", "certificates that clients must be signed by", metavar="FILE")
    grpc_tls_cert: str = setting("", "certificate chain of gRPC alone (default: that of --tls-cert)", metavar="FILE")
    grpc_tls_key: str = setting("", "its private key", metavar="FILE")
    grpc_tls_client_ca: str = setting("", "certificates that clients of gRPC must be signed by", metavar="FILE")

    @property
    def data_path(self) -> Path:
        return Path(self.data_dir or _default_data_dir())

    @property
    def store_url(self) -> str:
        return self.store or store_url(self.data_path)

    @property
    def alone(self) -> bool:
        """Whether one process serves from the store: with a SQLite file there is one server at a time (holder.py)."""
        return self.workers == 1 and sqlite_path(self.store_url) is not None

    @property
    def place(self) -> Place:
        """Where models are stored."""
        return Place(self.data_path, self.store_url)
