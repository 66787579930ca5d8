"""Send a picture, get a thumbnail, with nothing but the standard library: the picture is drawn here when none is named.

python client.py [URL [PICTURE]]
"""

import base64
import json
import os
import struct
import sys
import urllib.request
import zlib
from pathlib import Path
from typing import Any

URL = os.environ.get("DRAGOMAN_URL", "http://127.0.0.1:3000")


def draw(width: int, height: int) -> bytes:
    """A PNG file of a sunset."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = bytearray()
    for y in range(height):
        rows.append(0)  # this row is not filtered
        for x in range(width):
            sun = (x - width / 2) ** 2 + (y - height * 0.7) ** 2 < (height / 5) ** 2
            rows += bytes((255, 220, 90) if sun else (200 * y // height + 40, 90, 160 - 120 * y // height))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(rows))) + chunk(b"IEND", b"")


def predict(url: str, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The outputs of one prediction."""
    request = urllib.request.Request(f"{url}/predict", json.dumps(inputs).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        answer = json.load(reply)
    if answer["status"] != "success":
        raise SystemExit(answer["error_message"])
    return answer["outputs"]


def main(url: str = URL, picture: str = "") -> None:
    content = Path(picture).read_bytes() if picture else draw(640, 360)
    # A file in a request is a data URI or plain base64; a server that allows it fetches http addresses, too.
    uri = "data:image/png;base64," + base64.b64encode(content).decode()
    plain = base64.b64encode(content).decode()
    outputs = predict(url, [{"picture": uri}, {"picture": plain, "size": 64}, {"picture": uri, "size": 64, "grey": True}])
    for number, output in enumerate(outputs, 1):
        head, _, data = output["thumbnail"].partition(",")
        small = base64.b64decode(data)
        name = Path(f"thumbnail-{number}.png")
        name.write_bytes(small)
        print(f"{len(content)} bytes -> {output['width']} x {output['height']}, {len(small)} bytes, {head}, saved as {name}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
