"""A 1x3x224x224 image in, one number out: what it costs to take a large tensor, in binary and as JSON; and how fast JSON is decoded."""

from functools import partial

from benchmarks import json_decode, servers
from benchmarks.duel import Contender, Duel, Opponent, contest, speed_target, table
from benchmarks.models import Models
from benchmarks.options import Options
from benchmarks.results import Section, Table, Target
from benchmarks.traffic import Shot, image_base64, image_raw, image_tfserving, image_v2_binary, image_v2_json

CONNECTIONS = (16, 64)
_DECODE_TARGET_MB = 300


def run(models: Models, options: Options) -> Section:
    predict = models.predict_image
    binary, by_json, tfserving = image_v2_binary(predict), image_v2_json(predict), image_tfserving(predict)
    own_form = {"triton": binary, "mosec": image_raw(predict), "litserve": image_base64(predict)}
    readers = [Opponent(f"raw image under {kind}", partial(servers.raw, models, kind, "image"), binary) for kind in ("dragoman", "uvicorn")]
    mlserver = [peer(models, "mlserver", by_json)] if "mlserver" in options.peers else []
    triton = [peer(models, "triton", by_json)] if "triton" in options.peers else []
    section = Section("image", "image: 1x3x224x224 FP32, two workers")

    def part(title: str, shots: list[Shot], opponents: list[Opponent]) -> list[Duel]:
        with servers.dragoman(models, models.image_mean) as ours:
            duels, remarks = contest(Contender(ours, shots), opponents, CONNECTIONS, options)
        section.parts += [f"### {title}, {len(shots[0].body):,} bytes", table(duels), "\n".join(f"- {remark}" for remark in remarks)]
        return duels

    duels = part(
        "Open Inference Protocol, binary",
        binary,
        [*readers, *(peer(models, name, own_form[name]) for name in options.peers if name in own_form)],
    )
    section.targets.append(speed_target("binary: at least level with Triton", duels, "triton", None, 1.0))
    for title, shots in (("Open Inference Protocol, JSON", by_json), ("TensorFlow Serving rows", tfserving)):
        duels = part(title, shots, [*mlserver, *triton])
        section.targets.append(speed_target(f"{title}: at least 4 times MLServer", duels, "mlserver", None, 4.0))
    lines = json_decode.images()
    section.parts += [
        "### Decoding that body alone, in one process",
        Table(
            ("body", "MB", "MB/s", "orjson and NumPy MB/s", "json and NumPy MB/s"),
            [[line.name, f"{line.size / 1e6:.2f}", *(f"{speed:.0f}" for speed in line.speeds)] for line in lines],
        ),
    ]
    slowest = min(line.speeds[0] for line in lines)
    section.targets.append(
        Target(f"decoding at {_DECODE_TARGET_MB} MB/s or more", f"{slowest:.0f} MB/s at least", slowest >= _DECODE_TARGET_MB)
    )
    return section


def peer(models: Models, name: str, shots: list[Shot]) -> Opponent:
    return Opponent(name, partial(servers.peer, models, name), shots, partial(servers.install, name))
