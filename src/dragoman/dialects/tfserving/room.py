"""How much more than it sends one request may take: for what TensorFlow Serving's messages let a few bytes stand for. Called by both codecs."""

from collections.abc import Sequence

from dragoman.core.errors import Kind, ServingError


class Room:
    """Bytes that one request may still take for what it does not send: one value that stands for all of a shape, a context for every example."""

    __slots__ = ("left", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = self.left = limit

    def take(self, size: int, what: str) -> None:
        """Raises TOO_LARGE when it is used up."""
        self.left -= size
        if self.left < 0:
            raise ServingError(Kind.TOO_LARGE, f"{what} would fill more than {self.limit} bytes", what="body")


def with_context(context: bytes, examples: Sequence[bytes], room: Room) -> list[bytes]:
    """Serialized Examples that have the features of the context too; their own win, as what comes last in a serialized map holds."""
    if not context:
        return list(examples)
    room.take(len(context) * len(examples), "the context of all examples")
    return [context + each for each in examples]
