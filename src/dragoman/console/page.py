"""The start page: what is served and requests to copy. Plain HTML without scripts; every text that comes from outside is escaped."""

import json
import shlex
from html import escape
from urllib.parse import quote

from dragoman.core.lifecycle import State
from dragoman.core.samples import instances, v2_inputs
from dragoman.core.tensors import Signature, TensorSpec
from dragoman.dialects import Services

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem }
table { border-collapse: collapse; width: 100% } th, td { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid #8885 }
pre { overflow-x: auto; padding: .8rem; background: #8882; border-radius: .4rem; font-size: .85rem }
.ready { color: light-dark(#0a6b2d, #6fdc8c) } .failed { color: light-dark(#b3261e, #ff8a80) } h1 small { font-weight: 400; font-size: 1rem }
"""


def start_page(services: Services, base: str) -> str:
    """The whole page. `base` is the address that the browser used."""
    rows = "".join(
        f"<tr><td>{escape(s.name)}</td><td>{escape(s.version)}</td><td class='{s.state.value}'>{s.state.value}</td>"
        f"<td>{escape(s.platform)}</td><td>{escape(s.reason)}</td></tr>"
        for s in services.gateway.statuses()
    )
    sections = "".join(
        _model(entry.name, entry.signatures[""], base)
        for entry in services.gateway.entries()
        if any(s.state is State.READY for s in services.gateway.statuses(entry.name))
    )
    models = f"<table><tr><th>model</th><th>version</th><th>state</th><th>platform</th><th></th></tr>{rows}</table>"
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<title>Dragoman</title><style>{_STYLE}</style></head><body>"
        f"<h1>Dragoman <small>{escape(services.info.version)}</small></h1>"
        f"<main>{models if rows else '<p>No model is served yet.</p>'}{sections}</main>"
        f"<p><a href='/metrics'>metrics</a> · <a href='/dragoman/v1/status'>status</a> · "
        f"<a href='/docs'>API</a> · <a href='/openapi.json'>OpenAPI</a></p>"
        f"</body></html>"
    )


def _model(name: str, signature: Signature, base: str) -> str:
    path = quote(name, safe="")
    lines = []
    if (inputs := v2_inputs(signature)) is not None:
        lines.append(f"curl {base}/v2/models/{path}/infer -d {shlex.quote(json.dumps({'inputs': inputs}))}")
    if (rows := instances(signature)) is not None:
        lines.append(f"curl {base}/v1/models/{path}:predict -d {shlex.quote(json.dumps({'instances': rows}))}")
    requests = f"<pre>{escape(chr(10).join(lines))}</pre>" if lines else ""
    return f"<h2>{escape(name)}</h2><p>{_tensors('in', signature.inputs)}<br>{_tensors('out', signature.outputs)}</p>{requests}"


def _tensors(direction: str, specs: tuple[TensorSpec, ...]) -> str:
    described = (f"{s.name} {s.datatype or 'any'} {list(s.shape) if s.shape is not None else 'any shape'}" for s in specs)
    return f"{direction}: {escape(', '.join(described))}"
