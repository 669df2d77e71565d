"""The methods of ``pranet.v1.SegmentationService``, which only translate between messages and the data path."""

from collections.abc import AsyncIterator

from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from pranet_client.pb.pranet.v1 import segmentation_pb2_grpc as pb_grpc
from service import __version__
from service.calls import current
from service.errors import TooManyBytes
from service.frames.frame import Frame
from service.rpc import messages
from service.rpc.call import Context, write
from service.runtime import Service
from service.streams.frame import StreamFrame


class Servicer(pb_grpc.SegmentationServiceServicer):
    """Implements the service of ``segmentation.proto``."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def Segment(self, request: pb.SegmentRequest, context: Context) -> pb.SegmentResponse:
        """Segment one encoded image, within the call's deadline."""
        settings, call = self._service.settings, current()
        call.set_request_id(request.request_id)
        if len(request.image) > settings.max_image_bytes:
            raise TooManyBytes.of_image(settings.max_image_bytes)
        options = messages.options(request, settings.threshold)
        frame = Frame(source=request.image, options=options, deadline=call.deadline)
        return messages.response(await self._service.segmenter.segment(frame), call.request_id)

    async def SegmentStream(self, requests: AsyncIterator[pb.StreamRequest], context: Context) -> None:
        """Segment video; ``service.streams.stream`` describes what happens to its frames."""

        async def frames() -> AsyncIterator[StreamFrame]:
            async for request in requests:
                yield messages.frame(request)

        async def send(frame: StreamFrame) -> None:
            await write(context, messages.stream_response(frame))

        first = await self._service.streams.first(requests)
        options = messages.stream_options(first, self._service.settings.threshold)
        with self._service.streams.open(options) as stream:
            await stream.run(frames(), send)

    async def GetModelInfo(self, request: pb.GetModelInfoRequest, context: Context) -> pb.GetModelInfoResponse:
        """Return the weights that answer now, and the limits of this service."""
        settings = self._service.settings
        return pb.GetModelInfoResponse(
            model=messages.model(self._service.model),
            service_version=__version__,
            input_size=self._service.model.input_size,
            threshold=settings.threshold,
            max_batch_size=self._service.max_batch_size,
            max_image_bytes=settings.max_image_bytes,
            max_image_pixels=settings.max_image_pixels,
        )
