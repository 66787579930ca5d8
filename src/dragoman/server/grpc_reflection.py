"""gRPC's server reflection: tools such as grpcurl ask it for services and messages. Two of the services of grpc.py, one for each of its names."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Any

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.dialects import Access
from dragoman.dialects.refusals import words
from dragoman.dialects.rpc import USUAL_CODE, Code, Method, RpcCall
from dragoman.proto import messages as protos

VERSIONS = ("v1", "v1alpha")


class ReflectionService:
    """`names` are the services to be listed."""

    def __init__(self, version: str, names: Sequence[str]) -> None:
        self.name = f"grpc.reflection.{version}.ServerReflection"
        self._package = f"grpc.reflection.{version}"
        self._names = sorted(names)
        self.methods: Mapping[str, Method] = {"ServerReflectionInfo": Method(Access.PUBLIC, stream=self._answer)}

    def refuse(self, error: ServingError) -> tuple[Code, str]:
        return USUAL_CODE[error.kind], words(error)

    async def _answer(self, messages: AsyncIterator[bytes], call: RpcCall) -> AsyncGenerator[bytes, None]:
        """One answer per question; what does not exist is an answer, too."""
        async for message in messages:
            try:
                request: Any = protos.parse(f"{self._package}.ServerReflectionRequest", message)
            except ValueError:
                raise invalid("the message is no ServerReflectionRequest", "body") from None
            response: Any = protos.new(f"{self._package}.ServerReflectionResponse")
            response.valid_host = request.host
            response.original_request.CopyFrom(request)
            try:
                self._fill(response, request)
            except ServingError as error:
                response.error_response.error_code, response.error_response.error_message = self.refuse(error)
            yield response.SerializeToString()

    def _fill(self, response: Any, request: Any) -> None:
        pool = protos.pool()
        try:
            match request.WhichOneof("message_request"):
                case "list_services":
                    response.list_services_response.SetInParent()
                    for name in self._names:
                        response.list_services_response.service.add(name=name)
                case "file_by_filename":
                    _describe(response, pool.FindFileByName(request.file_by_filename))
                case "file_containing_symbol":
                    _describe(response, _file_of(pool, request.file_containing_symbol))
                case "file_containing_extension":
                    asked = request.file_containing_extension
                    extended = pool.FindMessageTypeByName(asked.containing_type)
                    _describe(response, pool.FindExtensionByNumber(extended, asked.extension_number).file)
                case "all_extension_numbers_of_type":
                    extended = pool.FindMessageTypeByName(request.all_extension_numbers_of_type)
                    response.all_extension_numbers_response.base_type_name = extended.full_name
                    numbers = sorted(extension.number for extension in pool.FindAllExtensions(extended))
                    response.all_extension_numbers_response.extension_number.extend(numbers)
                case _:
                    raise invalid("the request asks for nothing")
        except KeyError:
            raise ServingError(Kind.NOT_FOUND, "there is no such file, symbol or extension") from None


def _file_of(pool: Any, symbol: str) -> Any:
    """Where a symbol is; the pool does not know methods by their full names. Raises KeyError."""
    try:
        return pool.FindFileContainingSymbol(symbol)
    except KeyError:
        service, _, method = symbol.rpartition(".")
        found = pool.FindServiceByName(service)
        return found.methods_by_name[method].containing_service.file


def _describe(response: Any, file: Any) -> None:
    """The file and all that it imports, each once."""
    described = response.file_descriptor_response.file_descriptor_proto
    waiting, seen = [file], {file.name}
    while waiting:
        each = waiting.pop(0)
        described.append(each.serialized_pb)
        for imported in each.dependencies:
            if imported.name not in seen:
                seen.add(imported.name)
                waiting.append(imported)
