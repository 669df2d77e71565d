"""A service of two processes, as its clients, its operator and Prometheus see it."""

import asyncio
import base64
import contextlib
import itertools
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import httpx
import pytest

from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from pranet_client.pb.pranet.v1 import segmentation_pb2_grpc as pb_grpc
from service.access.tokens import Token, digest_of
from tests.support import processes
from tests.support.pictures import encoded, mask_of, red_box
from tests.support.processes import CONNECTIONS, Server, children, children_of, pranet

pytestmark = pytest.mark.slow

PICTURE = encoded(red_box(64, 48, (8, 8, 40, 40)))
IN_TIME = 30.0  # seconds
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
REPLACEMENTS = "pranet_process_replacements_total"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with processes.fake_server("--processes", 2) as running:
        yield running


def get(server: Server, path: str) -> httpx.Response:
    """Ask over a new connection; one to a process that is stopped is given up."""
    end = time.monotonic() + IN_TIME
    while True:
        try:
            return httpx.get(
                f"{server.url}{path}", trust_env=False, verify=False, timeout=2
            )  # TLS takes 50 ms to prepare
        except httpx.TransportError:
            assert time.monotonic() < end


def metrics(server: Server) -> dict[str, float]:
    lines = [line for line in get(server, "/metrics").text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def whole(server: Server) -> dict[str, float]:
    """Return the metrics once both processes answer in time with theirs; a busy one's are those of a while ago."""
    found: dict[str, float] = {}

    def is_whole() -> bool:
        found.update(metrics(server))
        return [found[f'pranet_process_up{{process="{index}"}}'] for index in (0, 1)] == [1, 1]

    until(is_whole)
    return found


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + IN_TIME
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def is_alive(process: int) -> bool:
    with contextlib.suppress(OSError):
        return ") Z " not in Path(f"/proc/{process}/stat").read_text()
    return False


def send(server: Server) -> None:
    """Send one picture over each protocol, on new connections."""
    answer = httpx.post(f"{server.url}/segment", content=PICTURE, trust_env=False, verify=False)
    assert mask_of(answer.content).any()
    alone = [("grpc.use_local_subchannel_pool", 1)]  # otherwise channels share a connection
    with grpc.insecure_channel(server.grpc_address, options=alone) as channel:
        answered = pb_grpc.SegmentationServiceStub(channel).Segment(pb.SegmentRequest(image=PICTURE), timeout=IN_TIME)
        assert mask_of(answered.png).any()


def work(found: dict[str, float]) -> float:
    return found["pranet_decodes_total"]


def test_metrics_count_what_clients_sent_to_both_processes(server: Server) -> None:
    before = whole(server)
    for _ in range(CONNECTIONS):
        send(server)
    after = whole(server)
    assert work(after) - work(before) == 2 * CONNECTIONS
    ok = 'pranet_requests_total{code="OK",transport="grpc"}'
    assert after[ok] - before[ok] == CONNECTIONS
    assert [after[f'pranet_process_up{{process="{index}"}}'] for index in (0, 1)] == [1, 1]


def test_every_process_says_the_same_of_the_service(server: Server) -> None:
    for path, told in (("/readyz", {"processes": 2, "ready": 2}), ("/info", {"processes": 2, "max_queue_size": 256})):
        for _ in range(CONNECTIONS):
            assert told.items() <= get(server, path).json().items()


def test_the_inference_protocol_speaks_of_the_whole_service_and_of_what_fits_into_one_process(server: Server) -> None:
    send(server)
    counts = [
        get(server, "/v2/models/pranet/stats").json()["model_stats"][0]["inference_count"] for _ in range(CONNECTIONS)
    ]
    assert counts == [work(whole(server))] * CONNECTIONS
    most = get(server, "/v2/models/pranet/config").json()["max_batch_size"]
    assert most == 128  # of the 256 places
    pictures = [base64.b64encode(PICTURE).decode()] * (most + 1)
    for count, status in ((most, 200), (most + 1, 400)):
        tensor = {"name": "image", "datatype": "BYTES", "shape": [count], "data": pictures[:count]}
        body = {"inputs": [tensor], "outputs": [{"name": "mask"}]}
        url = f"{server.url}/v2/models/pranet/infer"
        assert httpx.post(url, json=body, trust_env=False, verify=False, timeout=IN_TIME).status_code == status


def test_a_process_that_is_killed_is_replaced_and_no_counter_goes_backwards(server: Server) -> None:
    send(server)
    seen = [whole(server)]
    killed = children(server)[-1]
    os.kill(killed, signal.SIGKILL)
    until(lambda: metrics(server)[REPLACEMENTS] > seen[0][REPLACEMENTS])
    send(server)  # the other one goes on
    seen.append(metrics(server))
    until(lambda: get(server, "/readyz").json()["ready"] == 2)
    send(server)
    seen.append(whole(server))
    assert [work(each) - work(seen[0]) for each in seen] == [0, 2, 4]
    for earlier, later in itertools.pairwise(seen):
        counters = [
            name for name in earlier if name.partition("{")[0].endswith(("_total", "_count", "_sum", "_bucket"))
        ]
        assert [name for name in counters if later[name] < earlier[name]] == []
    assert seen[-1][REPLACEMENTS] == seen[0][REPLACEMENTS] + 1
    assert killed not in children(server)
    assert len(children(server)) == 2


@pytest.mark.long  # it waits for a process that does not answer
def test_a_scrape_names_the_process_that_does_not_answer_and_keeps_its_counters(server: Server) -> None:
    before = metrics(server)
    stopped = children(server)[0]
    os.kill(stopped, signal.SIGSTOP)
    try:
        found = metrics(server)
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert sorted(found[f'pranet_process_up{{process="{index}"}}'] for index in (0, 1)) == [0, 1]
    assert work(found) == work(before)


def test_sighup_reloads_the_weights_of_all_processes(server: Server) -> None:
    taken = 'pranet_weights_reloads_total{outcome="taken"}'
    before = metrics(server)[taken]
    server.process.send_signal(signal.SIGHUP)
    until(lambda: metrics(server)[taken] == before + 2)


def half_uploaded(server: Server, path: str = "/segment", *headers: str) -> socket.socket:
    """Begin a request, and return once the service reads its body, whose last byte is still to come."""
    client = socket.create_connection(("127.0.0.1", httpx.URL(server.url).port or 0), timeout=IN_TIME)
    lines = ("host: x", f"content-length: {len(PICTURE)}", "connection: close", "expect: 100-continue", *headers)
    client.sendall("\r\n".join((f"POST {path} HTTP/1.1", *lines)).encode() + b"\r\n\r\n")
    assert client.recv(len(CONTINUE), socket.MSG_WAITALL) == CONTINUE
    client.sendall(PICTURE[:-1])
    return client


async def test_sigterm_to_the_parent_and_to_each_process_lets_all_answer_what_they_have_accepted() -> None:
    with processes.fake_server("--processes", 2) as server:
        clients = [half_uploaded(server) for _ in range(CONNECTIONS)]
        for process in (server.process.pid, *children(server)):  # as systemd does
            os.kill(process, signal.SIGTERM)
        until(lambda: get(server, "/readyz").status_code == 503)
        for client in clients:
            client.sendall(PICTURE[-1:])
        for client in clients:
            with client, client.makefile("rb") as answer:
                assert answer.readline() == b"HTTP/1.1 200 OK\r\n"
        assert await asyncio.to_thread(server.process.wait, IN_TIME) == 0


def test_processes_whose_parent_is_killed_end_and_leave_the_ports_free() -> None:
    with processes.fake_server("--processes", 2) as server:
        served = children(server)
        server.process.kill()
        server.process.wait(IN_TIME)
        until(lambda: not any(map(is_alive, served)))
        for address in (httpx.URL(server.url).netloc.decode(), server.grpc_address):
            host, _, port = address.rpartition(":")
            socket.create_server((host, int(port))).close()


@pytest.mark.long
def test_a_second_signal_ends_all_at_once() -> None:
    with processes.fake_server("--processes", 2) as server, half_uploaded(server):
        served = children(server)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: get(server, "/readyz").status_code == 503)
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(IN_TIME) == 128 + signal.SIGINT
        until(lambda: not any(map(is_alive, served)))


def test_a_process_that_does_not_end_is_killed_and_named(tmp_path: Path) -> None:
    log = tmp_path / "log"
    options = ("--processes", 2, "--drain-seconds", 0)
    with log.open("w") as stderr, processes.fake_server(*options, stderr=stderr, END_SECONDS="1") as server:
        stopped = children(server)[0]
        os.kill(stopped, signal.SIGSTOP)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(IN_TIME) == 128 + signal.SIGKILL
    assert f"(pid {stopped}) has not ended after 1 s; it is killed" in log.read_text()


def test_a_process_that_is_killed_during_the_start_is_named(tmp_path: Path) -> None:
    with processes.starting("--processes", 2, weights=tmp_path / "weights") as parent:
        (first,) = children_of(parent)
        os.kill(first, signal.SIGKILL)
        _, log = parent.communicate(timeout=IN_TIME)
        assert parent.returncode == 128 + signal.SIGKILL
    assert f"process 0 (pid {first}) ended with 137; the start has failed, and all end" in log


def test_the_last_process_that_is_killed_is_named(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("w") as stderr, processes.fake_server("--processes", 2, stderr=stderr) as server:
        for each in children(server):
            os.kill(each, signal.SIGKILL)
        assert server.process.wait(IN_TIME) == 128 + signal.SIGKILL
    assert "ended with 137; no process is left" in log.read_text()


def statuses(server: Server, path: str, tokens: list[str]) -> list[int]:
    with contextlib.ExitStack() as open_:
        clients = [
            open_.enter_context(httpx.Client(base_url=server.url, trust_env=False, verify=False, timeout=IN_TIME))
            for _ in tokens
        ]
        return [
            client.post(path, content=PICTURE, headers={"authorization": f"Bearer {token}"}).status_code
            for client, token in zip(clients, tokens, strict=True)
        ]


def test_limits_on_tokens_and_archives_are_those_of_the_whole_service(tmp_path: Path) -> None:
    names = [f"room-{number}" for number in range(CONNECTIONS + 1)]
    file = tmp_path / "tokens"
    file.write_text("".join(f"{Token(name, digest_of(name)).line()}\n" for name in names))
    limits = ("--rate-limit", "0.0001", "--max-archives", 1)
    with processes.fake_server("--processes", 2, "--api-tokens-file", file, *limits) as server:
        assert statuses(server, "/segment", CONNECTIONS * names[-1:]) == [200] + (CONNECTIONS - 1) * [429]
        holder = ("content-type: application/zip", f"authorization: Bearer {names[0]}")
        with half_uploaded(server, "/segment/batch", *holder):
            assert set(statuses(server, "/segment/batch", names[1:-1])) == {429}


@pytest.mark.parametrize("wrong", ["--grpc-port", "--weights"])
def test_a_start_that_fails_says_so_in_one_line_and_ends_with_2(wrong: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        values = {"--grpc-port": taken.getsockname()[1], "--weights": tmp_path / "gone"}
        given = {"--port": 0, "--grpc-port": 0, "--device": "cpu", wrong: values[wrong]}
        done = pranet("serve", "--processes", 2, *(word for pair in given.items() for word in pair))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("pranet: ")


def test_a_second_service_is_refused_on_ports_that_processes_share(server: Server) -> None:
    ports = ("--port", httpx.URL(server.url).port, "--grpc-port", server.grpc_address.rpartition(":")[2])
    done = pranet("serve", "--processes", 2, *ports)
    assert done.returncode == 2
    assert "Address already in use" in done.stderr


def test_each_process_keeps_to_its_own_cores(server: Server) -> None:
    cores = os.sched_getaffinity(server.process.pid)
    shares = [os.sched_getaffinity(each) for each in children(server)]
    assert set.union(*shares) == cores
    assert len(cores) == 1 or not set.intersection(*shares)
