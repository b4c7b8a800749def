"""Asks a gate through the real tritonclient: calls as JSON on stdin, their answers on stdout.

A process of its own: tritonclient and `utility_gate.inference` define messages of the same names,
and one process's protobuf pool takes only one of the two.
"""

from __future__ import annotations

import base64
import json
import sys
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2 as pb


def infer(
    client: triton.InferenceServerClient,
    images: list[str],
    model: str = "general",
    version: str = "",
    outputs: list[str] | None = None,
    column: bool = False,
    headers: dict[str, str] | None = None,
) -> dict[str, Any]:
    """As users do: numpy in, numpy out; raw contents on the wire."""
    elements = np.array([base64.b64decode(image) for image in images], np.object_)
    if column:
        elements = elements[:, None]
    tensor = triton.InferInput("image", list(elements.shape), "BYTES")
    tensor.set_data_from_numpy(elements)
    wanted = [triton.InferRequestedOutput(name) for name in outputs] if outputs else None
    result = client.infer(
        model, [tensor], version, wanted, request_id="7", headers=headers, client_timeout=20
    )
    response = result.get_response()
    return {
        "id": response.id,
        "model": [response.model_name, response.model_version],
        "outputs": {
            output.name: [
                value.decode() if isinstance(value, bytes) else float(value)
                for value in result.as_numpy(output.name).reshape(-1)
            ]
            for output in response.outputs
        },
    }


def infer_typed(
    client: triton.InferenceServerClient, images: list[str], model: str = "general"
) -> dict[str, Any]:
    """The same with contents in their fields, which tritonclient's messages can do."""
    request = pb.ModelInferRequest(model_name=model, id="7")
    tensor = request.inputs.add(name="image", datatype="BYTES", shape=[len(images)])
    tensor.contents.bytes_contents.extend(base64.b64decode(image) for image in images)
    response = client._client_stub.ModelInfer(request, timeout=20)
    assert not response.raw_output_contents
    return {
        "id": response.id,
        "model": [response.model_name, response.model_version],
        "outputs": {
            output.name: list(output.contents.fp32_contents)
            or [value.decode() for value in output.contents.bytes_contents]
            for output in response.outputs
        },
    }


def contract(client: triton.InferenceServerClient) -> dict[str, Any]:
    """Every message as tritonclient knows it: its fields' numbers and kinds."""
    messages = list(pb.DESCRIPTOR.message_types_by_name.values())
    found = {}
    for message in messages:
        messages.extend(message.nested_types)
        found[message.full_name] = {
            field.name: [field.number, field.type, field.is_repeated] for field in message.fields
        }
    return found


CALLS = {
    "live": lambda client: client.is_server_live(),
    "ready": lambda client: client.is_server_ready(),
    "model_ready": lambda client, *names: client.is_model_ready(*names),
    "metadata": lambda client: client.get_server_metadata(as_json=True),
    "model_metadata": lambda client, *names: client.get_model_metadata(*names, as_json=True),
    "infer": infer,
    "infer_typed": infer_typed,
    "contract": contract,
}


def main() -> None:
    asked = json.load(sys.stdin)
    answers: list[Any] = []
    with triton.InferenceServerClient(asked["target"]) as client:
        for name, *arguments in asked["calls"]:
            keywords = arguments.pop() if arguments and isinstance(arguments[-1], dict) else {}
            try:
                answers.append(CALLS[name](client, *arguments, **keywords))
            except triton.InferenceServerException as error:
                answers.append({"status": error.status(), "message": error.message()})
            except grpc.RpcError as error:
                answers.append({"status": str(error.code()), "message": error.details()})
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
