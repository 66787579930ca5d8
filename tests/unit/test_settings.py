"""Settings: defaults, file, environment and flags; values of every type; what is refused; the printed form reads back."""

import math
import tempfile
import tomllib
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.errors import Kind, ServingError
from dragoman.server.configuration import as_toml, flag_of, read
from dragoman.server.settings import Settings

NAMES = [f.name for f in fields(Settings)]


def refused(flags: dict[str, Any] | None = None, file: Path | None = None, **environ: str) -> str:
    with pytest.raises(ServingError) as caught:
        read(flags or {}, str(file) if file else "", environ)
    assert caught.value.kind is Kind.INVALID_INPUT
    return caught.value.message


def toml(folder: Path, text: str) -> Path:
    path = folder / "dragoman.toml"
    path.write_text(text, "utf-8")
    return path


# --- precedence ---


def test_defaults() -> None:
    """Without any source: loopback, port 3000, one worker."""
    settings = read({}, environ={})
    assert settings == Settings()
    assert (settings.host, settings.port, settings.workers, settings.targets) == ("127.0.0.1", (3000,), 1, ())


def test_each_source_wins_over_the_one_before(tmp_path: Path) -> None:
    """Defaults, then the file, then the environment, then flags; a flag that was not given is None."""
    path = str(toml(tmp_path, "workers = 2\nmax_queue = 2\nhost = '::1'"))
    environ = {"DRAGOMAN_WORKERS": "3", "DRAGOMAN_MAX_QUEUE": "3", "HOST": "ignored"}
    settings = read({"workers": 4, "max_queue": None}, path, environ)
    assert (settings.workers, settings.max_queue, settings.host, settings.threads) == (4, 3, "::1", 0)


def test_lists_are_replaced_and_not_joined(tmp_path: Path) -> None:
    """Ports on the command line stand for those of the file."""
    path = str(toml(tmp_path, "port = [8000, 8501]\ntargets = 'a.onnx'"))
    assert read({}, path, {}).port == (8000, 8501)
    assert read({}, path, {}).targets == ("a.onnx",)
    assert read({"port": ["1"]}, path, {"DRAGOMAN_PORT": "2,3"}).port == (1,)
    assert read({}, path, {"DRAGOMAN_PORT": "2,3"}).port == (2, 3)


def test_false_can_override_true(tmp_path: Path) -> None:
    """A flag that switches off is not the same as one that was not given."""
    path = str(toml(tmp_path, "cors = true\naccess_log = true"))
    settings = read({"cors": False, "access_log": None}, path, {})
    assert (settings.cors, settings.access_log) == (False, True)


def test_names_in_files_and_flags() -> None:
    """Underscores in files and Python, hyphens in flags; a file may have either."""
    assert flag_of("max_body") == "--max-body"


def test_files_may_use_hyphens(tmp_path: Path) -> None:
    """As people copy them from the flags."""
    assert read({}, str(toml(tmp_path, "max-body = '1k'")), {}).max_body == 1024


def test_class_arguments_from_everywhere(tmp_path: Path) -> None:
    """Flags and variables hold NAME=JSON, whose commas separate nothing; a file may have tables."""
    one = 'm:v1={"k": 1, "l": [2, 3]}'
    assert read({"class_args": [one]}, environ={}).class_args == (one,)
    assert read({}, environ={"DRAGOMAN_CLASS_ARGS": one}).class_args == (one,)
    table = toml(tmp_path, '[class_args.m]\nk = 1\n[class_args."m:v1"]\nl = [2, 3]')
    assert read({}, str(table), {}).class_args == ('m={"k": 1}', 'm:v1={"l": [2, 3]}')
    assert refused({"class_args": ["m"]}) == "--class-args: class arguments are NAME=JSON or NAME:VERSION=JSON, this is 'm'"


# --- types ---


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("workers", "2", 2),
        ("workers", 2, 2),
        ("batch_delay_ms", "1.5", 1.5),
        ("batch_delay_ms", 2, 2.0),
        ("timeout", "1e3", 1000.0),
        ("cors", "Yes", True),
        ("cors", "ON", True),
        ("cors", "0", False),
        ("cors", "false", False),
        ("cors", True, True),
        ("host", "0.0.0.0", "0.0.0.0"),
        ("device", "", ""),
        ("data_dir", Path("/data"), "/data"),
        ("load", "background", "background"),
        ("port", 0, (0,)),
        ("port", ["8000", 8501], (8000, 8501)),
        ("targets", ("a", Path("b")), ("a", "b")),
        ("max_body", "64MB", 64 << 20),
        ("max_body", "64 MiB", 64 << 20),
        ("max_body", "2g", 2 << 30),
        ("max_body", "10", 10),
        ("max_body", 10, 10),
        ("max_body", " 1KB ", 1 << 10),
    ],
)
def test_values(name: str, value: Any, expected: Any) -> None:
    """Texts of the command line and values of Python mean the same, each of its own type."""
    found = getattr(read({name: value}, environ={}), name)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("workers", "two", "a whole number"),
        ("workers", "2.5", "a whole number"),
        ("workers", 2.5, "a whole number"),
        ("workers", 2.0, "a whole number"),
        ("workers", True, "a whole number"),
        ("workers", "", "a whole number"),
        ("workers", "9" * 5000, "a whole number"),
        ("timeout", "soon", "a number"),
        ("timeout", "nan", "a number"),
        ("timeout", math.inf, "a number"),
        ("timeout", "1e999", "a number"),
        ("timeout", 10**400, "a number"),
        ("timeout", False, "a number"),
        ("cors", "maybe", "true or false"),
        ("cors", "", "true or false"),
        ("host", 5, "text"),
        ("host", ["a"], "text"),
        ("targets", [["a"]], "text"),
        ("port", "http", "a whole number"),
        ("port", [8000.5], "a whole number"),
        ("load", "later", "one of wait, background, request"),
        ("log_level", "verbose", "one of trace, debug, info, warning, error"),
        ("max_body", "64 apples", "a size such as 64MB"),
        ("max_body", "-1", "a size such as 64MB"),
        ("max_body", "1.5GB", "a size such as 64MB"),
        ("max_body", 1.5, "a size such as 64MB"),
    ],
)
def test_wrong_values_name_setting_value_and_what_was_expected(name: str, value: Any, expected: str) -> None:
    """Nothing is rounded, guessed or spelled out in silence."""
    message = refused({name: value})
    assert message.startswith(f"{flag_of(name)} is ")
    assert message.endswith(f", expected {expected}")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", [65536]),
        ("port", [-1]),
        ("port", []),
        ("workers", 0),
        ("workers", 513),
        ("batch_size", -1),
        ("max_queue", -1),
        ("timeout", -0.1),
        ("timeout", 1e300),
        ("drain_timeout", -1),
        ("drain_timeout", 1e300),
        ("keep_alive", -1),
        ("keep_alive", 0),
        ("keep_alive", 1e300),
        ("batch_delay_ms", -1),
        ("batch_delay_ms", 1e300),
        ("setup_timeout", -1),
        ("setup_timeout", 1e300),
        ("threads", -1),
        ("threads", 100_000),
        ("instances", 0),
        ("instances", 100_000),
        ("max_body", 0),
        ("max_connections", 0),
        ("option", "threads"),
        ("option", "=1"),
        ("option", "a b=1"),
        ("option", "Trust_Pickle=true"),
    ],
)
def test_values_out_of_range(name: str, value: Any) -> None:
    """What a timer, a pool or a socket would stumble over later is refused at the start."""
    message = refused({name: value})
    assert message.startswith(f"{flag_of(name)} is ")
    assert "expected" in message


def test_messages_name_the_source(tmp_path: Path) -> None:
    """File and key, variable or flag: for values of the wrong type and for those out of range."""
    for text in ("workers = 'x'", "workers = 0"):
        path = toml(tmp_path, text)
        assert refused(file=path).startswith(f"{path}: workers is ")
    for value in ("x", "0"):
        assert refused(DRAGOMAN_WORKERS=value).startswith("DRAGOMAN_WORKERS is ")
        assert refused({"workers": value}).startswith("--workers is ")
    assert refused(DRAGOMAN_PORT="") == "DRAGOMAN_PORT is empty, expected one or more numbers from 0 to 65535"


def test_settings_that_contradict_each_other() -> None:
    """One name for several targets; half of TLS."""
    assert "NAME=PATH" in refused({"name": "m", "targets": ["a", "b"]})
    assert "--tls-cert" in refused({"tls_key": "key.pem"})
    assert read({"name": "m", "targets": ["a"]}, environ={}).name == "m"


# --- the file ---


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wrokers = 2", "has the setting 'wrokers', which does not exist"),
        ("[serve]\nworkers = 2", "has the setting 'serve', which does not exist"),
        ("workers = ", "is not valid TOML"),
        ("workers = 1\nworkers = 2", "is not valid TOML"),
        ("workers = [2]", "expected a whole number"),
        ("host = 1979-05-27", "expected text"),
        ("host = {a = 1}", "expected text"),
        ("max_body = 1.0", "expected a size"),
        ("x = " + "[" * 5000, "is not valid TOML"),
    ],
)
def test_files_that_are_wrong(tmp_path: Path, text: str, message: str) -> None:
    """The message names the file and what is wrong in it."""
    path = toml(tmp_path, text)
    found = refused(file=path)
    assert str(path) in found
    assert message in found


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """Missing, a folder, not UTF-8."""
    assert "cannot be read: No such file" in refused(file=tmp_path / "none.toml")
    assert "cannot be read: Is a directory" in refused(file=tmp_path)
    path = tmp_path / "latin.toml"
    path.write_bytes(b"host = 'caf\xe9'")
    assert "not valid TOML" in refused(file=path)


# --- the printed form ---


def any_settings() -> st.SearchStrategy[Settings]:
    """Settings that `read` could have made."""
    text = st.text(st.characters(exclude_categories=["Cs"]))
    whole = st.integers(1, 256)
    drawn: dict[str, st.SearchStrategy[Any]] = {}
    for spec in fields(Settings):
        choices = spec.metadata.get("choices")
        default = spec.default if spec.default is not MISSING else ()
        if spec.name == "port":
            drawn["port"] = st.lists(st.integers(0, 65535), min_size=1, max_size=3).map(tuple)
        elif spec.name == "store":
            drawn["store"] = text.map(lambda name: "sqlite:////" + name.replace("\0", "") if name else "")
        elif spec.name == "grpc_port":  # none of them the port of anything else
            drawn["grpc_port"] = st.lists(st.just(0), max_size=2).map(tuple)
        elif spec.name == "batch_sizes":  # must go with the batch size
            drawn["batch_sizes"] = st.just(())
        elif spec.name == "class_args":
            drawn["class_args"] = st.lists(st.sampled_from(['m={"k": [1, "\\n"]}', "m:v1={}"]), max_size=1).map(tuple)
        elif spec.name == "explain":
            drawn["explain"] = st.lists(st.sampled_from(["m=auto", "n=exact:rows=5:background=/a b.csv"]), max_size=2, unique=True).map(
                tuple
            )
        elif spec.name == "stream":
            drawn["stream"] = st.lists(
                st.sampled_from(["kafka://b:9092/in?out=o&tls=true", "mqtts://u@b/in/%23?ca=a.pem"]), max_size=1
            ).map(tuple)
        elif spec.name == "router":
            drawn["router"] = st.lists(st.sampled_from(["v=VotingEnsemble:a,b", "p=ParallelRun:a"]), max_size=2).map(tuple)
        elif spec.name == "option":
            drawn["option"] = st.lists(st.sampled_from(["threads=2", "a=b=c"]), max_size=1).map(tuple)
        elif isinstance(default, tuple):
            drawn[spec.name] = st.lists(text, max_size=1).map(tuple)
        elif choices:
            drawn[spec.name] = st.sampled_from(choices)
        elif isinstance(default, bool):
            drawn[spec.name] = st.booleans()
        elif isinstance(default, int):
            drawn[spec.name] = whole
        elif isinstance(default, float):
            drawn[spec.name] = st.floats(0.1, 3600)
        elif spec.name == "version_policy":
            drawn["version_policy"] = st.sampled_from(["latest", "latest:3", "all", "1,3"])
        elif spec.name == "tracking":
            drawn["tracking"] = st.sampled_from(["", "/var/records/a b.jsonl?max_mb=1&keep=2", "http://h:1/x", "file:///a.jsonl"])
        elif spec.name == "monitoring_path":
            drawn["monitoring_path"] = st.sampled_from(["", "/m", "/a/b"])
        elif spec.name == "public_url":
            drawn[spec.name] = st.sampled_from(["", "http://a", "https://[::1]:8/x%20y/"])
        else:
            drawn[spec.name] = text
    same = st.builds(Settings, **drawn)
    tls = same.map(lambda s: replace(s, tls_key=s.tls_key and "k" if s.tls_cert else "", tls_cert=s.tls_cert if s.tls_key else ""))
    return tls.map(lambda s: replace(s, grpc_tls_key=s.tls_key, grpc_tls_cert=s.tls_cert))


@pytest.mark.parametrize(
    ("name", "value"),
    [("router", ("v=Any:a",)), ("stream", ("amqp://h/t",)), ("class_args", ("m",)), ("explain", ("m",)), ("tracking", "r.txt")],
)
def test_who_named_something_wrong_is_named(name: str, value: Any) -> None:
    """The flag, or the variable, in front of what is wrong with it."""
    assert refused({name: value}).startswith(f"{flag_of(name)}: ")
    text = value if isinstance(value, str) else value[0]
    with pytest.raises(ServingError, match=f"DRAGOMAN_{name.upper()}: "):
        read({}, environ={f"DRAGOMAN_{name.upper()}": text})


def test_a_variable_of_items_with_commas_holds_one() -> None:
    """A router has several members, and JSON several keys; other lists are separated by commas."""
    environ = {"DRAGOMAN_ROUTER": "v=ParallelRun:a,b", "DRAGOMAN_CLASS_ARGS": 'm={"a": 1, "b": 2}', "DRAGOMAN_OPTION": "a=1,b=2"}
    settings = read({}, environ=environ)
    assert settings.router == ("v=ParallelRun:a,b",)
    assert settings.class_args == ('m={"a": 1, "b": 2}',)
    assert settings.option == ("a=1", "b=2")


def test_addresses_are_printed_without_their_passwords() -> None:
    """All else of them is there: what is printed is the file of another start, where the password stands in a variable."""
    stream, records = "kafka://ann:hidden@a:9092,b:9092/in?out=o&tls=true", "https://ann:hidden@h/in?token=hidden&day=1"
    settings = read({"stream": (stream, "kinesis://in?region=r"), "tracking": records}, environ={})
    printed = tomllib.loads(as_toml(settings))
    assert printed["stream"] == ["kafka://ann:***@a:9092,b:9092/in?out=o&tls=true", "kinesis://in?region=r"]
    assert printed["tracking"] == "https://ann:***@h/in?token=***&day=***"
    assert "hidden" not in repr(settings)


@pytest.mark.parametrize("size", [0, 8])
def test_allowed_batch_sizes(size: int) -> None:
    """Ascending, up to the batch size, which need not be said again."""
    settings = read({"batch_sizes": ["4", "8"], "batch_size": size}, environ={})
    assert settings.batch_sizes == (4, 8)
    assert read({}, environ={"DRAGOMAN_BATCH_SIZES": "1,2,4"}).batch_sizes == (1, 2, 4)


@pytest.mark.parametrize(("sizes", "size"), [((8, 4), 0), ((0, 4), 0), ((4, 4), 0), ((4, 8), 16)])
def test_batch_sizes_that_make_no_sense(sizes: tuple[int, ...], size: int) -> None:
    """They would leave batches without a size."""
    assert "--batch-sizes is" in refused({"batch_sizes": sizes, "batch_size": size})


@pytest.mark.parametrize("path", ["metrics", "/", "/a b", "/a//b", "/v1/models/metrics", "/a?b", "/a%20b"])
def test_what_is_no_path_for_metrics(path: str) -> None:
    """Plain characters, and nothing of another protocol's."""
    assert "--monitoring-path is" in refused({"monitoring_path": path})


@pytest.mark.parametrize("port", [-2, 65536])
def test_a_metrics_port_is_a_port_or_none(port: int) -> None:
    """Like any other port."""
    assert refused({"metrics_port": port}).endswith("expected 0 to 65535, or -1 for none")


def test_the_path_of_the_metrics() -> None:
    """It is a path, or nothing."""
    assert read({"monitoring_path": ""}, environ={}).monitoring_path == ""
    assert "expected a plain path such as /monitoring/prometheus/metrics" in refused({"monitoring_path": "metrics"})


@pytest.mark.parametrize("url", ["https://models.example.org", "http://10.0.0.1:32080", "http://[::1]:80/ml/", "https://a/b/c%20d"])
def test_public_addresses(url: str) -> None:
    """Scheme, host, and at most a port and a path."""
    assert read({"public_url": url}, environ={}).public_url == url


@pytest.mark.parametrize(
    "url", ["models.example.org", "ftp://a", "https://", "https://a/?b", "https://a#b", "https://a b", "https://u@a", "http://a:x"]
)
def test_what_is_no_public_address(url: str) -> None:
    """Is refused when the server starts, not when the first client has a URL that leads nowhere."""
    assert "--public-url is" in refused({"public_url": url})


@pytest.mark.parametrize("entry", ["m", "m=lime", "m=auto:rows=0"])
def test_what_is_no_explainer(entry: str) -> None:
    """Is refused when the settings are read."""
    assert refused({"explain": [entry]}).startswith(f"--explain: {entry!r}: ")


@pytest.mark.parametrize("url", ["dragoman.db", "sqlite:///", "mysql://u:s3cret@h/d", "postgresql://u:s3/cret@h/d"])
def test_what_is_no_store(url: str) -> None:
    """Is refused when the settings are read, and not repeated where it may have a password."""
    text = refused({"store": url})
    assert text.startswith("--store: ")
    assert "expected" in text
    assert "cret" not in text


def test_where_things_are_stored(tmp_path: Path) -> None:
    """In the data directory, unless a store is named; alone is who has a file and one process."""
    usual = Settings(data_dir=str(tmp_path))
    assert usual.store_url == f"sqlite:///{tmp_path}/dragoman.db"
    assert usual.alone
    assert not replace(usual, workers=2).alone
    shared = replace(usual, store="postgresql://u:s3cret@h/d")
    assert (shared.place.data_path, shared.place.store) == (tmp_path, shared.store_url)
    assert not shared.alone
    assert shared.place.exists
    assert not usual.place.exists


def test_a_password_is_not_printed() -> None:
    """Neither in the form that --config reads, nor when settings are written into a log."""
    settings = read({"store": "postgresql://u:s3cret@h:1/d?sslpassword=s3cret"}, environ={})
    assert 'store = "postgresql://u@h:1/d"' in as_toml(settings)
    assert "s3cret" not in as_toml(settings) + repr(settings)
    assert "s3cret" in settings.store_url


@given(any_settings())
def test_the_printed_form_reads_back(settings: Settings) -> None:
    """--print-config into a file, --config of that file: the same settings, whatever characters are in them."""
    with tempfile.TemporaryDirectory() as folder:
        path = toml(Path(folder), as_toml(settings))
        assert read({}, str(path), {}) == settings


def test_the_printed_form_explains_every_setting() -> None:
    """Each has its help as a comment above it."""
    lines = as_toml(Settings()).splitlines()
    assert [line.split(" = ")[0] for line in lines[1::2]] == NAMES
    assert all(line.startswith("# ") and len(line) > 10 for line in lines[::2])


def test_every_setting_has_a_variable() -> None:
    """DRAGOMAN_ and the name in capitals."""
    for name in ("TARGETS", "HOST", "ALLOW_FETCH", "TLS_CLIENT_CA"):
        assert name.lower() in NAMES
    settings = read({}, environ={"DRAGOMAN_TARGETS": "a,b=c", "DRAGOMAN_ALLOW_FETCH": "10.0.0.0/8", "DRAGOMAN_TRUST_PICKLE": "1"})
    assert (settings.targets, settings.allow_fetch, settings.trust_pickle) == (("a", "b=c"), ("10.0.0.0/8",), True)


def test_the_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that is named, else the user's, by the desktop's convention."""
    assert Settings(data_dir="/srv/models").data_path == Path("/srv/models")
    monkeypatch.setenv("XDG_DATA_HOME", "/home/me/data")
    assert Settings().data_path == Path("/home/me/data/dragoman")
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", "/home/you")
    assert Settings().data_path == Path("/home/you/.local/share/dragoman")


@pytest.mark.parametrize(
    ("port", "expected"), [(-1, "0 to 65535"), (1 << 16, "0 to 65535"), (3000, "port of HTTP"), (8002, "port of HTTP")]
)
def test_a_grpc_port_is_one_of_its_own(port: int, expected: str) -> None:
    """A number that ports have, and not that of HTTP or of the metrics; 0 is any free one."""
    assert expected in refused({"grpc_port": port, "metrics_port": 8002})
    assert read({"grpc_port": [0, 8001], "port": 0}, environ={}).grpc_port == (0, 8001)


@pytest.mark.parametrize("policy", ["newest", "latest:0", "1,,2", ""])
def test_what_is_no_version_policy(policy: str) -> None:
    """It is refused with the forms that there are."""
    assert refused({"version_policy": policy}).endswith("expected latest, latest:N, all, or version numbers such as 1,3")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("max_jobs", -1),
        ("job_concurrency", 0),
        ("job_memory", -1),
        ("job_max_runtime", -1.0),
        ("job_cpus", -1),
        ("max_code", 0),
        ("job_log_size", 0),
    ],
)
def test_limits_of_jobs_that_make_no_sense_are_refused(setting: str, value: float) -> None:
    """With the name of the setting and what was expected."""
    assert "expected" in refused({setting: value})
