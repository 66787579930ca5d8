"""A Tungsten model that takes a masked image, over real sockets: what the model sees, and what becomes of masks that are none."""

import base64
import io
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from tests.e2e.plain import Plain
from tests.e2e.running import serving

MODEL = """
from typing import Dict, List
from tungstenkit import BaseIO, Image, MaskedImage, Option, define_model

class Input(BaseIO):
    photo: MaskedImage
    frame: int = Option(0, ge=0, le=9)

class Output(BaseIO):
    cut: Image
    levels: Dict[str, int]

@define_model(input=Input, output=Output, batch_size=4)
class Cut:
    def predict(self, inputs):
        return [self.cut(each) for each in inputs]

    def cut(self, given):
        photo, mask = given.photo.image.to_pil_image("RGB"), given.photo.mask.to_pil_image("L")
        photo.putalpha(mask)
        levels = {str(value): count for count, value in mask.getcolors()}
        return Output(cut=Image.from_pil_image(photo), levels=levels)
"""


def picture(mode: str, size: tuple[int, int], *dots: int) -> str:
    """A data URI; the first pixels have these values, the others are 0."""
    made = Image.new(mode, size)
    for x, value in enumerate(dots):
        made.putpixel((x, 0), value)
    buffer = io.BytesIO()
    made.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plain]:
    folder = tmp_path_factory.mktemp("cut")
    (folder / "tungsten_model.py").write_text(MODEL)
    with serving(tmp_path_factory.mktemp("data"), f"cut={folder}") as running:
        yield Plain(running.port)


def test_the_mask_is_black_and_white(client: Plain) -> None:
    """T24: both parts arrive, whatever was not black is white, and the schema says that it is an object of two files."""
    photo = {"image": picture("RGB", (4, 3)), "mask": picture("L", (4, 3), 255, 1, 128)}
    answer = client.post("/predict", [{"photo": photo}]).json()
    assert answer["status"] == "success", answer
    assert answer["outputs"][0]["levels"] == {"0": 9, "255": 3}
    cut = Image.open(io.BytesIO(base64.b64decode(answer["outputs"][0]["cut"].partition(",")[2])))
    assert (cut.mode, cut.size) == ("RGBA", (4, 3))
    shown = client.get("/").json()["input_schema"]["properties"]["photo"]
    assert shown["type"] == "object"
    assert [shown["properties"][part]["format"] for part in ("image", "mask")] == ["uri", "uri"]


SMALL = picture("RGB", (4, 3))


@pytest.mark.parametrize(
    "photo",
    [
        {"image": SMALL, "mask": picture("L", (3, 4))},
        {"image": SMALL, "mask": "data:image/png;base64,bm8gcGljdHVyZQ=="},
        {"image": "data:text/plain,no%20picture", "mask": SMALL},
        {"image": SMALL},
        {"image": SMALL, "mask": None},
        {"image": SMALL, "mask": 3},
        SMALL,
    ],
)
def test_a_mask_that_is_none_is_no_fault_of_the_server(client: Plain, photo: Any) -> None:
    """T31: refused as bad input, or a failed prediction that names the field; never 5xx. The next one is served."""
    reply = client.post("/predict", [{"photo": photo}])
    assert reply.status in (200, 422), reply.body
    if reply.status == 200:
        answer = reply.json()
        assert answer["status"] == "failed"
        assert "photo" in answer["error_message"]
    else:
        assert reply.json()["detail"][0]["loc"][:4] == ["body", "__root__", 0, "photo"]
    good = {"image": SMALL, "mask": picture("L", (4, 3))}
    assert client.post("/predict", [{"photo": good}]).json()["status"] == "success"
