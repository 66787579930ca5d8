"""Which served version and which signature a request means, in this protocol's words. Called by the REST and the gRPC side."""

from dragoman.core.errors import ServingError
from dragoman.core.lifecycle import State
from dragoman.core.tensors import Signature
from dragoman.dialects.tfserving import answers, messages
from dragoman.serving.gateway import Entry, Gateway, VersionStatus


def find(gateway: Gateway, name: str, version: str, label: str) -> Entry:
    """The entry that answers. No await may follow before `Gateway.infer`. Raises what `Gateway.find` does.

    Unloaded versions are no servables any more, and an unknown label is INVALID_INPUT.
    """
    try:
        return gateway.find(name, version, label)
    except ServingError as error:
        known = gateway.statuses(name)
        if label and error.what == "label":
            raise messages.no_label(label) from None
        if version:
            known = [each for each in known if each.version == version]
        if all(each.state is State.GONE for each in known):
            raise messages.no_servable(name, version) from None
        raise


def statuses(gateway: Gateway, name: str, version: str, label: str) -> list[VersionStatus]:
    """All known versions of a model, or the one that is asked for. Raises NOT_FOUND when there is none, INVALID_INPUT for an unknown label."""
    known = gateway.statuses(name)
    if label and known:
        version = gateway.labels(name).get(label, "")
        if not version:
            raise messages.no_label(label)
    if version:
        known = [each for each in known if each.version == version]
    if not known:
        raise messages.no_status(name, version)
    return known


def signature_of(entry: Entry, wanted: str) -> tuple[str, Signature] | None:
    """The key and the signature that a request names, None for one that does not exist; "serving_default" is another name of the default."""
    key = "" if wanted == answers.DEFAULT_SIGNATURE and wanted not in entry.signatures else wanted
    signature = entry.signatures.get(key) if not key.startswith("@") else None
    return None if signature is None else (key, signature)
