"""JSON documents as they should not be: a writer that takes raw tokens, and mutations of the tree of a valid document."""

import copy
import json
from random import Random
from typing import Any


class Raw(bytes):
    """JSON text, or what pretends to be, that is written as it is."""


_NUMBERS = (
    *("NaN", "Infinity", "-Infinity", "-0", "0.0", "-0.0", "1e999", "-1e999", "1e-999", "1E400", "01", "1.", ".5", "+1", "0x10", "1_000"),
    *(str(2**bits + step) for bits in (7, 8, 15, 16, 31, 32, 53, 63, 64, 65, 200) for step in (-1, 0, 1)),
    *(str(-(2**bits) - step) for bits in (7, 15, 31, 63, 64) for step in (0, 1)),
    *("3.4028236e38", "1e39", "5e-324", "2.5", "-1.5", "1e3", "9" * 400, "0." + "3" * 400, "1" + "0" * 5000),
)
_TEXTS = (
    *('""', '"text"', '"0"', '"NaN"', '"\\u0000"', '"\\ud800"', '"\\udc00\\ud800"', '"\\ud83d\\ude00"', '"\\uffff"', '"\\x"', '"\\u12"'),
    *('"../../x"', '"%s%n"', '"' + "a" * 70_000 + '"', '"' + "é" * 300 + '"', '"unfinished', "'single'", '"@latest"', '"AAAA"'),
)
_OTHERS = (
    *("null", "true", "false", "[]", "{}", "[[]]", "[{}]", '{"b64":"AAAA"}', '{"b64":"!"}', '{"b64":1}', '{"b64":"AA==","x":1}'),
    *(
        "[1,[2]]",
        "[[1],[2,3]]",
        "[[[[[[[[1]]]]]]]]",
        "[null]",
        "[true,1]",
        '["a",1]',
        "True",
        "nul",
        "",
        ",",
        "[1,]",
        '{"a"}',
        "{1:2}",
        "/**/1",
    ),
)
_DEEP = tuple(
    text
    for depth in (20, 31, 33, 65, 900, 1_000, 1_015, 1_023, 1_025, 5_000, 100_000)
    for text in ("[" * depth + "]" * depth, "[" * depth + "1" + "]" * depth, '{"a":' * depth + "1" + "}" * depth)
)
HOSTILE = tuple(Raw(text.encode("utf-8", "surrogatepass")) for text in (*_NUMBERS, *_TEXTS, *_OTHERS, *_DEEP))
"""Values that take the place of others. The last ones are long: see `hostile`."""
_KEYS = ("", "name", "shape", "datatype", "data", "parameters", "inputs", "outputs", "id", "instances", "signature_name", "b64", "timeout")
_NAMES = ("\ud800", "a" * 300, "binary_data_size", "binary_data", "classification", "shared_memory_region", "priority", "sequence_id")


def dumps(node: Any) -> bytes:
    """Write a tree; not stricter than it has to be."""
    if isinstance(node, Raw):
        return node
    if isinstance(node, dict):
        return b"{" + b",".join([b"%b:%b" % (json.dumps(key).encode(), dumps(value)) for key, value in node.items()]) + b"}"
    if isinstance(node, list) and any(isinstance(item, dict | list | Raw) for item in node):
        return b"[" + b",".join(map(dumps, node)) + b"]"
    return json.dumps(node).encode()


def hostile(rng: Random) -> Raw:
    """One of the hostile values; a deep or long one only now and then."""
    value = rng.choice(HOSTILE)
    return value if len(value) < 2_050 or rng.random() < 0.1 else hostile(rng)


def spoilt(tree: Any, rng: Random) -> Any:
    """A copy of a tree with one to three things wrong in it (or right again: not every change is a fault)."""
    holder = [copy.deepcopy(tree)]
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        node, key = _somewhere(holder, rng)
        rng.choice(_CHANGES)(node, key, rng)
    return holder[0]


def _somewhere(holder: list[Any], rng: Random) -> tuple[Any, Any]:
    """A container and a key or an index in it, rather near the top."""
    node, key = holder, 0
    while isinstance(node[key], dict | list) and len(node[key]) and rng.random() < 0.8:
        node = node[key]
        key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
    return node, key


def _replace(node: Any, key: Any, rng: Random) -> None:
    node[key] = hostile(rng)


def _remove(node: Any, key: Any, rng: Random) -> None:
    if isinstance(node, dict) or len(node) > 1:
        del node[key]


def _rename(node: Any, key: Any, rng: Random) -> None:
    if isinstance(node, dict):
        node[rng.choice((*_KEYS, *_NAMES))] = node.pop(key)


def _add(node: Any, key: Any, rng: Random) -> None:
    into = node[key] if isinstance(node[key], dict | list) else node
    if isinstance(into, dict):
        into[rng.choice((*_KEYS, *_NAMES))] = hostile(rng)
    else:
        into.insert(rng.randrange(len(into) + 1), hostile(rng))


def _repeat(node: Any, key: Any, rng: Random) -> None:
    """The same key twice in an object; an item of a list many times."""
    if isinstance(node, dict):
        text = dumps(node)
        again = b"%b:%b" % (json.dumps(key).encode(), hostile(rng) if rng.random() < 0.5 else dumps(node[key]))
        node[key] = Raw(dumps(node[key]) + b"," + again) if rng.random() < 0.5 else Raw(text)
    else:
        node.extend([node[key]] * rng.choice((1, 2, 50)))


def _wrap(node: Any, key: Any, rng: Random) -> None:
    node[key] = rng.choice(([node[key]], {"x": node[key]}, [node[key], node[key]], {"b64": node[key]}))


def _unwrap(node: Any, key: Any, rng: Random) -> None:
    inner = node[key]
    if isinstance(inner, list) and inner:
        node[key] = inner[0]
    elif isinstance(inner, dict) and inner:
        node[key] = rng.choice(list(inner.values()))


def _nudge(node: Any, key: Any, rng: Random) -> None:
    """A scalar that is nearly right, or of a type nearby."""
    value = node[key]
    if isinstance(value, bool):
        node[key] = int(value)
    elif isinstance(value, int):
        node[key] = rng.choice((value + 1, value - 1, -value, float(value), str(value), value * 2**40, value == 0))
    elif isinstance(value, float):
        node[key] = rng.choice((int(value) if abs(value) < 1e300 else 0, str(value), value * 1e300, Raw(b"NaN"), None))
    elif isinstance(value, str) and not isinstance(value, Raw):
        node[key] = rng.choice((value + "x", value[:-1], value.upper(), value.lower(), value.encode().hex(), [value], value + "\x00"))
    else:
        node[key] = hostile(rng)


_CHANGES = (_replace, _replace, _remove, _rename, _add, _repeat, _wrap, _unwrap, _nudge, _nudge)
