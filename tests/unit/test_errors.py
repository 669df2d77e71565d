"""Each cause of failure has one HTTP status, one gRPC status and a type of its own."""

import ast
import re
from collections.abc import Iterator

from grpc import StatusCode

from service import errors
from service.errors import ServiceError
from tests.support.pictures import ROOT

CAUSES = ServiceError.__subclasses__()


def test_every_cause_stands_in_the_drawn_tree_with_both_its_statuses() -> None:
    drawn = errors.__doc__ or ""
    for cause in CAUSES:
        line = next(line for line in drawn.splitlines() if f"── {cause.__name__} " in line)
        assert str(cause.status) in line
        assert cause.grpc.name in line


def test_no_two_causes_share_a_problem_type() -> None:
    assert len({cause.slug for cause in CAUSES}) == len(CAUSES)


def test_retry_is_advised_exactly_where_it_can_help() -> None:
    retried = {cause.status for cause in CAUSES if cause.retry_after is not None}
    assert retried == {429, 503}


def test_a_problem_carries_what_rfc_9457_asks_for() -> None:
    problem = errors.QueueFull("too many").problem("id-1")
    assert problem == {
        "type": "urn:pranet:error:queue-full",
        "title": "Too Many Requests",
        "status": 429,
        "detail": "too many",
        "request_id": "id-1",
    }


def test_a_client_error_is_never_a_server_error_on_grpc() -> None:
    for cause in CAUSES:
        if cause.status < 500:
            assert cause.grpc not in (StatusCode.INTERNAL, StatusCode.UNKNOWN, StatusCode.UNAVAILABLE)


def _sentences() -> Iterator[tuple[str, str]]:
    """Yield each sentence that the service makes an error of, and where it stands."""
    names = {cause.__name__ for cause in CAUSES} - {"ClientLeft", "InternalError"}  # unread, and of one form
    for path in sorted((ROOT / "service").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            made = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names
            written = node.args[0] if made and node.args else None
            if isinstance(written, ast.Constant | ast.JoinedStr) and "describe_errors(" not in ast.unparse(written):
                text = "".join(str(part.value) for part in ast.walk(written) if isinstance(part, ast.Constant))
                yield f"{path.relative_to(ROOT)}:{node.lineno}", text


def test_every_error_says_what_was_wrong_and_what_to_do() -> None:
    sentences = dict(_sentences())
    assert len(sentences) > 80
    assert {
        place: text for place, text in sentences.items() if not re.search("; |, but it should be|/docs", text)
    } == {}
