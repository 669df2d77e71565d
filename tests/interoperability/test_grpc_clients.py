"""Clients that nobody here wrote."""

import asyncio
import base64
import json
import os
import shutil
import subprocess
import sys
import threading
from asyncio.subprocess import PIPE
from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from service.rpc.health import HealthServicer
from service.rpc.server import SERVICE_NAME
from service.runtime import Phase
from tests.support.pictures import SAMPLES, mask_of
from tests.support.predictors import RedPredictor
from tests.support.serving import PATIENCE, serving

NODE_CLIENT = Path(__file__).parent / "node_client"
GRPCURL = shutil.which("grpcurl", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


async def test_a_client_without_the_proto_lists_describes_and_calls_the_service_by_reflection() -> None:
    def call(port: int) -> tuple[list[str], list[str], str]:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            pool = descriptor_pool.DescriptorPool(database)
            service = pool.FindServiceByName("pranet.v1.SegmentationService")
            method = service.FindMethodByName("GetModelInfo")
            request = message_factory.GetMessageClass(method.input_type)()
            answer = channel.unary_unary(
                f"/{service.full_name}/{method.name}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
            )(request, timeout=PATIENCE)
            return list(database.get_services()), [each.name for each in service.methods], answer.model.model_id

    async with serving() as it:
        services, methods, model_id = await asyncio.to_thread(call, it.grpc_port)
    assert {"pranet.v1.SegmentationService", "grpc.health.v1.Health"} <= set(services)
    assert methods == ["Segment", "SegmentStream", "GetModelInfo"]
    assert model_id == "red-00000000"


@pytest.mark.slow
@pytest.mark.skipif(GRPCURL is None, reason="no grpcurl")
async def test_grpcurl_lists_describes_and_calls_the_service() -> None:
    async with serving() as it:

        async def grpcurl(*arguments: str, sent: str = "") -> str:
            process = await asyncio.create_subprocess_exec(
                *(GRPCURL or "", "-plaintext", *(("-d", "@") if sent else ())),
                *(f"127.0.0.1:{it.grpc_port}", *arguments),
                stdin=PIPE,
                stdout=PIPE,
            )
            async with asyncio.timeout(PATIENCE):
                return (await process.communicate(sent.encode()))[0].decode()

        image = base64.b64encode(SAMPLES[0].read_bytes()).decode()
        frames = "".join(json.dumps({"frame": {"frameId": number, "image": image}}) for number in range(3))
        listed = await grpcurl("list")
        described = await grpcurl("describe", "pranet.v1.SegmentationService")
        answer = json.loads(await grpcurl("pranet.v1.SegmentationService/Segment", sent=json.dumps({"image": image})))
        streamed = await grpcurl(
            "pranet.v1.SegmentationService/SegmentStream", sent='{"config": {"policy": "POLICY_EVERY"}}' + frames
        )
        health = json.loads(await grpcurl("grpc.health.v1.Health/Check"))
    assert "pranet.v1.SegmentationService" in listed.splitlines()
    assert (
        "rpc SegmentStream ( stream .pranet.v1.StreamRequest ) returns ( stream .pranet.v1.StreamResponse );"
        in described
    )
    assert mask_of(base64.b64decode(answer["png"])).shape == (answer["height"], answer["width"])
    assert streamed.count('"mask"') == 3
    assert health == {"status": "SERVING"}


def _wait(event: threading.Event) -> None:
    assert event.wait(PATIENCE)


async def test_a_health_client_follows_the_service_from_its_start_to_its_end() -> None:
    warm = threading.Event()
    predictor = RedPredictor(warm_up=lambda max_batch_size: _wait(warm))
    async with asyncio.timeout(PATIENCE), serving(predictor, until_ready=False) as it:
        watching = health_pb2_grpc.HealthStub(it.channel).Watch(health_pb2.HealthCheckRequest(service=""))
        seen = [(await watching.read()).status]
        warm.set()
        seen.append((await watching.read()).status)
        it.service.readiness.enter(Phase.DRAINING)
        seen.append((await watching.read()).status)
        watching.cancel()
    assert seen == [NOT_SERVING, SERVING, NOT_SERVING]


async def test_a_health_client_watches_for_longer_than_a_request_may_take() -> None:
    async with asyncio.timeout(PATIENCE), serving(request_timeout_ms=100) as it:
        watching = health_pb2_grpc.HealthStub(it.channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE_NAME))
        seen = [(await watching.read()).status]
        await asyncio.sleep(1)
        it.service.readiness.enter(Phase.DRAINING)
        seen.append((await watching.read()).status)
        watching.cancel()
    assert seen == [SERVING, NOT_SERVING]


async def test_a_health_client_that_does_not_read_keeps_the_news_from_nobody() -> None:
    health = HealthServicer([SERVICE_NAME])
    request = health_pb2.HealthCheckRequest()
    idle, reading = (health.Watch(request, grpc.aio.ServicerContext) for _ in range(2))
    await anext(idle)  # and never again, as gRPC does while its client's window is full
    seen = [(await anext(reading)).status]
    for ready in (True, False, True):
        health.publish(ready)
        seen.append((await anext(reading)).status)
    assert seen == [NOT_SERVING, SERVING, NOT_SERVING, SERVING]


async def test_a_health_client_lists_what_is_served_and_is_told_what_is_not() -> None:
    async with serving() as it:
        stub = health_pb2_grpc.HealthStub(it.channel)
        listed = await stub.List(health_pb2.HealthListRequest())
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await stub.Check(health_pb2.HealthCheckRequest(service="somebody.else"))
        watching = stub.Watch(health_pb2.HealthCheckRequest(service="somebody.else"))
        watched = (await watching.read()).status
        watching.cancel()
    assert {name: each.status for name, each in listed.statuses.items()} == dict.fromkeys(
        ["", SERVICE_NAME, "inference.GRPCInferenceService"], SERVING
    )
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
    assert SERVICE_NAME in str(unknown.value.details())
    assert watched == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("node") is None or not (NODE_CLIENT / "node_modules").exists(), reason="no Node client (npm install)"
)
async def test_a_node_client_made_from_the_proto_alone_gets_100_answers_for_100_frames() -> None:
    async with serving() as it:
        command = ["node", str(NODE_CLIENT / "stream.mjs"), f"127.0.0.1:{it.grpc_port}", str(SAMPLES[0])]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "100 answers, 100 masks, order kept"
