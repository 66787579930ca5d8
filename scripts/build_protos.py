"""Compile the .proto files of a folder into the one descriptor file that the package carries. Run by people who change a .proto.

    python scripts/build_protos.py            write src/dragoman/proto/descriptors.binpb
    python scripts/build_protos.py --check    exit 1 when the file does not match the .proto files

Needs grpcio-tools, which nothing at run time does. A descriptor file and no generated modules, because generated modules register their
messages in the process-wide pool, where the same names of a client library that a model may import would collide with them.
"""

import argparse
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from google.protobuf import descriptor_pb2
from grpc_tools import protoc  # type: ignore[import-untyped]

PROTOS = Path(__file__).resolve().parent.parent / "src" / "dragoman" / "proto"
OUTPUT = "descriptors.binpb"


def compile_protos(folder: Path) -> descriptor_pb2.FileDescriptorSet:
    """Every .proto of the folder and what it imports of protobuf's own, each after its imports, else in the order of their names.

    Raises RuntimeError when the compiler refuses one; it says why on stderr.
    """
    sources = sorted(path.name for path in folder.glob("*.proto"))
    well_known = files("grpc_tools") / "_proto"
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / OUTPUT
        paths = [f"--proto_path={folder}", f"--proto_path={well_known}"]
        arguments = ["protoc", *paths, "--include_imports", f"--descriptor_set_out={target}", *sources]
        if protoc.main(arguments) != 0:
            raise RuntimeError(f"the compiler refused {', '.join(sources)}")
        return descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes())


def committed(folder: Path) -> descriptor_pb2.FileDescriptorSet:
    """What the descriptor file holds now; empty when there is none."""
    path = folder / OUTPUT
    return descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes()) if path.exists() else descriptor_pb2.FileDescriptorSet()


def main() -> int:
    parser = argparse.ArgumentParser(description="Compile the package's .proto files into its descriptor file.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the committed file is not up to date")
    parser.add_argument("--folder", type=Path, default=PROTOS, help="where the .proto files and the descriptor file lie")
    options = parser.parse_args()
    compiled = compile_protos(options.folder)
    if options.check:
        if compiled == committed(options.folder):
            return 0
        sys.stderr.write(f"{options.folder / OUTPUT} does not match the .proto files: run python scripts/build_protos.py\n")
        return 1
    (options.folder / OUTPUT).write_bytes(compiled.SerializeToString(deterministic=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
