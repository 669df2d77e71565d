"""Requests as KServe's Python SDK 0.21 writes them: more members and parameters than the protocol asks for."""

import json
import struct
from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np
import pytest

from service.pb.inference import open_inference_pb2 as pb
from service.pb.inference import open_inference_pb2_grpc as pb_grpc
from service.runtime import Phase
from tests.support.pictures import encoded, red_box
from tests.support.serving import Running, serving

INFER, INDEX = "/v2/models/pranet/infer", "/v2/repository/index"
PICTURE = red_box(64, 48, (10, 10, 40, 30))
MASK = np.asarray(PICTURE)[:, :, 0]
PIXELS = np.asarray(PICTURE)[None]
IMAGE = encoded(PICTURE)


@pytest.fixture
async def it() -> AsyncIterator[Running]:
    async with serving() as running:
        yield running


def stub(it: Running) -> pb_grpc.GRPCInferenceServiceStub:
    return pb_grpc.GRPCInferenceServiceStub(it.channel)


def with_members(**more: Any) -> dict[str, Any]:
    tensor = {"name": "image", "shape": PIXELS.shape, "datatype": "UINT8", "data": PIXELS.ravel().tolist()}
    return {"id": "7", "model_name": "pranet", "inputs": [tensor], **more}


async def test_members_that_the_protocol_does_not_name_are_passed_over(it: Running) -> None:
    answer = await it.rest.post(INFER, json=with_members(model_version="1", raw_input_contents=None))
    assert (answer.status_code, answer.json()["id"]) == (200, "7")
    assert (np.reshape(answer.json()["outputs"][0]["data"], MASK.shape) == MASK).mean() > 0.98


async def test_members_without_a_value_count_as_left_out(it: Running) -> None:
    body = with_members(parameters=None, outputs=None) | {"id": None}
    body["inputs"][0]["parameters"] = None
    answer = await it.rest.post(INFER, json=body)
    assert (answer.status_code, answer.json()["id"]) == (200, "")


async def test_binary_inputs_over_rest_come_with_the_models_name(it: Running) -> None:
    raw = struct.pack("<I", len(IMAGE)) + IMAGE
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(raw)}}
    body = {"id": "7", "model_name": "pranet", "inputs": [tensor], "parameters": {"binary_data_output": True}}
    head = json.dumps(body).encode()
    answer = await it.rest.post(INFER, content=head + raw, headers={"inference-header-content-length": str(len(head))})
    assert answer.status_code == 200
    length = int(answer.headers["inference-header-content-length"])
    mask = np.frombuffer(answer.content[length : length + MASK.size], np.uint8).reshape(MASK.shape)
    assert (mask == MASK).mean() > 0.98


async def test_parameters_of_binary_tensors_change_nothing_over_grpc(it: Running) -> None:
    request = pb.ModelInferRequest(model_name="pranet", raw_input_contents=[PIXELS.tobytes()])
    tensor = request.inputs.add(name="image", datatype="UINT8", shape=PIXELS.shape)
    tensor.parameters["binary_data_size"].int64_param = PIXELS.size
    request.outputs.add(name="mask").parameters["binary_data"].bool_param = True
    request.parameters["binary_data_output"].bool_param = True
    answer = await stub(it).ModelInfer(request)
    assert (np.frombuffer(answer.raw_output_contents[0], np.uint8).reshape(MASK.shape) == MASK).mean() > 0.98


async def test_a_threshold_may_be_text_as_this_client_cannot_send_numbers_with_a_fraction(it: Running) -> None:
    for threshold, all_or_nothing in (("0.0", 255), ("1.0", 0)):
        request = pb.ModelInferRequest(model_name="pranet", raw_input_contents=[PIXELS.tobytes()])
        request.inputs.add(name="image", datatype="UINT8", shape=PIXELS.shape)
        request.parameters["threshold"].string_param = threshold
        answer = await stub(it).ModelInfer(request)
        assert set(answer.raw_output_contents[0]) == {all_or_nothing}
        rest = await it.rest.post(INFER, json=with_members(parameters={"threshold": threshold}))
        assert set(rest.json()["outputs"][0]["data"]) == {all_or_nothing}


async def test_other_parameters_are_refused_by_name_still(it: Running) -> None:
    request = pb.ModelInferRequest(model_name="pranet", raw_input_contents=[PIXELS.tobytes()])
    request.inputs.add(name="image", datatype="UINT8", shape=PIXELS.shape).parameters["colour"].string_param = "red"
    with pytest.raises(grpc.aio.AioRpcError, match="'colour' of input 'image' is not supported"):
        await stub(it).ModelInfer(request)


async def test_the_index_of_models_says_whether_they_are_ready(it: Running) -> None:
    ready = {"name": "pranet", "version": "1", "state": "READY", "reason": ""}
    for body in (b"", b"{}", b'{"ready": true}'):
        assert (await it.rest.post(INDEX, content=body)).json() == [ready]
    answer = await stub(it).RepositoryIndex(pb.RepositoryIndexRequest())
    assert [(each.name, each.version, each.state) for each in answer.models] == [("pranet", "1", "READY")]

    it.service.readiness.enter(Phase.DRAINING)
    (model,) = (await it.rest.post(INDEX)).json()
    assert (model["name"], model["state"]) == ("pranet", "UNAVAILABLE")
    assert (await it.rest.post(INDEX, json={"ready": True})).json() == []
    assert not (await stub(it).RepositoryIndex(pb.RepositoryIndexRequest(ready=True))).models


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"ready": "perhaps"}'])
async def test_an_index_that_is_asked_for_wrongly_is_refused(it: Running, body: bytes) -> None:
    answer = await it.rest.post(INDEX, content=body)
    assert (answer.status_code, list(answer.json())) == (400, ["error"])
    assert (await it.rest.post(INDEX, content=b" " * 5000)).status_code == 413


async def test_statistics_without_a_model_are_those_of_all(it: Running) -> None:
    of_all = (await it.rest.get("/v2/models/stats")).json()
    assert [(each["name"], each["version"]) for each in of_all["model_stats"]] == [("pranet", "1")]
    answer = await stub(it).ModelStatistics(pb.ModelStatisticsRequest())
    assert [each.name for each in answer.model_stats] == ["pranet"]
    with pytest.raises(grpc.aio.AioRpcError, match="'resnet' does not exist"):
        await stub(it).ModelStatistics(pb.ModelStatisticsRequest(name="resnet"))


@pytest.mark.parametrize(
    ("http", "path", "method", "words"),
    [
        ("GET", "/v2/trace/setting", "TraceSetting", "trace settings"),
        ("POST", "/v2/models/pranet/trace/setting", "TraceSetting", "trace settings"),
        ("POST", "/v2/logging", "LogSettings", "log settings"),
        ("GET", "/v2/systemsharedmemory/status", "SystemSharedMemoryStatus", "shared memory"),
        ("POST", "/v2/cudasharedmemory/region/a/register", "CudaSharedMemoryRegister", "shared memory"),
        ("POST", "/v2/repository/models/pranet/load", "RepositoryModelLoad", "loading and unloading of models"),
    ],
)
async def test_what_is_not_supported_is_refused_by_name(
    it: Running, http: str, path: str, method: str, words: str
) -> None:
    answer = await it.rest.request(http, path)
    assert (answer.status_code, f"does not support {words}" in answer.json()["error"]) == (404, True)
    with pytest.raises(grpc.aio.AioRpcError, match=f"does not support {words}") as refused:
        await it.channel.unary_unary(f"/inference.GRPCInferenceService/{method}")(b"")
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_pages_of_other_sites_may_send_and_read_binary_tensors() -> None:
    site = "https://viewer.example"
    headers = {
        "origin": site,
        "access-control-request-method": "POST",
        "access-control-request-headers": "inference-header-content-length, content-encoding",
    }
    async with serving(cors_origins=site) as it:
        preflight = await it.rest.options(INFER, headers=headers)
        answer = await it.rest.post(INFER, json=with_members(), headers={"origin": site})
    assert preflight.status_code == 200
    assert "inference-header-content-length" in answer.headers["access-control-expose-headers"]
