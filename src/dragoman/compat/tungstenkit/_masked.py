"""MaskedImage: a picture and a mask of its size, decoded and checked when it is made."""

from collections.abc import Set as AbstractSet
from typing import Any

from ._base import BaseIO, Values
from ._errors import Fault, Loc, fault
from ._files import Image


class MaskedImage(BaseIO):
    image: Image
    mask: Image

    @classmethod
    def _compare(cls, values: Values, changed: AbstractSet[str], loc: Loc, faults: list[Fault]) -> None:
        if "mask" not in changed:
            return  # a picture of another size is assigned before its mask is
        pictures: dict[str, Any] = {}
        for name, mode in (("image", "RGB"), ("mask", "L")):
            value = values.get(name)
            if not isinstance(value, Image):
                return
            try:
                pictures[name] = value.to_pil_image(mode)  # type: ignore[arg-type] # one of the two literals above
            except Exception as error:  # PIL's own, of its plugins, of a download: no common class
                fault(faults, (*loc, name), "value_error", f"cannot be decoded as an image: {type(error).__name__}")
        if len(pictures) < 2:
            return
        mask = pictures["mask"].point(lambda level: 255 if level > 0 else 0)
        if mask.size != pictures["image"].size:
            words = f"Mask size is different to the image's (image: {pictures['image'].size}, mask: {mask.size})"
            fault(faults, (*loc, "mask"), "value_error", words)
            return
        values["mask"] = Image.from_pil_image(mask)
