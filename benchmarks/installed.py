"""The peers without load: make their environments, start each, check its answers. `python -m benchmarks peers`."""

from benchmarks import servers
from benchmarks.models import Models
from benchmarks.options import Options
from benchmarks.processes import BenchmarkError
from benchmarks.results import Section, Table
from benchmarks.traffic import Shot, image_base64, image_raw, image_v2_binary, image_v2_json, iris_rows, iris_v2


def run(models: Models, options: Options) -> Section:
    by_v2, by_rows = iris_v2(models.predict_iris), iris_rows(models.predict_iris)
    image = models.predict_image
    shots = {
        "triton": [*by_v2, *image_v2_binary(image)],
        "mosec": [*by_rows, *image_raw(image)],
        "mlserver": [*by_v2, *image_v2_json(image)],
        "litserve": [*by_rows, *image_base64(image)],
    }
    rows = []
    for name in options.peers:
        print(f"{name} ...", flush=True)
        reason = servers.install(name)
        rows.append([name, f"cannot be installed: {reason}" if reason else _try(models, name, shots[name])])
    return Section("peers", "peers: installed, and whether they answer right", [Table(("peer", "state"), rows)])


def _try(models: Models, name: str, shots: list[Shot]) -> str:
    try:
        with servers.peer(models, name) as server:
            server.wait(shots)
            return f"answers right, {server.processes.memory_mb():.0f} MB idle"
    except BenchmarkError as error:
        return f"does not answer: {error}"
