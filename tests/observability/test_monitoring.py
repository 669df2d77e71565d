"""The dashboard and the alerts, before the real Prometheus that scrapes a service."""

import asyncio
import contextlib
import itertools
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import torch
import yaml
from PIL import Image

from model.engines.cuda import device_metrics
from model.transforms import Pixels
from model.weights.weights_file import CheckpointError
from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from service.errors import ServiceError
from service.observability.metrics import OUTCOMES, Metrics
from service.observability.stage_times import STAGES
from service.runtime import Phase
from tests.support import processes
from tests.support.certificates import Authority
from tests.support.pictures import ROOT, encoded
from tests.support.predictors import RedPredictor
from tests.support.serving import PATIENCE, Running, serving

PROMETHEUS = ROOT / "docker" / "prometheus"
RULES = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"][0]["rules"]
ALERTS = {rule["alert"] for rule in RULES}
DASHBOARD = json.loads((ROOT / "docker" / "grafana" / "pranet.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
QUERIES = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
GPU_QUERIES = [(title, query) for title, query in QUERIES if "pranet_gpu_" in query]
FILES = {"PranetTokensFile", "PranetCertificateFiles", "PranetWeightsFile", "PranetCertificateEnds", "PranetTokenEnds"}
PROCESSES = {"PranetProcessDown", "PranetProcessEnds"}
ENDINGS = {"PranetDown", "PranetAbsent", "PranetNotReady", "PranetThreadsStuck"} | FILES | PROCESSES
SCRAPES = 60  # seconds before a Prometheus that scrapes every second must have seen what happened

needs_prometheus = pytest.mark.skipif(not shutil.which("promtool"), reason="no Prometheus (apt install prometheus)")


def promtool(*arguments: object, folder: Path = PROMETHEUS) -> str:
    done = subprocess.run(["promtool", *map(str, arguments)], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def filled(query: str, stage: str) -> str:
    """Put in what Grafana does."""
    return query.replace("$__rate_interval", "1m").replace("$stage", stage)


@needs_prometheus
def test_prometheus_takes_its_configuration_and_every_alert_fires_for_its_cause_only() -> None:
    assert "SUCCESS: 1 rule files found" in promtool("check", "config", "prometheus.yml")
    promtool("test", "rules", "alerts.test.yml")
    tests = yaml.safe_load((PROMETHEUS / "alerts.test.yml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    assert {case["alertname"] for case in cases if case.get("exp_alerts")} == ALERTS
    assert {case["alertname"] for case in cases if not case.get("exp_alerts")} == ALERTS


@needs_prometheus
def test_in_kubernetes_prometheus_finds_the_pods_under_the_name_that_alerts_look_for(tmp_path: Path) -> None:
    (job,) = yaml.safe_load((PROMETHEUS / "kubernetes.yml").read_text())["scrape_configs"]
    assert job.pop("kubernetes_sd_configs") == [{"role": "pod"}]  # which Debian's promtool does not know
    (tmp_path / "job.yml").write_text(yaml.safe_dump({"scrape_configs": [job]}))
    promtool("check", "config", "job.yml", folder=tmp_path)
    (down,) = [rule["expr"] for rule in RULES if rule["alert"] == "PranetDown"]
    assert down.startswith(f'up{{job="{job["job_name"]}"}}')
    manifest = next(yaml.safe_load_all((ROOT / "docker" / "kubernetes" / "pranet.yaml").read_text()))
    pod = manifest["spec"]["template"]
    (kept,) = [rule["regex"] for rule in job["relabel_configs"] if rule.get("action") == "keep"]
    names = [f"{pod['metadata']['labels']['app']};{port['name']}" for port in pod["spec"]["containers"][0]["ports"]]
    assert [name for name in names if re.fullmatch(kept, name)] == ["pranet;http"]


@needs_prometheus
def test_the_queries_about_a_gpu_fit_the_series_that_a_gpu_has(tmp_path: Path) -> None:
    names = sorted({re.search(r"pranet_gpu_\w+", query)[0] for _, query in GPU_QUERIES})  # type: ignore[index]
    assert names == ["pranet_gpu_memory_used_bytes", "pranet_gpu_utilization_ratio"]
    series = [{"series": f'{name}{{gpu="cuda:0"}}', "values": "0.5"} for name in names]
    cases = [
        {"expr": query, "eval_time": "0s", "exp_samples": [{"labels": f'{name}{{gpu="cuda:0"}}', "value": 0.5}]}
        for name, (_, query) in zip(names, sorted(GPU_QUERIES, key=lambda pair: pair[1]), strict=True)
    ]
    test = {"tests": [{"input_series": series, "promql_expr_test": cases}]}
    (tmp_path / "gpu.yml").write_text(yaml.safe_dump(test))
    promtool("test", "rules", "gpu.yml", folder=tmp_path)


@needs_prometheus
def test_the_time_to_an_answer_is_not_that_of_streams_which_last_for_minutes(tmp_path: Path) -> None:
    name = "pranet_request_duration_seconds_bucket"
    series = [
        {"series": f'{name}{{transport="{transport}",le="{edge}"}}', "values": "0+60x8"}
        for transport in ("rest", "grpc", "grpc-stream", "websocket")
        for edge in ("1", "+Inf")
    ]
    cases = [
        {
            "expr": filled(query, ""),
            "eval_time": "2m",
            "exp_samples": [{"labels": f'{{transport="{each}"}}', "value": value} for each in ("rest", "grpc")],
        }
        for value, query in zip((0.5, 0.99), [query for _, query in QUERIES if name in query], strict=True)
    ]
    test = {"tests": [{"interval": "15s", "input_series": series, "promql_expr_test": cases}]}
    (tmp_path / "times.yml").write_text(yaml.safe_dump(test))
    promtool("test", "rules", "times.yml", folder=tmp_path)


def test_a_gpu_that_does_not_answer_is_no_error() -> None:
    absent = "cuda:99"
    assert math.isnan(device_metrics.memory_used(absent))
    assert math.isnan(device_metrics.utilization(absent))


def test_dashboard_and_alerts_know_the_service_by_its_own_names() -> None:
    text = " ".join([query for _, query in QUERIES] + [rule["expr"] for rule in RULES])
    exported = {family.name + suffix for family in Metrics().registry.collect() for suffix in ("", "_total", "_bucket")}
    assert set(re.findall(r"pranet_\w+", text)) <= exported
    reasons = set("|".join(re.findall(r'reason=~"([^"]+)"', text)).split("|"))
    assert reasons <= {cause.slug for cause in ServiceError.__subclasses__()}
    assert set("|".join(re.findall(r'outcome=~"([^"]+)"', text)).split("|")) <= set(OUTCOMES)
    (stages,) = [each["query"] for each in DASHBOARD["templating"]["list"] if each["name"] == "stage"]
    assert stages.split(",") == list(STAGES)


def test_the_dashboards_panels_are_whole_and_do_not_overlap() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    assert all(target["datasource"]["uid"] == "${datasource}" for panel in PANELS for target in panel["targets"])
    for one, other in itertools.combinations([panel["gridPos"] for panel in PANELS], 2):
        apart = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert apart or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]


class Prometheus:
    """The real one, asked over HTTP."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def query(self, query: str) -> list[Any]:
        """Return what it answers; nothing while it starts."""
        with contextlib.suppress(httpx.TransportError):
            answer = await self._client.get("/query", params={"query": query})
            return [] if answer.status_code == 503 else answer.raise_for_status().json()["data"]["result"]
        return []

    async def firing(self) -> set[str]:
        answer = await self._client.get("/alerts")
        alerts = answer.raise_for_status().json()["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}


@contextlib.asynccontextmanager
async def scraping(target: str, folder: Path, ca: Path | None = None) -> AsyncIterator[Prometheus]:
    """Scrape a service by the project's own configuration, but often, and with alerts that do not wait."""
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [target]
    if ca:
        config["scrape_configs"][0] |= {"scheme": "https", "tls_config": {"ca_file": str(ca)}}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    rules = [{**rule, "for": "0s"} for rule in RULES]
    (folder / "alerts.yml").write_text(yaml.safe_dump({"groups": [{"name": "pranet", "rules": rules}]}))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    flags = ("--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address={address}")
    with (folder / "log").open("w") as log:
        process = await asyncio.create_subprocess_exec("prometheus", *flags, cwd=folder, stderr=log)
    async with httpx.AsyncClient(base_url=f"http://{address}/api/v1", timeout=PATIENCE, trust_env=False) as client:
        try:
            yield Prometheus(client)
        finally:
            process.terminate()
            await process.wait()


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def stumble(frames: Pixels) -> None:
    """Fail on black frames, and take longer than the budget of a frame's age over white ones."""
    levels = frames.reshape(len(frames), -1)
    if (levels.max(1) == 0).any():
        raise ArithmeticError("a black frame")
    if (levels.min(1) == 255).any():
        time.sleep(0.15)


RED, BLACK, WHITE = (encoded(Image.new("RGB", (32, 32), color)) for color in ("red", "black", "white"))


async def stream(running: Running) -> None:
    """Stream frames faster than they are done; a second stream finds no place meanwhile."""
    call = running.stub.SegmentStream(timeout=PATIENCE)
    await call.write(pb.StreamRequest(config=pb.StreamConfig(policy=pb.POLICY_LATEST)))
    for frame_id in range(4):
        await call.write(pb.StreamRequest(frame=pb.StreamFrame(frame_id=frame_id, image=WHITE)))
    await call.read()
    refused = running.stub.SegmentStream(iter([pb.StreamRequest(config=pb.StreamConfig())]), timeout=PATIENCE)
    assert await refused.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    await call.done_writing()
    while await call.read() is not grpc.aio.EOF:
        pass


async def trouble(running: Running) -> None:
    """Let happen what dashboards and alerts tell of."""
    await running.rest.post("/segment", content=RED)
    assert (await running.rest.post("/segment", content=BLACK)).status_code == 500
    await stream(running)


def live_queries() -> list[str]:
    """Return every query that has an answer on this machine."""
    here = [query for pair in QUERIES if torch.cuda.is_available() or pair not in GPU_QUERIES for query in pair[1:]]
    return [filled(query, stage) for query in here for stage in (STAGES if "$stage" in query else STAGES[:1])]


async def fires(prometheus: Prometheus, alerts: set[str]) -> bool:
    return await prometheus.firing() >= alerts


async def fires_none(prometheus: Prometheus, alerts: set[str]) -> bool:
    return not await prometheus.firing() & alerts


async def seen(condition: Callable[[], Awaitable[Any]], running: Running | None = None) -> None:
    """Wait until Prometheus has seen something; meanwhile the service has its troubles."""
    async with asyncio.timeout(SCRAPES):
        while not await condition():
            if running:
                await trouble(running)
            await asyncio.sleep(0.2)


@needs_prometheus
@pytest.mark.slow
async def test_prometheus_answers_every_query_of_the_dashboard_and_fires_every_alert(tmp_path: Path) -> None:
    service = contextlib.AsyncExitStack()
    running = await service.enter_async_context(serving(RedPredictor(before=stumble), max_streams=1))
    async with service, scraping(f"127.0.0.1:{running.port}", tmp_path) as prometheus:
        for query in live_queries():
            await seen(lambda query=query: prometheus.query(query), running)
        await seen(lambda: prometheus.query("pranet_fps > 0"), running)
        await seen(lambda: fires_none(prometheus, ENDINGS))
        await seen(lambda: fires(prometheus, ALERTS - ENDINGS), running)
        running.service.metrics.stuck_threads.labels("live").set_function(lambda: 1.0)
        running.service.readiness.enter(Phase.DRAINING)
        await seen(lambda: fires(prometheus, {"PranetNotReady", "PranetThreadsStuck"}))
        await service.aclose()
        await seen(lambda: fires(prometheus, {"PranetDown"}))


@needs_prometheus
@pytest.mark.slow
async def test_a_real_prometheus_fires_for_a_process_of_two_that_ends_again_and_again(tmp_path: Path) -> None:
    with processes.fake_server("--processes", 2) as server:
        async with scraping(httpx.URL(server.url).netloc.decode(), tmp_path) as prometheus:
            await seen(lambda: prometheus.query('pranet_process_up{process="1"} == 1'))
            fired: set[str] = set()

            async def killed() -> bool:
                for process in processes.children(server)[1:]:  # the first one goes on
                    os.kill(process, signal.SIGKILL)
                fired.update(await prometheus.firing())
                return fired >= PROCESSES

            await seen(killed)


def lost() -> RedPredictor:
    raise CheckpointError(Path("new.safetensors"), "is empty")


@needs_prometheus
@pytest.mark.slow
async def test_a_real_prometheus_fires_for_files_that_end_or_cannot_be_used(tmp_path: Path) -> None:
    today = datetime.now(UTC)
    tokens = written(tmp_path / "tokens", f"prometheus:{'0' * 64}")
    authority = Authority(tmp_path)
    cert, key = authority.issue("127.0.0.1", not_after=today + timedelta(days=20))
    settings = {"tls_cert": cert, "tls_key": key, "api_tokens_file": tokens, "public_metrics": True}
    async with (
        serving(load=lost, **settings) as running,
        scraping(f"127.0.0.1:{running.port}", tmp_path, authority.pem) as prometheus,
    ):
        await seen(lambda: prometheus.query("pranet_tokens_current == 1"))
        assert not await prometheus.firing() & FILES
        for new, place in zip(
            authority.issue("127.0.0.1", not_after=today + timedelta(days=10)), (cert, key), strict=True
        ):
            new.replace(place)
        assert running.service.tls is not None
        assert running.service.tls.renew()
        written(tokens, f"prometheus:{'0' * 64}:{today.date()}")
        await seen(lambda: fires(prometheus, {"PranetCertificateEnds", "PranetTokenEnds"}))
        assert not await prometheus.firing() & {"PranetCertificateFiles", "PranetTokensFile", "PranetWeightsFile"}
        cert.write_text("not yet written")
        assert not running.service.tls.renew()
        assert not await running.service.model_slot.reload()
        written(tokens, "prometheus:a-token-in-clear")
        await seen(lambda: fires(prometheus, FILES))
