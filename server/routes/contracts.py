"""What is known before any connection is opened: settings that are wrong end the start."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import grpc

from server.inference import NAME as INFERENCE
from server.routes.address import credentials_of
from server.routes.descriptors import (
    MethodType,
    MethodTypes,
    find_path,
    methods_of,
    read_set,
    read_types,
)
from server.routes.fields import ImageField
from server.routes.settings import RouteSettings, UpstreamSettings
from server.routes.tensor_field import PREFIX, TensorField
from utility_gate.errors import ConfigError
from utility_gate.inference import open_inference_pb2 as pb


@dataclass(frozen=True, slots=True)
class Prepared:
    """What an upstream's files hold; `types` is None where its reflection is to be asked."""

    credentials: grpc.ChannelCredentials | None
    types: MethodTypes | None


def prepare(
    routes: tuple[RouteSettings, ...], upstreams: Mapping[str, UpstreamSettings]
) -> dict[str, Prepared]:
    """Read the files of all upstreams, and hold the routes against them.

    Raises:
        ConfigError: naming the upstream, the file and what is wrong with it.
    """
    prepared = {}
    for name, settings in upstreams.items():
        try:
            types = None
            if settings.descriptors is not None:
                types = read_types(read_set(settings.descriptors), services_of(name, routes))
            prepared[name] = Prepared(credentials_of(settings), types)
        except ConfigError as error:
            raise ConfigError(f"upstreams.{name}: {error}") from error
    for route in routes:
        types = known_types(route, prepared[route.upstream].types)
        if types is not None and route.image_field:
            resolve(route, types)
    return prepared


def services_of(upstream: str, routes: Iterable[RouteSettings]) -> list[str]:
    """The services of an upstream that it has to be asked for."""
    known = (route.service for route in routes if route.upstream == upstream)
    return [service for service in dict.fromkeys(known) if service != INFERENCE]


def known_types(route: RouteSettings, types: MethodTypes | None) -> MethodTypes | None:
    """What is known of a route's upstream; of the Open Inference Protocol everybody knows."""
    return INFERENCE_TYPES if route.service == INFERENCE else types


def resolve(route: RouteSettings, types: MethodTypes) -> tuple[MethodType, ImageField]:
    """The type of a judged route's method, and where the images of its requests are.

    Raises:
        ConfigError: if it does not fit.
    """
    found = types.get(route.method)
    if found is None:
        others = [name for name in types if name.startswith(f"{route.service}/")]
        raise ConfigError(
            f"route {route.method}: expected a method that the upstream {route.upstream} has"
            + (f", one of {', '.join(others)}" if others else f"; it has no {route.service}")
        )
    try:
        if route.service != INFERENCE:
            return found, find_path(found.takes, route.image_field)
        name = route.image_field.removeprefix(PREFIX)
        if route.method not in _WITH_TENSORS or name == route.image_field:
            raise ConfigError(
                f'expected image_field "{PREFIX}NAME", the name of a tensor, and one of the '
                f'methods {", ".join(_WITH_TENSORS)}, got "{route.image_field}"'
            )
        return found, TensorField(name)
    except ConfigError as error:
        raise ConfigError(f"route {route.method}: {error}") from error


_WITH_TENSORS = (f"{INFERENCE}/ModelInfer", f"{INFERENCE}/ModelStreamInfer")
_OWN = methods_of(pb.DESCRIPTOR.services_by_name["GRPCInferenceService"])
INFERENCE_TYPES: MethodTypes = {
    **_OWN,
    # Triton's addition to the protocol.
    _WITH_TENSORS[1]: MethodType(_OWN[_WITH_TENSORS[0]].takes, True, True),
}
