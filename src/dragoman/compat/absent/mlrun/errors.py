"""MLRun's exceptions that say which HTTP status they mean, in `error_status_code`. Raised by model code; the server answers that status."""


class MLRunBaseError(Exception):
    """Above all of them."""


class MLRunHTTPError(MLRunBaseError):
    """Above those with a status."""

    error_status_code: int | None = None

    def __init__(self, *args: object, response: object = None, status_code: int | None = None, **_more: object) -> None:
        super().__init__(*args)
        self.response = response
        if status_code is not None:
            self.error_status_code = status_code


class MLRunHTTPStatusError(MLRunHTTPError):
    """Above those whose class says the status."""


class MLRunBadRequestError(MLRunHTTPStatusError):
    error_status_code = 400


class MLRunInvalidArgumentError(MLRunHTTPStatusError, ValueError):
    error_status_code = 400


class MLRunInvalidArgumentTypeError(MLRunHTTPStatusError, TypeError):
    error_status_code = 400


class MLRunUnauthorizedError(MLRunHTTPStatusError):
    error_status_code = 401


class MLRunAccessDeniedError(MLRunHTTPStatusError):
    error_status_code = 403


class MLRunNotFoundError(MLRunHTTPStatusError):
    error_status_code = 404


class MLRunMethodNotAllowedError(MLRunHTTPStatusError):
    error_status_code = 405


class MLRunConflictError(MLRunHTTPStatusError):
    error_status_code = 409


class MLRunPreconditionFailedError(MLRunHTTPStatusError):
    error_status_code = 412


class MLRunUnprocessableEntityError(MLRunHTTPStatusError):
    error_status_code = 422


class MLRunInternalServerError(MLRunHTTPStatusError):
    error_status_code = 500


class MLRunRuntimeError(MLRunHTTPStatusError, RuntimeError):
    error_status_code = 500


class MLRunMissingDependencyError(MLRunInternalServerError):
    """A package is missing."""


class MLRunNotImplementedServerError(MLRunHTTPStatusError):
    error_status_code = 501


class MLRunServiceUnavailableError(MLRunHTTPStatusError):
    error_status_code = 503


class MLRunTimeoutError(MLRunHTTPStatusError, TimeoutError):
    error_status_code = 504


class MLRunValueError(ValueError):
    """Without a status of its own."""


def err_to_str(error: BaseException | str | None) -> str:
    """An exception and what caused it, as one text."""
    if error is None or isinstance(error, str):
        return error or ""
    cause = error.__cause__
    return f"{error}, caused by: {err_to_str(cause)}" if cause is not None else str(error)
