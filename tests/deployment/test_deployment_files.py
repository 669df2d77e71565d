"""Dockerfiles, compose files, manifests and the unit: each passes its checker, and they agree with the service."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.configuration import load
from service.settings import Settings
from tests.support.pictures import ROOT
from tests.support.processes import SCRIPTS, check

DOCKER = ROOT / "docker"
DOCKERFILES = [DOCKER / "Dockerfile", DOCKER / "cuda.Dockerfile"]
MANIFESTS = sorted((DOCKER / "kubernetes").glob("*.yaml"))
KUBERAY = DOCKER / "kuberay" / "pranet.yaml"
DRAIN_SECONDS = Settings().drain_seconds


def manifests() -> dict[str, Any]:
    """Return every object by its kind."""
    return {each["kind"]: each for path in MANIFESTS for each in yaml.safe_load_all(path.read_text())}


def compose(*files: str) -> dict[str, Any]:
    chosen = [word for name in files for word in ("-f", DOCKER / name)]
    services: dict[str, Any] = yaml.safe_load(check("docker-compose", *chosen, "config"))["services"]
    return services


needs_compose = pytest.mark.skipif(not shutil.which("docker-compose"), reason="no docker-compose")
needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd")


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_a_dockerfile_is_clean_and_its_last_stage_builds_nothing_and_runs_as_nobody_special(dockerfile: Path) -> None:
    check(SCRIPTS / "hadolint", dockerfile)
    last = dockerfile.read_text().rpartition("\nFROM ")[2]
    assert "RUN" not in last
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", last, re.MULTILINE)
    assert "HEALTHCHECK" in last


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_holds_a_list_of_what_it_serves_with_and_not_the_tools_that_made_it(dockerfile: Path) -> None:
    *_, listing, last = dockerfile.read_text().split("\nFROM ")
    assert "./sbom.sh /tools /opt/pranet/bin/python /sbom" in listing
    assert "COPY --from=sbom /sbom /opt/pranet/share/doc/pranet" in last
    assert "/tools" not in last


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_a_build_is_given_what_it_copies(dockerfile: Path) -> None:
    given = (ROOT / ".dockerignore").read_text().splitlines()
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile.read_text(), re.MULTILINE)
    names = [name for line in copied for name in line.split()]
    assert len(names) > 5
    assert [name for name in names if f"!{name}" not in given or not (ROOT / name).exists()] == []


def test_the_scaler_alone_says_how_many_pods_there_are() -> None:
    objects = manifests()
    assert "replicas" not in objects["Deployment"]["spec"]
    assert objects["HorizontalPodAutoscaler"]["spec"]["minReplicas"] >= 2


def test_both_images_hold_the_same() -> None:
    ours, theirs = (
        re.search(r"^FROM.*?(?=\nENV PATH=\S+ PYTHON)", path.read_text(), re.MULTILINE | re.DOTALL)
        for path in DOCKERFILES
    )
    assert ours is not None
    assert theirs is not None
    assert ours[0] == theirs[0]


def pins(image: str) -> dict[str, str]:
    """Return the packages of an image, ``--build-arg REQUIREMENTS=image``, and their versions."""
    return dict(re.findall(r"^([\w.-]+)==([^ ;]+)", (ROOT / "requirements" / f"{image}.txt").read_text(), re.MULTILINE))


def test_an_image_reads_dicom_and_traces_and_with_ray_it_runs_the_manifest_of_kuberay() -> None:
    (chosen,) = {re.search(r"^ARG REQUIREMENTS=(\w+)$", path.read_text(), re.MULTILINE)[1] for path in DOCKERFILES}
    plain, ray = pins(chosen), pins("ray")
    assert {"pydicom", "highdicom", "pylibjpeg-openjpeg", "opentelemetry-sdk", "nvidia-ml-py"} <= set(plain)
    assert plain.items() <= ray.items()
    cluster = yaml.safe_load(KUBERAY.read_text())["spec"]["rayClusterConfig"]
    assert ray["ray"] == cluster["rayVersion"]
    images = {
        container["image"]
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])
        for container in group["template"]["spec"]["containers"]
    }
    (built,) = re.findall(r"docker build .*REQUIREMENTS=ray -t (\S+) \.$", KUBERAY.read_text(), re.MULTILINE)
    assert images == {built}


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_the_settings_in_an_image_are_settings(dockerfile: Path) -> None:
    variables = dict(re.findall(r"(PRANET_\w+)=(\S+)", dockerfile.read_text()))
    settings, warnings = load(variables, {})
    assert (settings.host, warnings) == ("0.0.0.0", [])


@needs_compose
def test_the_compose_file_runs_the_service_read_only_and_lets_it_drain() -> None:
    services = compose("compose.yaml")
    assert set(services) == {"pranet", "prometheus", "grafana"}
    assert services["pranet"]["read_only"] is True
    assert int(services["pranet"]["stop_grace_period"].removesuffix("s")) > DRAIN_SECONDS
    for mount in (mount for service in services.values() for mount in service.get("volumes", [])):
        source = mount.partition(":")[0]
        assert not source.startswith("/") or Path(source).exists()


@needs_compose
def test_the_compose_file_for_a_gpu_asks_for_one() -> None:
    pranet = compose("compose.yaml", "compose.cuda.yaml")["pranet"]
    assert pranet["build"]["dockerfile"] == "docker/cuda.Dockerfile"
    assert pranet["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    assert pranet["read_only"] is True


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.name)
def test_kubernetes_knows_every_field_of_a_manifest(manifest: Path) -> None:
    check(SCRIPTS / "kubernetes-validate", "--strict", manifest)


def test_a_pod_drains_before_it_is_killed_and_may_do_nothing_else() -> None:
    pod = manifests()["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    settings, _ = load({each["name"]: each["value"] for each in container["env"]}, {})
    pause = float(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > pause + settings.drain_seconds
    assert pod["enableServiceLinks"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert {probe: container[probe]["httpGet"]["path"] for probe in container if probe.endswith("Probe")} == {
        "startupProbe": "/readyz",
        "readinessProbe": "/readyz",
        "livenessProbe": "/livez",
    }


def test_kubernetes_scales_by_a_metric_that_the_service_has_and_never_below_the_disruption_budget() -> None:
    objects = manifests()
    spec = objects["HorizontalPodAutoscaler"]["spec"]
    assert spec["metrics"][0]["pods"]["metric"]["name"] == "pranet_queue_depth"
    assert spec["minReplicas"] > objects["PodDisruptionBudget"]["spec"]["minAvailable"]
    selector = objects["Deployment"]["spec"]["selector"]["matchLabels"]
    assert objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == selector
    assert objects["Service"]["spec"]["selector"] == selector


@needs_systemd
def test_systemd_takes_the_unit_and_gives_it_time_to_drain(tmp_path: Path) -> None:
    unit = (DOCKER / "pranet.service").read_text()
    executable = "/opt/pranet/bin/pranet"
    assert executable in unit
    (tmp_path / "pranet.service").write_text(unit.replace(executable, "/bin/true"))  # it is not installed here
    (tmp_path / "pranet.service.d").mkdir()
    shutil.copy(DOCKER / "pranet-secrets.conf", tmp_path / "pranet.service.d" / "secrets.conf")
    check("systemd-analyze", "verify", "--man=no", tmp_path / "pranet.service")
    assert "SupplementaryGroups=pranet-secrets" in (DOCKER / "pranet-secrets.conf").read_text()
    (patience,) = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert int(patience) > DRAIN_SECONDS
