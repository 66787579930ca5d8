"""How long a text takes to read, and how hard it is: a model in a few lines of Python, with no package but this server's own."""

import re
from typing import Annotated, TypedDict

import dragoman


class Reading(TypedDict):
    words: int
    seconds: float
    level: str


@dragoman.batched(max_size=32)
def predict(text: list[str], words_per_minute: Annotated[int, {"minimum": 50, "maximum": 1000}] = 230) -> list[Reading]:
    return [read(each, words_per_minute) for each in text]


def read(text: str, words_per_minute: int) -> Reading:
    words = re.findall(r"\w+", text)
    sentences = max(1, len(re.findall(r"[.!?]+", text)))
    # The automated readability index: letters per word and words per sentence.
    index = 4.71 * sum(map(len, words)) / max(1, len(words)) + 0.5 * len(words) / sentences - 21.43
    level = "easy" if index < 6 else "plain" if index < 12 else "hard"
    return {"words": len(words), "seconds": round(60 * len(words) / words_per_minute, 1), "level": level}
