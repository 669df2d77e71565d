"""Who has a valid token is let in, over every transport; nobody else is, to any route that is not listed as open."""

import asyncio
import contextlib
import hashlib
import logging
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from model import files
from pranet_client.credentials import NO_ACCESS, Access
from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from pranet_client.pb.pranet.v1 import segmentation_pb2_grpc as pb_grpc
from service.access.tokens import Tokens, TokensError, parse
from service.commands import main as cli
from service.pb.inference import open_inference_pb2 as oip
from service.pb.inference import open_inference_pb2_grpc as oip_grpc
from tests.support.callers import TRANSPORTS, Ask, grpc_unary, rest, socket
from tests.support.pictures import ROOT, encoded, red_box
from tests.support.serving import Running, serving

OPEN = [
    "/",
    "/livez",
    "/readyz",
    "/v2/health/live",
    "/v2/health/ready",
    "/docs",
    "/docs/try",
    "/openapi.json",
    "/pages/live.js",
    "/samples/polyp-1.jpg",
]
CREDENTIALS = {
    "right": ("good", "ok"),
    "on its last day": ("today", "ok"),
    "expired": ("expired", "unauthenticated"),
    "wrong": ("bad", "unauthenticated"),
    "the hash itself": (hashlib.sha256(b"good").hexdigest(), "unauthenticated"),
    "absent": (None, "unauthenticated"),
}


def day(after: int = 0) -> date:
    """Return today in UTC, or a day after or before it."""
    return datetime.now(UTC).date() + timedelta(days=after)


def line(token: str, name: str | None = None, last_day: object = "") -> str:
    return f"{name or token}:{hashlib.sha256(token.encode()).hexdigest()}" + (f":{last_day}" if last_day else "")


def write(path: Path, *lines: str) -> None:
    path.write_text("\n".join(lines))


async def asked(it: Running, path: str) -> httpx.Response:
    """Ask for a path as it stands; clients tidy up what they are given."""
    return await it.rest.get("/", extensions={"target": path.encode()})


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    lines = ["# who may call", line("good"), "", line("today", last_day=day()), line("expired", last_day=day(-1))]
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("ask", TRANSPORTS, ids=lambda ask: ask.__name__)
async def test_a_valid_token_lets_in_and_nothing_else_does(ask: Ask, tokens: Path) -> None:
    async with serving(api_tokens_file=tokens) as it:
        found = {name: await ask(it, Access(token)) for name, (token, _) in CREDENTIALS.items()}
        assert found == {name: expected for name, (_, expected) in CREDENTIALS.items()}
        assert it.metric("pranet_decodes_total") == 2
        assert it.metric("pranet_rejected_total", {"reason": "unauthenticated"}) >= 4


@pytest.mark.parametrize("header", ["good", "Basic good", "Bearer", "Bearer good good", "Bearer göod", ""])
async def test_what_is_no_bearer_token_is_refused(header: str, tokens: Path) -> None:
    async with serving(api_tokens_file=tokens) as it:
        answer = await it.rest.get("/info", headers=[(b"authorization", header.encode())])
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == 'Bearer realm="pranet"'


@pytest.mark.parametrize("pair", [("good", "bad"), ("bad", "good"), ("good", "good")])
async def test_of_several_tokens_none_counts(pair: tuple[str, str], tokens: Path) -> None:
    given = [("authorization", f"Bearer {token}") for token in pair]
    async with serving(api_tokens_file=tokens) as it:
        assert (await it.rest.get("/info", headers=given)).status_code == 401
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await it.stub.GetModelInfo(pb.GetModelInfoRequest(), metadata=given)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        offered = [Subprotocol(f"pranet.bearer.{token}") for token in pair]
        for options in ({"additional_headers": given}, {"subprotocols": offered}):
            with pytest.raises(InvalidStatus) as denied:
                await connect(f"ws://127.0.0.1:{it.port}/stream", proxy=None, **options)
            assert denied.value.response.status_code == 401


async def test_without_a_file_of_tokens_nobody_needs_one() -> None:
    async with serving() as it:
        assert [await ask(it, NO_ACCESS) for ask in TRANSPORTS] == ["ok"] * len(TRANSPORTS)


async def test_every_route_needs_a_token_but_those_that_are_listed(tokens: Path) -> None:
    async with serving(api_tokens_file=tokens) as it:
        documented = list((await it.rest.get("/openapi.json")).json()["paths"])
        assert "/segment" in documented
        for path in [*documented, *OPEN, "/nothing", "/pages", "//info", "/info/", "/INFO", "/docs/", "/livez/../info"]:
            expected = {200} if path in OPEN else {401}
            assert (await asked(it, path)).status_code in expected, path


@pytest.mark.parametrize("path", ["/pages/../info", "/pages/%2e%2e/info", "/pages/..%2finfo", "/samples/../../core.py"])
async def test_no_detour_through_an_open_folder_leads_out_of_it(path: str, tokens: Path) -> None:
    async with serving(api_tokens_file=tokens) as it:
        assert (await asked(it, path)).status_code in (401, 404)


@pytest.mark.parametrize(("public", "status"), [(True, 200), (False, 401)])
async def test_metrics_are_open_only_if_the_setting_says_so(public: bool, status: int, tokens: Path) -> None:
    async with serving(api_tokens_file=tokens, public_metrics=public) as it:
        assert (await it.rest.get("/metrics")).status_code == status
        assert (await it.rest.get("/metrics", headers={"authorization": "bearer good"})).status_code == 200


async def test_grpc_health_is_open_and_reflection_is_not(tokens: Path) -> None:
    async with serving(api_tokens_file=tokens) as it:
        health = await health_pb2_grpc.HealthStub(it.channel).Check(health_pb2.HealthCheckRequest())
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        listing = reflection_pb2.ServerReflectionRequest(list_services="")
        stub = reflection_pb2_grpc.ServerReflectionStub(it.channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.ServerReflectionInfo().read()  # without a write: it may fail first
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        answers = stub.ServerReflectionInfo(iter([listing]), metadata=Access("good").metadata())
        assert (await anext(aiter(answers))).list_services_response.service


async def test_tokens_change_without_a_restart(tokens: Path) -> None:
    async with serving(api_tokens_file=tokens) as it:
        assert await rest(it, Access("good")) == "ok"
        write(tokens, line("new"))
        found = [await ask(it, Access(token)) for ask in (rest, grpc_unary) for token in ("good", "new")]
        assert found == ["unauthenticated", "ok"] * 2


@pytest.mark.parametrize("broken", ["good:secret-in-clear", "\x00\xff", "a:" + "0" * 64 + ":someday", None])
def test_a_broken_new_file_leaves_the_old_tokens_in_force(
    broken: str | None, tokens: Path, caplog: pytest.LogCaptureFixture
) -> None:
    read = Tokens(tokens)
    if broken is None:
        tokens.unlink()
    else:
        tokens.write_bytes(broken.encode("latin-1"))
    assert read.holder("good") == read.holder("good") == "good"
    faults = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(faults) == 1  # not one for each request
    assert "the old tokens stay valid" in faults[0]
    assert "secret" not in faults[0]
    tokens.write_text(line("new"))
    assert read.holder("new") == "new"


def test_a_file_that_is_broken_from_the_beginning_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("good:secret-in-clear")
    with pytest.raises(TokensError, match="line 1 is not name:sha256-hex") as caught:
        Tokens(tmp_path / "tokens")
    assert "secret" not in str(caught.value)
    with pytest.raises(TokensError, match="No such file"):
        Tokens(tmp_path / "none")


def test_a_file_without_tokens_is_warned_of_at_the_start_and_when_it_is_emptied(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "tokens"
    file.write_text("# none yet\n")
    read = Tokens(file)
    warning = f"the tokens file {file} holds no token, so nobody gets in; add one with `pranet tokens add`"
    assert caplog.messages == [warning]
    file.write_text(line("one", "a"))
    assert read.usable()
    file.write_text("")
    assert read.usable()
    assert read.usable()
    assert caplog.messages.count(warning) == 2


def test_a_name_can_stand_in_the_file_once_only() -> None:
    with pytest.raises(TokensError, match="line 2: the name a occurs twice"):
        parse(f"{line('one', 'a')}\n{line('two', 'a')}")


def test_the_command_makes_tokens_that_only_their_holders_know(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tokens"
    given = ["--api-tokens-file", str(path)]
    assert cli.main(["tokens", "add", "room-1", *given]) == 0
    first = capsys.readouterr().out.strip()
    assert path.stat().st_mode & 0o777 == 0o600
    following = Tokens(path)
    path.chmod(0o640)
    assert cli.main(["tokens", "add", "room-2", "--expires", str(day()), *given]) == 0
    second = capsys.readouterr().out.strip()
    assert (following.holder(first), following.holder(second)) == ("room-1", "room-2")
    assert path.stat().st_mode & 0o777 == 0o640
    assert first not in path.read_text()
    assert os.listdir(tmp_path) == ["tokens"]
    assert cli.main(["tokens", "add", "room-1", *given]) == 2
    assert cli.main(["tokens", "add", "room 3", *given]) == 2
    assert cli.main(["tokens", "remove", "room-3", *given]) == 2
    assert cli.main(["tokens", "remove", "room-1", *given]) == 0
    assert [token.name for token in parse(path.read_text())] == ["room-2"]


@pytest.mark.parametrize("given", ["tomorrow", "yesterday's date", "2030-02-30"])
def test_a_day_that_is_none_or_past_is_refused_with_what_to_give(
    given: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tokens"
    text = str(day(-1)) if given == "yesterday's date" else given
    with pytest.raises(SystemExit) as left:
        cli.main(["tokens", "add", "room-1", "--expires", text, "--api-tokens-file", str(path)])
    told = capsys.readouterr().err
    assert left.value.code == 2
    assert "argument --expires" in told
    assert text in told
    assert (f"today is {day()}" if given == "yesterday's date" else "YYYY-MM-DD, such as") in told
    assert "isoformat" not in told
    assert not path.exists()


def test_the_command_lists_holders_and_how_long_they_may_call(tokens: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tokens", "list", "--api-tokens-file", str(tokens)]) == 0
    listed = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert listed == [
        ["good", "does not expire"],
        ["today", f"valid until {day()}"],
        ["expired", f"expired after {day(-1)}"],
    ]
    assert cli.main(["tokens", "list", "--api-tokens-file", str(tokens / "none")]) == 2
    assert "cannot be read" in capsys.readouterr().err


ROOT_RUNS = os.geteuid() == 0  # as root, the file is another user's; else owner and group are this user's
OWNER, GROUP = (4000, 4712) if ROOT_RUNS else (os.getuid(), os.getgid())
READER = """
import os, sys
from pathlib import Path

from service.access.tokens import Tokens
from service.errors import Unauthenticated

if os.geteuid() == 0:
    os.setgroups([]), os.setgid(4712), os.setuid(4711)
tokens = Tokens(Path(sys.argv[1]))
for token in sys.stdin:
    try:
        print(tokens.holder(token.strip()), tokens.usable(), flush=True)
    except Unauthenticated:
        print("refused", tokens.usable(), flush=True)
"""


@pytest.fixture
def shared() -> Iterator[Path]:
    """Return a tokens file of another owner that a service reads by its group; not below a folder of root's alone."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / "tokens"
        write(path, line("good"), line("other"))
        os.chown(path, OWNER, GROUP)
        path.chmod(0o640)
        yield path


@contextlib.contextmanager
def reader(path: Path) -> Iterator[Callable[[str], str]]:
    """Read the file in a process of the service's user; yield what asks it for a token."""
    with subprocess.Popen(
        [sys.executable, "-c", READER, path], cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:

        def ask(token: str) -> str:
            assert process.stdin is not None
            assert process.stdout is not None
            print(token, file=process.stdin, flush=True)
            return process.stdout.readline().strip()

        yield ask


def test_a_token_that_root_removes_is_refused_by_a_service_that_reads_by_its_group(
    shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link = shared.with_name("link")
    link.symlink_to(shared)
    given = ["--api-tokens-file", str(link)]
    with reader(link) as ask:
        assert (ask("good"), ask("other")) == ("good True", "other True")
        assert cli.main(["tokens", "remove", "good", *given]) == 0
        assert (ask("good"), ask("other")) == ("refused True", "other True")
        assert cli.main(["tokens", "add", "new", *given]) == 0
        assert ask(capsys.readouterr().out.strip()) == "new True"
        status = shared.stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (OWNER, GROUP, 0o640)
        assert link.is_symlink()

        shared.chmod(0)
        assert ask("other") == "other False"
        if ROOT_RUNS:  # who may read it still
            assert cli.main(["tokens", "remove", "other", *given]) == 0
            assert ask("other") == "other False"
        shared.chmod(0o640)  # changes no content, and no time of the content
        assert ask("other") == ("refused True" if ROOT_RUNS else "other True")


def test_weights_that_are_replaced_keep_owner_group_mode_and_access_list(tmp_path: Path) -> None:
    path = tmp_path / "w"
    path.write_bytes(b"old")
    os.chown(path, OWNER, GROUP)
    path.chmod(0o640)
    os.setxattr(path, "user.origin", b"clinic")
    files.write(path, b"new")
    status = path.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (OWNER, GROUP, 0o640)
    assert os.getxattr(path, "user.origin") == b"clinic"
    assert path.read_bytes() == b"new"


async def test_metrics_say_when_the_next_valid_token_ends(tokens: Path) -> None:
    async with serving(api_tokens_file=tokens) as it:
        midnight = datetime.combine(day(1), time(), UTC)  # today is the last day of one of them
        assert it.metric("pranet_token_end_timestamp_seconds") == midnight.timestamp()
        write(tokens, line("good", last_day=date.max))
        assert it.metric("pranet_token_end_timestamp_seconds") > midnight.timestamp()
        write(tokens, line("expired", last_day=day(-1)), line("good"))
        assert it.metric("pranet_token_end_timestamp_seconds") == math.inf


@pytest.mark.parametrize("broken", [["good:secret-in-clear"], [line("a"), line("a")]])
async def test_metrics_say_that_the_tokens_file_cannot_be_used(broken: list[str], tokens: Path) -> None:
    async with serving(api_tokens_file=tokens) as it:
        assert it.metric("pranet_tokens_current") == 1
        write(tokens, *broken)
        assert it.metric("pranet_tokens_current") == 0
        write(tokens, line("good"))
        assert it.metric("pranet_tokens_current") == 1
    async with serving() as it:
        assert it.metric("pranet_tokens_current") == 1


def test_a_file_that_a_mount_still_shows_after_it_was_replaced_is_noticed(
    tokens: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with tokens.open() as file:
        read = Tokens(Path(f"/proc/self/fd/{file.fileno()}"))
        assert read.usable()
        assert cli.main(["tokens", "remove", "good", "--api-tokens-file", str(tokens)]) == 0
        assert not read.usable()
    assert "mount its folder" in capsys.readouterr().err


def test_two_changes_within_a_tick_of_the_clock_are_both_seen(tokens: Path) -> None:
    read = Tokens(tokens)
    status = tokens.stat()
    for name in ("one", "two"):
        write(tokens, line(name))
        os.utime(tokens, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert read.holder(name) == name


def test_of_two_changes_at_once_one_is_refused_and_none_is_lost(
    tokens: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tokens.read_bytes()
    for what in (("add", "room-1"), ("remove", "good")):
        with files.replacing(tokens) as draft:
            draft.write_bytes(before)
            assert cli.main(["tokens", *what, "--api-tokens-file", str(tokens)]) == 2
            assert "another command is writing" in capsys.readouterr().err
        assert tokens.read_bytes() == before


def test_a_tokens_file_that_is_no_text_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "tokens"
    path.write_bytes(b"\xff\xfe")
    for what in (("add", "room-1"), ("remove", "good"), ("list",)):
        assert cli.main(["tokens", *what, "--api-tokens-file", str(path)]) == 2
        assert "(it is no text)" in capsys.readouterr().err


def test_a_killed_change_leaves_the_tokens_as_they_were(tokens: Path) -> None:
    before = tokens.read_bytes()
    for what in (("add", "room-1"), ("remove", "good")):
        kill = "import os, signal; os.replace = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)"
        program = f"{kill}; from service.commands.main import main; main()"
        command = [sys.executable, "-c", program, "tokens", *what, "--api-tokens-file", tokens]
        assert subprocess.run(command, cwd=ROOT, check=False).returncode == -signal.SIGKILL
        assert tokens.read_bytes() == before
    assert cli.main(["tokens", "remove", "good", "--api-tokens-file", str(tokens)]) == 0
    assert os.listdir(tokens.parent) == ["tokens"]


async def test_a_browsers_token_is_never_chosen_as_the_subprotocol(tokens: Path) -> None:
    async with serving(api_tokens_file=tokens) as it, socket(it, Access("good"), by_header=False) as opened:
        assert opened.subprotocol == "pranet.v1"


@pytest.mark.parametrize("ask", TRANSPORTS, ids=lambda ask: ask.__name__)
async def test_above_its_rate_a_token_is_refused_and_others_are_not(ask: Ask, tokens: Path) -> None:
    write(tokens, line("one"), line("other"))
    async with serving(api_tokens_file=tokens, rate_limit=1 / 3600) as it:  # none comes back within this test
        for name in ("one", "other"):
            allowance = it.service.calls._authentication._limits.of(name)
            allowance._most = allowance._left = 2.0  # a stream's opening, and its frame
        assert await ask(it, Access("one")) == "ok"
        while (found := await ask(it, Access("one"))) == "ok":
            pass
        assert found == "rate-limited"
        assert await ask(it, Access("other")) == "ok"
        answer = await it.rest.get("/info", headers=dict(Access("one").metadata()))
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) > 60


async def test_a_live_frame_above_the_rate_is_dropped_before_it_is_decoded(tokens: Path) -> None:
    picture = encoded(red_box(64, 48, (16, 12, 48, 36)))
    async with serving(api_tokens_file=tokens, rate_limit=1 / 3600) as it:  # the opening takes the only one
        stub = pb_grpc.SegmentationServiceStub(it.channel)
        sent = [
            pb.StreamRequest(config=pb.StreamConfig(policy=pb.POLICY_LATEST)),
            pb.StreamRequest(frame=pb.StreamFrame(frame_id=1, image=picture)),
        ]
        answers = [answer async for answer in stub.SegmentStream(iter(sent), metadata=Access("good").metadata())]
        assert [answer.dropped.reason for answer in answers] == [pb.DROP_REASON_OVERLOAD]
        assert it.metric("pranet_decodes_total") == 0
        assert math.isclose(it.metric("pranet_frames_total", {"slot": "0", "outcome": "overload"}), 1)


async def test_a_request_in_a_stream_of_the_inference_protocol_waits_for_the_rate(tokens: Path) -> None:
    async with serving(api_tokens_file=tokens, rate_limit=1 / 3600) as it:  # the opening takes the only one
        stub = oip_grpc.GRPCInferenceServiceStub(it.channel)
        call = stub.ModelStreamInfer(metadata=Access("good").metadata())
        await call.write(oip.ModelInferRequest(model_name="pranet"))
        reading = asyncio.ensure_future(call.read())
        done, _ = await asyncio.wait([reading], timeout=0.5)
        assert not done
        call.cancel()
        await asyncio.wait([reading])
