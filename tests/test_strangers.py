"""Clients that nobody here wrote."""

import asyncio
import shutil
import subprocess
from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from fakes import PATIENCE, serving
from gates import GatedPredictor
from pictures import SAMPLES
from service.core import Phase

NODE_CLIENT = Path(__file__).parent / "node_client"


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


async def test_a_health_client_follows_the_service_from_its_start_to_its_end() -> None:
    serving_status = health_pb2.HealthCheckResponse
    predictor = GatedPredictor()
    async with asyncio.timeout(PATIENCE), serving(predictor, until_ready=False) as it:
        watching = health_pb2_grpc.HealthStub(it.channel).Watch(health_pb2.HealthCheckRequest(service=""))
        seen = [(await watching.read()).status]
        if seen[-1] != serving_status.SERVING:
            seen.append((await watching.read()).status)
        it.service.readiness.enter(Phase.DRAINING)
        seen.append((await watching.read()).status)
        watching.cancel()
    assert seen[-2:] == [serving_status.SERVING, serving_status.NOT_SERVING]


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("node") is None or not (NODE_CLIENT / "node_modules").exists(), reason="no Node client (npm install)"
)
async def test_a_node_client_made_from_the_proto_alone_gets_100_answers_for_100_frames() -> None:
    async with serving() as it:
        command = ["node", str(NODE_CLIENT / "stream.mjs"), f"127.0.0.1:{it.grpc_port}", str(SAMPLES[0])]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "100 answers, 100 masks, order kept"
