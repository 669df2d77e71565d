"""``make ray-check``: tests the service on Ray Serve, in a network namespace, since Ray listens on all addresses."""

import asyncio
import base64
import hashlib
import importlib
import itertools
import json
import math
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
import yaml
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from PIL import Image
from websockets.asyncio.client import connect

from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from pranet_client.pb.pranet.v1 import segmentation_pb2_grpc as pb_grpc
from service.errors import Draining, NotReady
from service.oip.tensors import LENGTH as ELEMENT
from service.pb.inference import open_inference_pb2 as inference
from service.pb.inference import open_inference_pb2_grpc as inference_grpc
from service.rest.websocket_messages import LENGTH
from service.runtime import Phase
from service.settings import SettingsError
from tests.support.pictures import ROOT, SAMPLES, Mask, annotation, dice, encoded, mask_of, red_box
from tests.support.processes import SCRIPTS, check
from tests.support.servers.fake_predictor_ray import GATE
from tests.support.serving import serving

ray = pytest.importorskip("ray", reason="the extra ray is not installed")
from ray import serve  # noqa: E402
from ray.serve.schema import ServeDeploySchema  # noqa: E402

from service.ray_serve.app import Replica, Scaling, app  # noqa: E402

HTTP, GRPC = "127.0.0.1:8000", "127.0.0.1:9000"
ADD = [
    "pranet_client.pb.pranet.v1.segmentation_pb2_grpc.add_SegmentationServiceServicer_to_server",
    "service.pb.inference.open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server",
]
MANIFEST = ROOT / "docker" / "kuberay" / "pranet.yaml"
PATIENCE = 60
LEAVE_SECONDS = 15  # before a held frame would be given up as hanging, and its stream with it
HELD_SECONDS = 3  # in which Ray would have ended a replica that is given no time
QUICK = {"target_ongoing_requests": 1, "upscale_delay_s": 0.1, "downscale_delay_s": 0.1, "look_back_period_s": 1}
QUICK |= {"metrics_interval_s": 0.2}
LIME = encoded(Image.new("RGB", (8, 8), "lime"))
NONSENSE = b"no picture"


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ray") / "open"


@pytest.fixture(scope="module", autouse=True)
def cluster(gate: Path) -> Iterator[None]:
    variables = {"PYTHONPATH": f"{ROOT}:{ROOT / 'client'}", "PRANET_DEVICE": "cpu", "PRANET_MAX_BATCH_SIZE": "1"}
    variables |= {GATE: str(gate)}
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    hook = {"worker_process_setup_hook": "tests.support.servers.fake_predictor_ray.use", "env_vars": variables}
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=2**27, runtime_env=hook, log_to_driver=False)
    grpc_options = {"port": 9000, "grpc_servicer_functions": ADD}
    serve.start(http_options={"host": "127.0.0.1", "port": 8000}, grpc_options=grpc_options)
    yield
    serve.shutdown()
    ray.shutdown()


@pytest.fixture
async def rest() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://{HTTP}", timeout=PATIENCE, trust_env=False) as client:
        yield client


@pytest.fixture(autouse=True)
def closed(gate: Path) -> Iterator[None]:
    yield
    gate.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def pair() -> None:
    """Have two replicas, for all tests that leave it at that."""
    deploy(least=2)


@pytest.fixture(scope="module")
def scaling() -> None:
    """Have one replica, or two under load; comes after every test of ``pair``."""
    deploy(least=1)


def deploy(least: int) -> None:
    serve.run(app(Scaling(min_replicas=least, max_replicas=2, **QUICK)), name="red")


def running() -> int:
    states = serve.status().applications["red"].deployments["pranet"].replica_states
    return states.get("RUNNING", 0) if not set(states) - {"RUNNING"} else -1


async def replicas(number: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while await asyncio.to_thread(running) != number:  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(0.1)


def opened(gate: Path) -> None:
    gate.touch()


def boxes() -> Iterator[tuple[bytes, Mask]]:
    for left in itertools.cycle(range(4, 40, 4)):
        picture = red_box(64, 48, (left, 8, left + 20, 40))
        yield encoded(picture), np.asarray(picture)[:, :, 0] > 0


async def asked(rest: httpx.AsyncClient, picture: bytes, mask: Mask, tries: int = 1) -> str:
    """Segment as a client that retries; return the name of the replica that answered."""
    for _ in range(tries):
        try:
            answer = await rest.post("/segment", content=picture)
        except httpx.TransportError:
            continue
        if answer.status_code == 200:
            assert (mask_of(answer.content) == mask).all()
            return str(answer.headers["x-model"])
    raise AssertionError(f"no answer in {tries} tries")


@pytest.mark.usefixtures("pair")
async def test_two_replicas_answer_everything_right_between_them(rest: httpx.AsyncClient) -> None:
    pictures = boxes()
    names = await asyncio.gather(*(asked(rest, *next(pictures)) for _ in range(60)))
    assert len(set(names)) == 2


@pytest.mark.usefixtures("pair")
async def test_errors_and_headers_are_those_of_the_service(rest: httpx.AsyncClient) -> None:
    answer = await rest.post("/segment", content=NONSENSE, headers={"x-request-id": "mine"})
    assert (answer.status_code, answer.json()["type"]) == (415, "urn:pranet:error:unsupported-image")
    assert answer.headers.get_list("x-request-id") == [answer.json()["request_id"]] == ["mine"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert (await rest.get("/readyz")).json() == {"status": "ready"}
    assert (await rest.get("/v2/models/pranet")).json()["name"] == "pranet"


@pytest.mark.usefixtures("pair")
async def test_an_archive_is_answered_while_its_later_pictures_wait(rest: httpx.AsyncClient, gate: Path) -> None:
    picture, mask = next(boxes())
    files = [("file", ("red.png", picture)), ("file", ("lime.png", LIME))]
    async with rest.stream("POST", "/segment/batch", files=files) as answer:
        lines = answer.aiter_lines()
        first = json.loads(await anext(lines))
        opened(gate)
        rest_of_it = [json.loads(line) async for line in lines]
    assert (mask_of(base64.b64decode(first["png"])) == mask).all()
    assert [line["status"] for line in rest_of_it] == [200]


@pytest.mark.usefixtures("pair")
async def test_grpc_through_the_proxy_answers_and_names_the_cause_of_errors() -> None:
    picture, mask = next(boxes())
    async with grpc.aio.insecure_channel(GRPC) as channel:
        stub = pb_grpc.SegmentationServiceStub(channel)
        answer = await stub.Segment(pb.SegmentRequest(image=picture), timeout=PATIENCE)
        assert (mask_of(answer.png) == mask).all()
        assert (await stub.GetModelInfo(pb.GetModelInfoRequest())).input_size == 352
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Segment(pb.SegmentRequest(image=NONSENSE), timeout=PATIENCE)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert dict(refused.value.trailing_metadata() or ())["pranet-error"] == "unsupported-image"


def frame(number: int, image: bytes) -> pb.StreamRequest:
    return pb.StreamRequest(frame=pb.StreamFrame(frame_id=number, image=image))


EVERY = pb.StreamRequest(config=pb.StreamConfig(policy=pb.POLICY_EVERY))


@pytest.mark.usefixtures("pair")
async def test_a_grpc_stream_passes_the_proxy_and_every_frame_has_its_answer_in_order() -> None:
    shown = list(itertools.islice(boxes(), 30))
    requests = [EVERY, *(frame(number, picture) for number, (picture, _) in enumerate(shown)), frame(30, NONSENSE)]
    async with grpc.aio.insecure_channel(GRPC) as channel:
        call = pb_grpc.SegmentationServiceStub(channel).SegmentStream(iter(requests), timeout=PATIENCE)
        *answers, last = [answer async for answer in call]
    assert [answer.frame_id for answer in answers] == list(range(30))
    assert all((mask_of(answer.mask.png) == mask).all() for answer, (_, mask) in zip(answers, shown, strict=True))
    assert (last.frame_id, last.WhichOneof("outcome")) == (30, "error")


@pytest.mark.usefixtures("pair")
async def test_a_grpc_stream_is_answered_while_it_is_still_sent_and_who_leaves_it_frees_the_replica(
    rest: httpx.AsyncClient, gate: Path
) -> None:
    async with grpc.aio.insecure_channel(GRPC) as channel:
        call = pb_grpc.SegmentationServiceStub(channel).SegmentStream(timeout=PATIENCE)
        await call.write(EVERY)
        for number in range(3):
            await call.write(frame(number, next(boxes())[0]))
            assert (await call.read()).frame_id == number
        await call.write(frame(3, LIME))  # which is held on the device until long after
        async with asyncio.timeout(PATIENCE):
            while not await total(rest, "pranet_in_flight"):
                pass
            assert await total(rest, "pranet_streams_active") == 1
        call.cancel()
        async with asyncio.timeout(LEAVE_SECONDS):
            while await total(rest, "pranet_streams_active"):
                pass
    opened(gate)
    names: set[str] = set()
    async with asyncio.timeout(PATIENCE):
        while len(names) < 2:  # until the device has let go
            names.add(await asked(rest, *next(boxes())))


@pytest.mark.usefixtures("pair")
async def test_a_message_over_grpc_is_held_to_the_limit_of_the_service() -> None:
    large = bytes(33 * 2**20)
    async with grpc.aio.insecure_channel(GRPC) as channel:
        streamed = pb_grpc.SegmentationServiceStub(channel).SegmentStream(iter([EVERY, frame(1, large)]))
        tensor = inference.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[1])
        tensor.contents.bytes_contents.append(large)
        request = inference.ModelInferRequest(model_name="pranet", inputs=[tensor])
        calls = (streamed.read(), inference_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request))
        for call in calls:
            async with asyncio.timeout(PATIENCE):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await call
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "MAX_IMAGE_BYTES" in str(refused.value.details())


@pytest.mark.usefixtures("pair")
async def test_a_grpc_stream_that_begins_wrong_is_refused_with_its_status() -> None:
    async with grpc.aio.insecure_channel(GRPC) as channel:
        call = pb_grpc.SegmentationServiceStub(channel).SegmentStream(iter([frame(1, LIME)]), timeout=PATIENCE)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call.read()
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "config" in str(refused.value.details())


@pytest.mark.usefixtures("pair")
async def test_the_open_inference_protocol_passes_the_proxy_over_grpc_too() -> None:
    picture, mask = next(boxes())
    tensor = inference.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[1])
    asked = inference.ModelInferRequest(
        model_name="pranet", id="7", inputs=[tensor], raw_input_contents=[ELEMENT.pack(len(picture)) + picture]
    )
    async with grpc.aio.insecure_channel(GRPC) as channel:
        stub = inference_grpc.GRPCInferenceServiceStub(channel)
        assert (await stub.ServerReady(inference.ServerReadyRequest(), timeout=PATIENCE)).ready
        (metadata,) = (await stub.ModelMetadata(inference.ModelMetadataRequest(name="pranet"), timeout=PATIENCE)).inputs
        assert metadata.name == "image"
        answers = [await stub.ModelInfer(asked, timeout=PATIENCE)]
        streamed = stub.ModelStreamInfer(iter([asked] * 3), timeout=PATIENCE)
        answers += [answer.infer_response async for answer in streamed]
        for answer in answers:
            found = np.frombuffer(answer.raw_output_contents[0], np.uint8).reshape(mask.shape) > 0
            assert (answer.id, (found == mask).all()) == ("7", True)
        assert len(answers) == 4
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.ModelReady(inference.ModelReadyRequest(name="resnet"), timeout=PATIENCE)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.usefixtures("pair")
async def test_grpc_health_does_not_pass_the_proxy() -> None:
    async with grpc.aio.insecure_channel(GRPC) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await HealthStub(channel).Check(HealthCheckRequest(), timeout=PATIENCE)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.usefixtures("pair")
async def test_a_websocket_passes_the_proxy() -> None:
    head = json.dumps({"frame_id": 7}).encode()
    async with connect(f"ws://{HTTP}/stream", proxy=None, max_size=None) as socket:
        await socket.send(json.dumps({"policy": "every"}))
        await socket.send(LENGTH.pack(len(head)) + head + next(boxes())[0])
        answer = await socket.recv(decode=False)
    (length,) = LENGTH.unpack_from(answer)
    assert json.loads(answer[LENGTH.size : LENGTH.size + length])["frame_id"] == 7


@pytest.mark.usefixtures("pair")
async def test_a_replica_killed_under_load_costs_a_client_that_retries_nothing(rest: httpx.AsyncClient) -> None:
    pictures, answered, goal = boxes(), [], math.inf

    async def caller() -> None:
        while len(answered) < goal:
            answered.append(await asked(rest, *next(pictures), tries=20))

    callers = [asyncio.create_task(caller()) for _ in range(8)]
    async with asyncio.timeout(PATIENCE):
        while len(set(answered)) < 2:  # noqa: ASYNC110 - both are at work
            await asyncio.sleep(0.01)
    victim = answered[-1]
    os.kill(int(victim.removeprefix("red-")), signal.SIGKILL)
    goal = len(answered) + 200
    await asyncio.gather(*callers)
    await replicas(2)
    names = await asyncio.gather(*(asked(rest, *next(pictures)) for _ in range(60)))
    assert len(set(names) - {victim}) == len(set(names)) == 2


@pytest.mark.usefixtures("scaling")
async def test_load_brings_a_second_replica_and_quiet_takes_it_away_without_losing_an_answer(
    rest: httpx.AsyncClient, gate: Path
) -> None:
    await replicas(1)
    held = [asyncio.create_task(rest.post("/segment", content=LIME)) for _ in range(6)]
    await replicas(2)
    opened(gate)
    assert [answer.status_code for answer in await asyncio.gather(*held)] == [200] * 6
    await replicas(1)


@pytest.mark.usefixtures("scaling")
async def test_what_was_accepted_is_answered_before_a_replica_ends(rest: httpx.AsyncClient, gate: Path) -> None:
    held = [asyncio.create_task(rest.post("/segment", content=LIME)) for _ in range(6)]
    while sum(await asyncio.gather(*(in_flight(rest) for _ in range(8)))) == 0:
        pass
    removing = asyncio.create_task(asyncio.to_thread(serve.delete, "red"))
    async with asyncio.timeout(PATIENCE):
        while (await rest.get("/readyz")).status_code == 200:  # noqa: ASYNC110 - no new work is taken
            await asyncio.sleep(0.01)
    await asyncio.sleep(HELD_SECONDS)
    opened(gate)
    assert [answer.status_code for answer in await asyncio.gather(*held)] == [200] * 6
    await removing


async def in_flight(rest: httpx.AsyncClient) -> int:
    return sample((await rest.get("/metrics")).text, "pranet_in_flight")


def sample(metrics: str, name: str) -> int:
    return int(float(metrics.rpartition(f"\n{name} ")[2].split()[0]))


async def total(rest: httpx.AsyncClient, name: str) -> int:
    """Sum a sample over both replicas, asked until each has told."""
    told: dict[str, int] = {}
    async with asyncio.timeout(PATIENCE):
        while len(told) < 2:
            metrics = (await rest.get("/metrics")).text
            told[metrics.partition('model_id="')[2].partition('"')[0]] = sample(metrics, name)
    return sum(told.values())


async def test_the_real_network_finds_the_polyp_for_who_has_a_token(rest: httpx.AsyncClient, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"reader:{hashlib.sha256(b'good').hexdigest()}")
    variables = {"PRANET_WEIGHTS": str(ROOT / "weights" / "pranet.safetensors"), "PRANET_API_TOKENS_FILE": str(tokens)}
    target = app(Scaling(max_replicas=1))._bound_deployment
    real = target.options(ray_actor_options={"runtime_env": {"env_vars": variables}}).bind()
    await asyncio.to_thread(serve.run, real, name="real", route_prefix="/real")
    image, good = SAMPLES[0].read_bytes(), ("authorization", "Bearer good")
    answer = await rest.post("/real/segment", content=image, headers=[good])
    assert dice(mask_of(answer.content), annotation(SAMPLES[0])) > 0.8
    assert (await rest.post("/real/segment", content=image)).status_code == 401
    async with grpc.aio.insecure_channel(GRPC) as channel:
        stub = pb_grpc.SegmentationServiceStub(channel)
        request, name = pb.SegmentRequest(image=image), ("application", "real")
        assert (await stub.Segment(request, metadata=[name, good])).png == answer.content
        for call in (stub.Segment(request, metadata=[name]), stub.SegmentStream(metadata=[name]).read()):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_health_as_ray_asks_for_it_is_readiness() -> None:
    async with serving() as it:
        replica = Replica.__new__(Replica)
        replica._service = it.service
        await replica.check_health()
        it.service.readiness.dead.set()
        with pytest.raises(NotReady):
            await replica.check_health()
        it.service.readiness.enter(Phase.DRAINING)
        with pytest.raises(Draining):
            await replica.check_health()


def test_a_certificate_is_refused_as_the_proxy_would_not_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRANET_TLS_CERT", "cert.pem")
    monkeypatch.setenv("PRANET_TLS_KEY", "key.pem")
    with pytest.raises(SettingsError, match="ssl_certfile"):
        app(Scaling())


def test_ray_knows_every_field_of_the_configuration_in_the_manifest_and_kubernetes_those_of_its_pods(
    tmp_path: Path,
) -> None:
    spec = yaml.safe_load(MANIFEST.read_text())["spec"]
    config = ServeDeploySchema.model_validate(yaml.safe_load(spec["serveConfigV2"]))
    (application,) = config.applications
    module, _, name = application.import_path.partition(":")
    deployment = getattr(importlib.import_module(module), name)(Scaling(**application.args))._bound_deployment
    assert [each.name for each in application.deployments] == [deployment.name]
    assert config.grpc_options.grpc_servicer_functions == ADD
    cluster = spec["rayClusterConfig"]
    assert cluster["rayVersion"] == ray.__version__
    (workers,) = cluster["workerGroupSpecs"]
    patience = workers["template"]["spec"]["terminationGracePeriodSeconds"]
    assert patience > deployment._deployment_config.graceful_shutdown_timeout_s
    for group in (cluster["headGroupSpec"], workers):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pranet"}, **group["template"]}
        (tmp_path / "pod.yaml").write_text(yaml.safe_dump(pod))
        check(SCRIPTS / "kubernetes-validate", "--strict", tmp_path / "pod.yaml")
