"""Numeric JSON to arrays and back: shared by the codecs of the Open Inference Protocol and TensorFlow Serving.

Reading. `loads` gives plain Python objects, except that a long list of numbers may be a `NumberList`: ask `is_list(value)` where a list must
be told from an object, never isinstance. `array_of` makes the array, with the nesting as its shape:

    body = loads(text)                                         # JsonSyntaxError(offset, reason)
    body = loads(text, nonfinite=True, ignore_rest=True)       # TensorFlow Serving: bare NaN and Infinity, text after the end ignored
    array = array_of(item["data"], FP32)                       # V2: then compare array.size with the claimed shape, and reshape
    array = array_of(body["instances"], FP32)                  # TensorFlow Serving, one input: all rows at once
    array = array_of([row["x"] for row in rows], FP32)         # several inputs: one column (NumberLists in it are stacked)

For base64 values a codec puts `bytes` objects in the place of `{"b64": ...}`; BYTES takes them beside strings. On NumbersError the codec
words its own message from `fault`, `path`, `value`, `json_type`, `expected` and `got`, or takes `str(error)`; for words about single rows it
may call array_of again row by row.

Writing. `fragment` gives a value for `orjson.dumps`:

    orjson.dumps({"name": "y", "data": fragment(array, FP32, nested=False, nonfinite="null")})      # V2: flat, always valid JSON
    orjson.dumps({"predictions": fragment(array, FP32, nested=True, nonfinite="tokens")})           # TensorFlow Serving
"""

from dragoman.dialects.json.arrays import array_of, guess
from dragoman.dialects.json.errors import EXPECTED, RAGGED, Fault, JsonSyntaxError, NumbersError, json_type
from dragoman.dialects.json.packed import MAX_DEPTH, NumberList, is_list
from dragoman.dialects.json.reading import loads
from dragoman.dialects.json.writing import NotJsonError, array_json, cells_json, fragment

__all__ = [
    "EXPECTED",
    "MAX_DEPTH",
    "RAGGED",
    "Fault",
    "JsonSyntaxError",
    "NotJsonError",
    "NumberList",
    "NumbersError",
    "array_json",
    "array_of",
    "cells_json",
    "fragment",
    "guess",
    "is_list",
    "json_type",
    "loads",
]
