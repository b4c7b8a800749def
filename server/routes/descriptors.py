"""What methods take, from a pipeline's own description of its contract.

Everything described lives in a pool of its own: contracts of two pipelines, or a pipeline's and
the gate's, may have the same names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import DecodeError

from server.routes.fields import FieldPath, Step
from utility_gate.errors import ConfigError


@dataclass(frozen=True, slots=True)
class MethodType:
    """The messages that a method takes, and what it streams."""

    takes: Descriptor
    streams_requests: bool
    streams_answers: bool

    @property
    def streams(self) -> bool:
        """Whether it streams either."""
        return self.streams_requests or self.streams_answers


MethodTypes = Mapping[str, MethodType]
"""By "package.Service/Method"."""


def read_set(path: Path) -> list[FileDescriptorProto]:
    """The files of a FileDescriptorSet on disk.

    Raises:
        ConfigError: if it is none.
    """
    try:
        files = list(FileDescriptorSet.FromString(path.read_bytes()).file)
    except OSError as error:
        raise ConfigError(
            f"descriptors: expected a readable file at {path}: {error.strerror}"
        ) from error
    except DecodeError as error:
        raise ConfigError(f"descriptors: {path}: {_MAKE}, got other bytes") from error
    if not files:
        raise ConfigError(f"descriptors: {path}: {_MAKE}, got an empty one")
    return files


_MAKE = "expected a FileDescriptorSet, as `protoc --include_imports -o FILE` writes"


def read_types(files: Iterable[FileDescriptorProto], services: Collection[str]) -> MethodTypes:
    """The methods of those of `services` that are described.

    Raises:
        ConfigError: if the files do not fit together.
    """
    pool = descriptor_pool.DescriptorPool()
    waiting = {file.name: file for file in files}
    for name in list(waiting):
        _add(name, waiting, pool)
    types: dict[str, MethodType] = {}
    for service in services:
        try:
            described = pool.FindServiceByName(service)
        except KeyError:
            continue
        types |= methods_of(described)
    return types


def methods_of(service: ServiceDescriptor) -> dict[str, MethodType]:
    """The methods of one service, by "package.Service/Method"."""
    return {
        f"{service.full_name}/{method.name}": MethodType(
            method.input_type, method.client_streaming, method.server_streaming
        )
        for method in service.methods
    }


def _add(
    name: str, waiting: dict[str, FileDescriptorProto], pool: descriptor_pool.DescriptorPool
) -> None:
    """Add a file, and before it what it imports."""
    file = waiting.pop(name, None)  # first: files that import each other end here
    if file is None:
        return
    for imported in file.dependency:
        _add(imported, waiting, pool)
    try:
        pool.AddSerializedFile(file.SerializeToString())
    except TypeError as error:
        raise ConfigError(
            f"descriptors: {name} does not fit ({error}); {_MAKE}, imports included"
        ) from error


def find_path(message: Descriptor, path: str) -> FieldPath:
    """Where the fields of a dotted path are in messages of this type.

    Raises:
        ConfigError: naming what does not fit.
    """
    steps: list[Step] = []
    names = path.split(".")
    current: Descriptor | None = message
    for index, name in enumerate(names):
        last = index == len(names) - 1
        where = f"image_field {path}"
        if current is None:  # the last one was no message
            raise ConfigError(f"{where}: expected a message at {names[index - 1]}, got bytes")
        field = current.fields_by_name.get(name)
        if field is None:
            raise ConfigError(
                f"{where}: expected one of the fields {', '.join(current.fields_by_name) or '-'} "
                f"of {current.full_name}, got {name}"
            )
        wanted = FieldDescriptor.TYPE_BYTES if last else FieldDescriptor.TYPE_MESSAGE
        is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        if field.type != wanted or is_map:
            kind = "bytes" if last else "a message"
            raise ConfigError(
                f"{where}: expected {kind} in {name} of {current.full_name}, got another type"
            )
        steps.append(Step(name, field.number, field.is_repeated, field.has_presence))
        current = field.message_type
    if sum(step.repeated for step in steps) > 1:
        raise ConfigError(f"image_field {path}: expected one repeated field at most, got several")
    return FieldPath(tuple(steps))
