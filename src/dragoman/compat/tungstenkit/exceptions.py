"""Every exception class of Tungstenkit by its own name, for `except` clauses of model files and programs.

TungstenException
 |- of models    TungstenModelError ModelConfigError InvalidInput InvalidOutput InvalidDemoOutput PredictionFailure UnsupportedModel
 |- of files     DownloadError UploadError UnsupportedURL InvalidURL StoredDataError
 |- of names     InvalidName NotFound (ModelNotFound, ModelImageNotFound) Conflict NotLoggedIn
 |- of clients   ClientError (ModelClientError, TungstenClientError)
 `- of builds    BuildError DockerError TungstenTaskError and those about packages and versions

Only a few are raised here: PredictionFailure, ModelClientError, InvalidURL, ModelNotFound, DownloadError, TungstenModelError.
"""


class TungstenException(Exception):  # noqa: N818 # the names of this file are Tungstenkit's
    """Catches all of them."""


class TungstenModelError(TungstenException): ...


class ModelConfigError(TungstenException): ...


class InvalidInput(TungstenException): ...


class InvalidOutput(TungstenException): ...


class InvalidDemoOutput(TungstenException): ...


class PredictionFailure(TungstenException):
    """A prediction ended as failed; the text is the server's error message."""


class UnsupportedModel(TungstenException): ...


class DownloadError(TungstenException):
    """A file behind a URL could not be fetched."""


class UploadError(TungstenException): ...


class UnsupportedURL(TungstenException): ...


class InvalidURL(TungstenException): ...


class StoredDataError(TungstenException): ...


class InvalidName(TungstenException): ...


class NotFound(TungstenException): ...


class ModelNotFound(NotFound): ...


class ModelImageNotFound(NotFound): ...


class Conflict(TungstenException): ...


class NotLoggedIn(TungstenException): ...


class ClientError(TungstenException):
    """A server answered with something other than success, or (status_code 0) did not answer."""

    def __init__(self, url: str, status_code: int, reason: str, detail: str, msg_prefix: str | None = None) -> None:
        super().__init__(url, status_code, reason, detail, msg_prefix)
        self.url = url
        self.status_code = status_code
        self.reason = reason
        self.detail = detail
        self.msg_prefix = msg_prefix

    def __str__(self) -> str:
        outcome = f"{self.status_code} {self.reason}" if self.status_code else self.reason
        before = f"{self.msg_prefix}: " if self.msg_prefix else ""
        return f"{before}{self.url} answered {outcome}\n{self.detail}" if self.status_code else f"{before}{self.url}: {outcome}"


class ModelClientError(ClientError): ...


class TungstenClientError(ClientError): ...


class BuildError(TungstenException): ...


class DockerError(TungstenException): ...


class TungstenTaskError(TungstenException): ...


class PipPackageParseError(TungstenException): ...


class NoCompatibleVersion(TungstenException): ...


class NoCompatiblePythonPackage(TungstenException): ...


class NoCompatiblePythonVersion(TungstenException): ...


class NoCompatibleCUDAImage(TungstenException): ...


class NoCompatiblePythonImage(TungstenException): ...


class PythonPackageMetadataError(TungstenException): ...
