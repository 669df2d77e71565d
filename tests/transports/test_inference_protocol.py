"""The Open Inference Protocol where Triton's own clients do not reach: odd requests, clients that leave, streams."""

import asyncio
import base64
import json
import struct
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import descriptor_pool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from PIL import Image

from service.errors import TooManyBytes
from service.oip import rest_messages
from service.pb.inference import open_inference_pb2 as pb
from service.pb.inference import open_inference_pb2_grpc as pb_grpc
from service.runtime import Phase
from tests.support.pictures import dice, encoded, red_box
from tests.support.predictors import GatedPredictor, RedPredictor
from tests.support.serving import PATIENCE, Running, serving, until

INFER = "/v2/models/pranet/infer"
BOX = (10, 10, 40, 30)
PICTURE = red_box(64, 48, BOX)
PIXELS = np.asarray(PICTURE)[None]
IMAGE = encoded(PICTURE)
EXPECTED = np.asarray(PICTURE)[:, :, 0]


def inputs(*images: bytes) -> list[dict[str, Any]]:
    data = [base64.b64encode(image).decode() for image in images]
    return [{"name": "image", "datatype": "BYTES", "shape": [len(images)], "data": data}]


def request(*images: bytes, **fields: Any) -> pb.ModelInferRequest:
    tensor = pb.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[len(images)])
    raw = b"".join(struct.pack("<I", len(image)) + image for image in images)
    return pb.ModelInferRequest(model_name="pranet", inputs=[tensor], raw_input_contents=[raw], **fields)


def stub(it: Running) -> pb_grpc.GRPCInferenceServiceStub:
    return pb_grpc.GRPCInferenceServiceStub(it.channel)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2", 200),
        ("GET", "/v2/", 200),
        ("GET", "/v2/models/pranet/versions/1/stats", 200),
        ("GET", "/v2/models/pranet/versions/3/stats", 404),
        ("GET", "/v2/models/stats", 200),
        ("GET", "/v2/repository/index", 405),
        ("GET", INFER, 405),
    ],
)
async def test_routes_answer_in_the_form_of_the_protocol(method: str, path: str, status: int) -> None:
    async with serving() as it:
        answer = await it.rest.request(method, path)
    assert answer.status_code == status
    assert (status == 200) == ("error" not in answer.json())
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize("path", ["/v2", "/v2/models/pranet", "/v2/nowhere"])
async def test_who_has_no_token_is_refused_in_the_form_of_the_protocol_too(tmp_path: Path, path: str) -> None:
    (tmp_path / "tokens").touch()
    async with serving(api_tokens_file=tmp_path / "tokens") as it:
        answer = await it.rest.get(path)
    assert answer.status_code == 401
    assert answer.json().keys() == {"error"}
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"inputs": []}, 400, "send exactly one"),
        ({"inputs": [*inputs(IMAGE), *inputs(IMAGE)]}, 400, "send exactly one"),
        (
            {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [2], "data": ["QQ==", "no base64!"]}]},
            400,
            "element 2 of 'image' is not base64; encode it",
        ),
        ({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [1]}]}, 400, "element 1 of 'image'"),
        ({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [2], "data": ["QQ=="]}]}, 400, "1 elements"),
        ({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [0], "data": []}]}, 400, "no picture"),
        (
            {"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [1, 2]}]},
            400,
            "its data have 2",
        ),
        ({"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [1, 2, 256]}]}, 400, "255"),
        (
            {"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [1, [2]]}]},
            400,
            "different lengths; send",
        ),
        (
            {"inputs": [{"name": "image", "datatype": "FP32", "shape": [1], "data": ["QQ=="]}]},
            400,
            "is FP32; send BYTES",
        ),
        ({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1]}]}, 400, "data or binary_data_size"),
        (
            {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": "0"}}]},
            400,
            "binary_data_size of 'image' is '0', and 0 bytes follow",
        ),
        ({"inputs": inputs(IMAGE), "outputs": [{"name": "mask"}] * 2}, 400, "twice"),
        ({"inputs": inputs(IMAGE), "parameters": {"timeout": -1}}, 422, "timeout"),
        ({"inputs": inputs(IMAGE), "parameters": {"timeout": 10**400}}, 422, "timeout"),
        (
            {"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 10**2200, 10**2200, 3], "data": [1]}]},
            400,
            "inputs.0.shape",
        ),
        ({"inputs": inputs(IMAGE), "parameters": {"threshold": "high"}}, 422, "threshold"),
        (
            {"inputs": inputs(IMAGE), "parameters": {"threshold": True}},
            422,
            "threshold is true, but it should be a number",
        ),
        (
            {"inputs": inputs(IMAGE), "parameters": {"threshold": [1]}},
            400,
            "parameters.threshold is '[1]', but it should be",
        ),
        (
            {"inputs": inputs(IMAGE), "parameters": {"size": 1}},
            422,
            "are: timeout, priority, threshold, roi, binary_data_o",
        ),
        ({"inputs": inputs(IMAGE), "parameters": {"priority": True}}, 422, "priority is true; send 1 (live), 2"),
        ({"inputs": inputs(IMAGE), "parameters": {"priority": -1}}, 422, "priority is -1; send 1 (live), 2 (single)"),
        ({"inputs": [{**inputs(IMAGE)[0], "shape": [True]}]}, 400, "is true, but it should be a whole number"),
        ({"inputs": [{**inputs(IMAGE)[0], "shape": ["1"]}]}, 400, "is '1', but it should be a whole number"),
        ({"inputs": [inputs(IMAGE)[0]] * 33}, 400, "it should have at most 32 items"),
        ({"inputs": inputs(IMAGE), "parameters": {"roi": "left"}}, 422, "roi"),
        ({"inputs": inputs(IMAGE), "parameters": {"binary_data_output": 1}}, 422, "true or false"),
        ({"inputs": inputs(IMAGE), "outputs": [{"name": "mask", "parameters": {"classification": 3}}]}, 422, "output"),
        ({"inputs": inputs(b"")}, 400, "the picture is empty; send one JPEG"),
        ({"inputs": inputs(b"no picture")}, 415, "not a supported image"),
    ],
)
async def test_what_is_wrong_is_named(body: dict[str, Any], status: int, words: str) -> None:
    async with serving() as it:
        answer = await it.rest.post(INFER, json=body)
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
    assert words in answer.json()["error"]


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"inference-header-content-length": "9999999"}, "length of the JSON"),
        ({"inference-header-content-length": "-1"}, "length of the JSON"),
        ({"inference-header-content-length": "9" * 5000}, "length of the JSON"),
        ({"inference-header-content-length": "5"}, "send a JSON object with id, "),
        ({"x-request-timeout-ms": "soon"}, "X-Request-Timeout-Ms"),
    ],
)
async def test_headers_that_cannot_be_are_refused(headers: dict[str, str], words: str) -> None:
    async with serving() as it:
        answer = await it.rest.post(INFER, json={"inputs": inputs(IMAGE)}, headers=headers)
    assert answer.status_code == 400
    assert words in answer.json()["error"]


@pytest.mark.parametrize(("lengths", "status"), [("00", 200), ("05", 400), ("50", 400)])
async def test_a_length_of_the_json_that_two_headers_give_differently_is_refused(lengths: str, status: int) -> None:
    headers = [("inference-header-content-length", length) for length in lengths]
    async with serving() as it:
        answer = await it.rest.post(INFER, content=IMAGE, headers=headers)
    assert answer.status_code == status
    if status != 200:
        assert f"-length is '{lengths[0]}, {lengths[1]}'; send the length" in answer.json()["error"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("priority", "priority is '1'; send 1 (live), 2"),
        ("timeout", "timeout is '1'; send a whole number"),
        ("triton_enable_empty_final_response", "response is '1'; send true or false"),
    ],
)
async def test_a_text_in_place_of_a_number_is_quoted(name: str, told: str) -> None:
    async with serving() as it:
        answer = await it.rest.post(INFER, json={"inputs": inputs(IMAGE), "parameters": {name: "1"}})
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub(it).ModelInfer(request(IMAGE, parameters={name: pb.InferParameter(string_param="1")}))
    assert (answer.status_code, told in answer.json()["error"]) == (422, True), answer.text
    assert told in (refused.value.details() or "")


@pytest.mark.parametrize("letter", ["n", "é"])
async def test_a_name_of_any_length_leaves_room_for_the_error(letter: str) -> None:
    """gRPC drops an answer whose metadata exceed 8 KiB, and its error with it."""
    long = 100_000 * letter
    tensor = pb.ModelInferRequest.InferInputTensor
    requests = [
        pb.ModelInferRequest(model_name=long),
        pb.ModelInferRequest(model_name="pranet", model_version=long),
        request(IMAGE, outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name=long)]),
        request(IMAGE, parameters={long: pb.InferParameter(bool_param=True)}),
        pb.ModelInferRequest(model_name="pranet", inputs=[tensor(name=long)], raw_input_contents=[b""]),
        pb.ModelInferRequest(model_name="pranet", inputs=[tensor(name="image", datatype="UINT8", shape=[7] * 50_000)]),
    ]
    async with serving() as it:
        for each in requests:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub(it).ModelInfer(each)
            assert dict(refused.value.trailing_metadata() or ())["pranet-error"]
            assert len((refused.value.details() or "").encode()) < 2100
        answer = await it.rest.post(INFER, json={"inputs": inputs(IMAGE), "outputs": [{"name": long}]})
        assert (answer.status_code, len(answer.content) < 1000) == (400, True)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
async def test_base64_may_have_line_breaks(end: str) -> None:
    text = base64.encodebytes(IMAGE).decode().replace("\n", end)
    assert end in text.strip()
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [text]}
    async with serving() as it:
        answer = await it.rest.post(INFER, json={"inputs": [tensor], "outputs": [{"name": "mask"}]})
    assert answer.status_code == 200, answer.text
    assert (np.reshape(answer.json()["outputs"][0]["data"], EXPECTED.shape) == EXPECTED).mean() > 0.98


async def test_a_body_that_is_too_large_is_told_the_limit_that_holds_for_it() -> None:
    async with serving(max_image_bytes=1000) as it:
        answer = await it.rest.post(INFER, content=bytes(it.service.settings.max_message_bytes + 1))
    assert answer.status_code == 413
    assert "the request has more than 66536 bytes (MAX_IMAGE_BYTES + 65536); send fewer" in answer.json()["error"]


async def test_bytes_that_no_tensor_claims_are_refused() -> None:
    head = json.dumps({"inputs": inputs(IMAGE)}).encode()
    async with serving() as it:
        answer = await it.rest.post(
            INFER, content=head + b"more", headers={"inference-header-content-length": str(len(head))}
        )
    assert (answer.status_code, "4 bytes belong to no tensor" in answer.json()["error"]) == (400, True)


async def test_a_body_without_json_is_one_picture_and_its_outputs_are_binary() -> None:
    """Triton's raw binary request; no length precedes the picture."""
    async with serving() as it:
        answer = await it.rest.post(INFER, content=IMAGE, headers={"inference-header-content-length": "0"})
    assert answer.status_code == 200, answer.text
    length = int(answer.headers["inference-header-content-length"])
    mask, probability = json.loads(answer.content[:length])["outputs"]
    sizes = [each["parameters"]["binary_data_size"] for each in (mask, probability)]
    assert sizes == [EXPECTED.size, 4 * EXPECTED.size]
    assert mask["shape"] == probability["shape"] == [1, *EXPECTED.shape]
    assert len(answer.content) == length + sum(sizes)
    found = np.frombuffer(answer.content, np.uint8, sizes[0], length).reshape(EXPECTED.shape)
    assert (found == EXPECTED).mean() > 0.98


@pytest.mark.parametrize(
    "sent",
    [
        {"content": IMAGE, "headers": {"inference-header-content-length": "0"}},
        {"json": {"inputs": inputs(IMAGE)}},
    ],
)
async def test_parameters_in_the_query_are_refused_and_not_ignored(sent: dict[str, Any]) -> None:
    async with serving() as it:
        answer = await it.rest.post(INFER, params={"threshold": "0.9"}, **sent)
    assert answer.status_code == 422
    assert answer.json()["error"] == "the query names 'threshold'; send it in the parameters of the JSON"


async def test_an_answer_names_its_weights_and_the_time_of_each_stage() -> None:
    async with serving() as it:
        answer = await it.rest.post(INFER, json={"inputs": inputs(IMAGE, IMAGE), "id": "7"})
    assert (answer.json()["id"], answer.headers["x-model"]) == ("7", "red-00000000")
    stages = [part.partition(";")[0] for part in answer.headers["server-timing"].split(", ")]
    assert stages == ["decode", "preprocess", "queue", "infer", "post", "total"]
    (mask, probability) = answer.json()["outputs"]
    assert (mask["shape"], probability["shape"]) == ([2, 48, 64], [2, 48, 64])
    assert (np.reshape(mask["data"], mask["shape"])[1] == EXPECTED).mean() > 0.98


async def test_every_picture_of_a_request_takes_a_place_and_is_counted() -> None:
    predictor = GatedPredictor()
    async with serving(predictor, max_queue_size=4, max_batch_size=1) as it:
        held = asyncio.create_task(it.rest.post("/segment", content=IMAGE))
        await predictor.has_begun()
        three = asyncio.create_task(it.rest.post(INFER, json={"inputs": inputs(*[IMAGE] * 3)}))
        await until(lambda: it.service.segmenter.in_flight == 4)
        two = await it.rest.post(INFER, json={"inputs": inputs(IMAGE, IMAGE)})
        five = await it.rest.post(INFER, json={"inputs": inputs(*[IMAGE] * 5)})
        predictor.open()
        assert (await three).status_code == (await held).status_code == 200
        assert it.metric("pranet_frame_duration_seconds_count", {"outcome": "answered"}) == 4
    assert (two.status_code, two.headers["retry-after"]) == (429, "1")
    assert (five.status_code, "at most 4" in five.json()["error"]) == (400, True)


async def test_pictures_of_a_request_are_judged_together_before_any_is_decoded() -> None:
    async with serving(max_image_pixels=64 * 48 * 2) as it:
        answer = await it.rest.post(INFER, json={"inputs": inputs(*[IMAGE] * 3)})
        assert (answer.status_code, it.metric("pranet_decodes_total")) == (413, 0)


@pytest.mark.parametrize("form", ["json", "binary", "rpc"])
async def test_pictures_of_a_request_are_within_the_bytes_of_one_image_in_every_form(form: str) -> None:
    async with serving(max_image_bytes=2 * len(IMAGE) - 1) as it:
        if form == "rpc":
            with pytest.raises(grpc.aio.AioRpcError, match="MAX_IMAGE_BYTES"):
                await stub(it).ModelInfer(request(IMAGE, IMAGE))
            return
        if form == "json":
            answer = await it.rest.post(INFER, json={"inputs": inputs(IMAGE, IMAGE)})
        else:
            answer = await it.rest.post(INFER, content=IMAGE * 2, headers={"inference-header-content-length": "0"})
    assert answer.status_code == 413, answer.text
    assert "MAX_IMAGE_BYTES" in answer.json()["error"]


async def test_an_output_that_has_no_room_in_json_is_refused_before_any_picture_is_decoded() -> None:
    half = encoded(Image.new("RGB", (2048, 1025)))
    wanted = {"name": "mask", "parameters": {"binary_data": True}}
    async with serving() as it:
        for outputs in ([], [{"name": "probability"}, wanted]):
            answer = await it.rest.post(INFER, json={"inputs": inputs(half, half), "outputs": outputs})
            assert answer.status_code == 400
            assert "would have 4198400 elements, and JSON has room for 4194304; ask for it" in answer.json()["error"]
        assert it.metric("pranet_decodes_total") == 0
        answer = await it.rest.post(INFER, json={"inputs": inputs(half, half), "outputs": [wanted]})
        assert answer.status_code == 200


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (b"", "the picture is empty"),
        (b"no picture", "the file is not a supported image"),
        (IMAGE[:-40], "the PNG is damaged"),
    ],
    ids=["empty", "no picture", "damaged"],
)
async def test_an_error_names_its_picture_if_there_are_several(bad: bytes, words: str) -> None:
    async with serving() as it:
        several = await it.rest.post(INFER, json={"inputs": inputs(IMAGE, bad, IMAGE)})
        alone = await it.rest.post(INFER, json={"inputs": inputs(bad)})
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub(it).ModelInfer(request(IMAGE, IMAGE, bad))
    assert several.json()["error"].startswith(f"picture 2 of 3: {words}")
    assert (refused.value.details() or "").startswith(f"picture 3 of 3: {words}")
    assert alone.json()["error"].startswith(words)


async def test_a_turned_picture_has_the_size_that_a_person_sees() -> None:
    exif = PICTURE.getexif()
    exif[0x0112] = 6
    turned = encoded(PICTURE, "JPEG", exif=exif)
    async with serving() as it:
        both = await it.rest.post(INFER, json={"inputs": inputs(IMAGE, turned)})
        alone = await it.rest.post(INFER, json={"inputs": inputs(turned, turned)})
    assert (both.status_code, alone.json()["outputs"][0]["shape"]) == (400, [2, 64, 48])


async def test_who_leaves_takes_the_work_along() -> None:
    predictor = GatedPredictor()
    async with serving(predictor, max_batch_size=1) as it:
        over_rest = asyncio.create_task(it.rest.post(INFER, json={"inputs": inputs(*[IMAGE] * 3)}))
        await predictor.has_begun()
        over_grpc = stub(it).ModelInfer(request(IMAGE, IMAGE))
        streamed = stub(it).ModelStreamInfer(iter([request(IMAGE)]))
        reading = asyncio.create_task(streamed.read())
        await until(lambda: it.service.segmenter.in_flight == 6)
        over_rest.cancel()
        over_grpc.cancel()
        streamed.cancel()
        await until(lambda: it.service.segmenter.in_flight == 0)
        predictor.open()
        assert (await it.rest.post("/segment", content=IMAGE)).status_code == 200
        await asyncio.gather(over_rest, reading, return_exceptions=True)
    assert predictor.frames == 2  # the one that had begun, and the last


async def test_grpc_reads_typed_contents_too() -> None:
    tensor = pb.ModelInferRequest.InferInputTensor(name="image", datatype="UINT8", shape=[1, *EXPECTED.shape, 3])
    tensor.contents.uint_contents.extend(np.asarray(PICTURE).ravel().tolist())
    encoded_tensor = pb.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[1])
    encoded_tensor.contents.bytes_contents.append(IMAGE)
    async with serving() as it:
        for given in (tensor, encoded_tensor):
            answer = await stub(it).ModelInfer(pb.ModelInferRequest(model_name="pranet", inputs=[given]))
            mask = np.frombuffer(answer.raw_output_contents[0], np.uint8).reshape(answer.outputs[0].shape)
            assert (mask[0] == EXPECTED).mean() > 0.98
        both = pb.ModelInferRequest(model_name="pranet", inputs=[tensor], raw_input_contents=[b""])
        with pytest.raises(grpc.aio.AioRpcError, match="has both"):
            await stub(it).ModelInfer(both)


async def test_a_stream_reads_no_further_than_its_window_and_answers_in_order() -> None:
    predictor = GatedPredictor()

    async def requests() -> AsyncIterator[pb.ModelInferRequest]:
        for number in range(100):
            yield request(IMAGE, id=str(number))

    async with serving(predictor, stream_window=2, max_batch_size=1) as it:
        answers = aiter(stub(it).ModelStreamInfer(requests()))
        await predictor.has_begun()
        await until(lambda: it.service.segmenter.in_flight == 2)
        predictor.permits.release()
        first = await anext(answers)
        await predictor.has_begun()
        assert it.service.segmenter.in_flight <= 2
        predictor.open()
        rest = [answer.infer_response.id async for answer in answers]
    assert [first.infer_response.id, *rest] == [str(number) for number in range(100)]


async def test_a_stream_ends_when_the_service_stops_and_accepted_requests_are_answered() -> None:
    predictor = GatedPredictor()
    async with asyncio.timeout(PATIENCE), serving(predictor, max_batch_size=1) as it:
        call = stub(it).ModelStreamInfer()
        for number in range(2):
            await call.write(request(IMAGE, id=str(number)))
        await until(lambda: it.service.segmenter.in_flight == 2)
        it.service.readiness.enter(Phase.DRAINING)
        it.service.streams.drain()
        predictor.open()
        assert [(await call.read()).infer_response.id for _ in range(2)] == ["0", "1"]
        with pytest.raises(grpc.aio.AioRpcError, match="UNAVAILABLE"):
            await call.read()
        assert not it.service.streams.active


async def test_streams_of_the_protocol_count_among_all_streams() -> None:
    async with serving(max_streams=1) as it:
        call = stub(it).ModelStreamInfer()
        await call.write(request(IMAGE))
        assert (await call.read()).infer_response.outputs
        other = stub(it).ModelStreamInfer()  # writes nothing: a write after the refusal would hide its status
        with pytest.raises(grpc.aio.AioRpcError, match="MAX_STREAMS"):
            await other.read()
        call.cancel()


async def test_the_protocol_is_found_by_reflection() -> None:
    def look(port: int) -> list[str]:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
            service = pool.FindServiceByName("inference.GRPCInferenceService")
            return [method.name for method in service.methods]

    async with asyncio.timeout(PATIENCE), serving() as it:
        assert "ModelStreamInfer" in await asyncio.to_thread(look, it.grpc_port)


MILLION = 1_000_000


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"inputs": [' + b"[]," * (MILLION // 4) + b"1]}", "inputs is '[[], [], "),
        (b'{"inputs": [' + b"{}," * 4000 + b"1]}", "at most 32 items"),
        (
            b'{"inputs": [{"name": "image", "datatype": "BYTES", "shape": [' + b"-1," * MILLION + b"1]}]}",
            "inputs.0.shape",
        ),
        (b"{" + b",".join(b'"%d":1' % number for number in range(MILLION // 2)) + b"}", "it has 500000 members"),
        (b'{"parameters": {' + b",".join(b'"%d":[]' % n for n in range(MILLION // 2)) + b"}}", "500000 parameters"),
        (b'{"inputs": [' + b",".join([b'{"a":1,"b":2,"c":3}'] * 32) + b"]}", "; and 91 more faults"),
        (b'{"' + b"k" * MILLION + b'": 1, "inputs": []}', "send exactly one"),
    ],
    ids=["lists", "objects", "shape", "members", "parameters", "faults", "name"],
)
async def test_of_millions_of_faults_few_are_found_and_told(body: bytes, words: str) -> None:
    async with serving() as it:
        answer = await it.rest.post(INFER, content=body)
    assert answer.status_code == 400
    assert words in answer.json()["error"]
    assert len(answer.content) < 1000


@pytest.mark.parametrize("part", [b"[]", b"{}", b'{"a":1}', b"1", b'""'])
def test_json_of_many_parts_is_refused_before_it_is_parsed(part: bytes) -> None:
    """The parser makes an object of each part, and holds the interpreter meanwhile."""
    raw = b'{"inputs": [' + b",".join([part] * (rest_messages.MAX_JSON_BYTES // (len(part) + 2))) + b"]}"
    tracemalloc.start()
    try:
        with pytest.raises(TooManyBytes, match=r"send the tensors in binary"):
            rest_messages.parse(raw, None, 4)
        assert tracemalloc.get_traced_memory()[1] < 100_000  # of 8 MiB
    finally:
        tracemalloc.stop()


def test_a_picture_of_640x480_has_room_in_json() -> None:
    pixels = np.full((1, 480, 640, 3), 200, np.uint8)
    for data in (pixels.tolist(), pixels.ravel().tolist()):
        tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 480, 640, 3], "data": data}
        _, pictures = rest_messages.parse(json.dumps({"inputs": [tensor]}).encode(), None, 4)
        assert len(pictures) == 1


@pytest.mark.parametrize("shape", [[1, 64, 48, 3], [1, 3, 48, 64], [48, 64, 3], [1, 48, 64, 3, 1]])
async def test_nested_data_that_contradict_the_shape_are_refused(shape: list[int]) -> None:
    """With as many elements, they would pass for another picture."""
    tensor = {"name": "image", "datatype": "UINT8", "shape": shape, "data": PIXELS.tolist()}
    async with serving() as it:
        answer = await it.rest.post(INFER, json={"inputs": [tensor]})
    assert answer.status_code == 400
    assert f"has shape {shape}, but its data are nested as [1, 48, 64, 3]; correct" in answer.json()["error"]


@pytest.mark.parametrize("data", [PIXELS.tolist(), PIXELS.ravel().tolist()], ids=["nested", "flat"])
async def test_data_nested_by_the_shape_or_flat_are_one_picture(data: list[Any]) -> None:
    tensor = {"name": "image", "datatype": "UINT8", "shape": PIXELS.shape, "data": data}
    async with serving() as it:
        answer = await it.rest.post(INFER, json={"inputs": [tensor], "outputs": [{"name": "mask"}]})
    assert answer.status_code == 200, answer.text
    assert (np.reshape(answer.json()["outputs"][0]["data"], EXPECTED.shape) == EXPECTED).mean() > 0.98


async def test_json_of_any_depth_is_refused_as_wrong() -> None:
    async with serving() as it:
        for body in (b"[" * 100_000, b'{"inputs": ' + b"[" * 100_000):
            answer = await it.rest.post(INFER, content=body)
            assert answer.status_code == 400
            assert "JSON" in answer.json()["error"]


def turned(kind: str, **options: Any) -> bytes:
    """Store the picture lying on its side, with the orientation that turns it upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(PICTURE.transpose(Image.Transpose.ROTATE_90), kind, exif=exif, **options)


TURNED = {
    "TIFF": lambda: turned("TIFF"),
    "TIFF of JPEG": lambda: turned("TIFF", compression="jpeg", quality=95),
    "JPEG": lambda: turned("JPEG", quality=95),
    "PNG": lambda: turned("PNG"),
    "WebP": lambda: turned("WEBP", quality=95),
}


@pytest.mark.parametrize("kind", TURNED)
async def test_pictures_of_equal_shown_size_fit_into_one_tensor_however_they_are_turned(kind: str) -> None:
    pictures = (IMAGE, TURNED[kind](), TURNED[kind]())
    async with serving(RedPredictor()) as it:
        rest = await it.rest.post(INFER, json={"inputs": inputs(*pictures), "outputs": [{"name": "mask"}]})
        rpc = await stub(it).ModelInfer(request(*pictures))
    assert rest.status_code == 200, rest.text
    (mask,) = rest.json()["outputs"]
    assert mask["shape"] == list(rpc.outputs[0].shape) == [3, 48, 64]
    masks = np.array(mask["data"], np.uint8).reshape(3, 48, 64) > 0
    for each in masks:
        assert dice(each, EXPECTED > 0) > 0.95


async def test_sizes_that_differ_as_shown_are_refused_though_they_are_stored_alike() -> None:
    upright = encoded(PICTURE.transpose(Image.Transpose.ROTATE_90))
    async with serving() as it:
        answer = await it.rest.post(INFER, json={"inputs": inputs(upright, TURNED["TIFF"]())})
    assert (answer.status_code, "48x64 and 64x48" in answer.text) == (400, True)
