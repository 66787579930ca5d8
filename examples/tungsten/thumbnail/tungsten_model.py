"""Picture to picture: makes it small. It names Pillow, which it needs, so it runs also where the server has none."""

from PIL import ImageOps
from tungstenkit import BaseIO, Field, Image, Option, define_model


class Input(BaseIO):
    picture: Image = Field(description="The picture to make small")
    size: int = Option(128, ge=8, le=1024, description="Longest side of the thumbnail")
    grey: bool = Option(False, description="Leave the colours out")


class Output(BaseIO):
    thumbnail: Image
    width: int
    height: int


@define_model(input=Input, output=Output, batch_size=4, python_packages=["pillow"], readme_md="README.md")
class Thumbnail:
    def predict(self, inputs: list[Input]) -> list[Output]:
        return [self.shrink(each) for each in inputs]

    def shrink(self, given: Input) -> Output:
        picture = given.picture.to_pil_image("RGB")
        picture.thumbnail((given.size, given.size))
        if given.grey:
            picture = ImageOps.grayscale(picture)
        return Output(thumbnail=Image.from_pil_image(picture), width=picture.width, height=picture.height)
