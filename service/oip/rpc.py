"""The protocol over gRPC: ``inference.GRPCInferenceService``, with ``ModelStreamInfer`` from Triton."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
import numpy as np
from google.protobuf import json_format

from pranet_client.pictures import Picture
from service.access import rate_limits
from service.calls import current
from service.errors import Draining, InternalError, InvalidRequest, MethodNotAllowed, ServiceError
from service.frames.frame import Segmentation
from service.oip import model, parameters, tensors
from service.oip.inference import Inferred, check_sizes, infer
from service.oip.parameters import Value
from service.oip.tensors import Tensor
from service.pb.inference import open_inference_pb2 as pb
from service.pb.inference import open_inference_pb2_grpc as pb_grpc
from service.rpc.call import Context, write
from service.runtime import Service
from service.streams.stream import read_in_time
from service.tasks import in_order
from service.validation import shown

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name

log = logging.getLogger(__name__)


def add_to(server: grpc.aio.Server, service: Service) -> None:
    """Add the protocol to a gRPC server that has not been started."""
    pb_grpc.add_GRPCInferenceServiceServicer_to_server(Servicer(service), server)  # type: ignore[no-untyped-call]
    refusals = {method: _refusal(what) for what, methods in model.UNSUPPORTED.values() for method in methods}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE_NAME, refusals)])


def _refusal(what: str) -> "grpc.RpcMethodHandler[Any, Any]":
    async def refuse(request: bytes, context: Context) -> None:
        raise MethodNotAllowed(model.refusal(what))

    return grpc.unary_unary_rpc_method_handler(refuse)


class Servicer(pb_grpc.GRPCInferenceServiceServicer):
    """Implements the service of ``open_inference.proto``."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def ServerLive(self, request: pb.ServerLiveRequest, context: Context) -> pb.ServerLiveResponse:
        """Answer true as long as the process runs."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest, context: Context) -> pb.ServerReadyResponse:
        """Tell whether this process accepts new work."""
        return pb.ServerReadyResponse(ready=self._service.readiness.ready)

    async def ServerMetadata(self, request: pb.ServerMetadataRequest, context: Context) -> pb.ServerMetadataResponse:
        """Return the server's name, version and extensions."""
        return json_format.ParseDict(model.server_metadata(), pb.ServerMetadataResponse())

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Context) -> pb.ModelReadyResponse:
        """Answer like ``ServerReady``, since there is only one model."""
        model.check(request.name, request.version)
        return pb.ModelReadyResponse(ready=self._service.readiness.ready)

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, context: Context) -> pb.ModelMetadataResponse:
        """Return the model's input and output tensors."""
        model.check(request.name, request.version)
        return json_format.ParseDict(model.metadata(self._service), pb.ModelMetadataResponse())

    async def ModelConfig(self, request: pb.ModelConfigRequest, context: Context) -> pb.ModelConfigResponse:
        """Return the model's batching configuration."""
        model.check(request.name, request.version)
        return json_format.ParseDict({"config": model.config(self._service)}, pb.ModelConfigResponse())

    async def ModelStatistics(self, request: pb.ModelStatisticsRequest, context: Context) -> pb.ModelStatisticsResponse:
        """Return counts and durations of inferences."""
        if request.name:
            model.check(request.name, request.version)
        statistics = {"model_stats": [await model.statistics(self._service)]}
        return json_format.ParseDict(statistics, pb.ModelStatisticsResponse())

    async def RepositoryIndex(self, request: pb.RepositoryIndexRequest, context: Context) -> pb.RepositoryIndexResponse:
        """Return the state of every model, in this process."""
        index = {"models": model.index(self._service.readiness.ready, request.ready)}
        return json_format.ParseDict(index, pb.RepositoryIndexResponse())

    async def ModelInfer(self, request: pb.ModelInferRequest, context: Context) -> pb.ModelInferResponse:
        """Segment the pictures of a request, which get the request's priority."""
        call = current()
        if "x-request-id" not in call.headers:
            call.set_request_id(request.id)
        frames = await self._infer(request, call.deadline - call.arrived)
        response, inferred = await asyncio.to_thread(_response, request.id, frames)
        context.set_trailing_metadata((("x-model", inferred.model_id), ("server-timing", inferred.server_timing)))
        return response

    async def ModelStreamInfer(self, requests: AsyncIterator[pb.ModelInferRequest], context: Context) -> None:
        """Answer every request of a stream, in order; the answer to a failed one is its error."""
        streams, is_complete = self._service.streams, False

        async def send(response: pb.ModelStreamInferResponse) -> None:
            await read_in_time(write(context, response), streams.unread_timeout)

        async def received() -> AsyncIterator[pb.ModelInferRequest]:
            nonlocal is_complete
            async for request in requests:
                yield request
            is_complete = True

        with streams.place():
            await in_order(received(), self._answer_streamed, send, at_once=streams.window, stop=streams.draining)
        if streams.draining.is_set() and not is_complete:
            raise Draining("the service is shutting down and has answered all accepted requests; use another instance")

    async def _answer_streamed(self, request: pb.ModelInferRequest) -> pb.ModelStreamInferResponse:
        try:
            await rate_limits.current().wait()
            limit = self._service.settings.request_timeout_ms / 1e3
            response, _ = await asyncio.to_thread(_response, request.id, await self._infer(request, limit))
        except ServiceError as error:
            self._service.calls.reject(error)
            return _failed(request.id, error)
        except Exception:
            self._service.calls.reject(InternalError)
            log.exception("a request of a stream failed")
            return _failed(request.id, InternalError("request"))
        response.parameters["triton_final_response"].bool_param = True  # one response for each request
        return pb.ModelStreamInferResponse(infer_response=response)

    async def _infer(self, request: pb.ModelInferRequest, limit: float) -> list[Segmentation]:
        model.check(request.model_name, request.model_version)
        given = _parameters(request.parameters)
        for output in request.outputs:
            parameters.refuse_unknown(output.parameters, parameters.OF_OUTPUT, "output", output.name)
        options = parameters.options(given, [each.name for each in request.outputs], self._service.settings.threshold)
        deadline = asyncio.get_running_loop().time() + parameters.seconds(given, limit)
        pictures = await asyncio.to_thread(_pictures, request, self._service)
        return await infer(self._service.segmenter, pictures, options, deadline)


def _parameters(given: Mapping[str, pb.InferParameter]) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for name, parameter in given.items():
        if (choice := parameter.WhichOneof("parameter_choice")) is None:
            raise InvalidRequest(f"parameter {shown(name)} has no value; give it one, or leave it out")
        found[name] = getattr(parameter, choice)
    return found


def _pictures(request: pb.ModelInferRequest, service: Service) -> list[Picture]:
    pictures = tensors.pictures(_inputs(request), service.max_queue_size)
    check_sizes(pictures, service.settings.max_image_bytes, service.settings.max_image_pixels)
    return pictures


def _inputs(request: pb.ModelInferRequest) -> list[Tensor]:
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InvalidRequest(
            f"the request has {len(request.inputs)} inputs, but {len(raw)} raw_input_contents; send one for each input"
        )
    inputs = []
    for number, given in enumerate(request.inputs):
        parameters.refuse_unknown(given.parameters, parameters.OF_INPUT, "input", given.name)
        if raw and given.HasField("contents"):
            raise InvalidRequest(
                f"input {shown(given.name)} has both contents and raw_input_contents; send one of them"
            )
        data = tensors.from_raw(given.datatype, raw[number]) if raw else _contents(given)
        inputs.append(Tensor(given.name, given.datatype, tuple(given.shape), data))
    return inputs


def _contents(given: pb.ModelInferRequest.InferInputTensor) -> bytes | list[bytes]:
    if given.datatype == "BYTES":
        return list(given.contents.bytes_contents)
    return tensors.from_numbers(np.array(given.contents.uint_contents, np.uint32))


def _response(request_id: str, frames: list[Segmentation]) -> tuple[pb.ModelInferResponse, Inferred]:
    inferred = Inferred.of(frames)
    response = pb.ModelInferResponse(
        model_name=model.NAME,
        model_version=model.VERSION,
        id=request_id,
        outputs=[
            pb.ModelInferResponse.InferOutputTensor(name=name, datatype=model.OUTPUTS[name], shape=array.shape)
            for name, array in inferred.outputs.items()
        ],
        raw_output_contents=[tensors.to_raw(array) for array in inferred.outputs.values()],
    )
    return response, inferred


def _failed(request_id: str, error: ServiceError) -> pb.ModelStreamInferResponse:
    return pb.ModelStreamInferResponse(error_message=error.detail, infer_response=pb.ModelInferResponse(id=request_id))
