"""The public names of Tungstenkit 0.2.20, for model files that say `from tungstenkit import ...`. No pydantic, no docker, nothing to install.

Model files import it, and tests of them; the server's side of it is `_bridge`, which the Python runtime calls.
"""

from . import exceptions as exceptions
from . import models as models
from ._base import BaseIO
from ._client import ModelServer
from ._define import define_model
from ._errors import ValidationError as ValidationError
from ._fields import Field, Option
from ._files import Audio, Binary, Image, Video
from ._masked import MaskedImage

__version__ = "0.2.20"
"""The version of Tungstenkit whose names and rules these are."""

__all__ = [
    "Audio",
    "BaseIO",
    "Binary",
    "Field",
    "Image",
    "MaskedImage",
    "ModelServer",
    "Option",
    "Video",
    "__version__",
    "define_model",
]
