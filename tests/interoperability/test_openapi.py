"""The service does what its OpenAPI document says: requests made from the document, answers held against it."""

from collections.abc import Iterator

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import positive_data_acceptance  # no schema tells bytes from pictures

from tests.support import processes
from tests.support.pictures import encoded, red_box
from tests.support.processes import Server

PICTURES = [encoded(red_box(24, 16, (4, 4, 12, 12)), kind) for kind in ("PNG", "JPEG", "WEBP")]
EXAMPLES = 50  # of each operation

schemathesis.openapi.format("binary", st.sampled_from(PICTURES) | st.binary(max_size=256))


@pytest.fixture
def server() -> Iterator[Server]:
    """Serve without the engine, which is not what is tested here."""
    with processes.fake_server("--maps", "false") as running:
        yield running


@pytest.mark.long
@pytest.mark.slow
def test_every_operation_answers_as_documented_whatever_is_sent(server: Server) -> None:
    document = httpx.get(f"{server.url}/openapi.json", timeout=60, trust_env=False).json()
    schema = schemathesis.openapi.from_dict(document)
    tried: list[str] = []
    for operation in (result.ok() for result in schema.get_all_operations()):

        @settings(max_examples=EXAMPLES, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def answers_as_documented(case: schemathesis.Case) -> None:
            (case.headers or {}).pop("X-Request-Timeout-Ms", None)  # of a millisecond the answer would be 504
            case.call_and_validate(base_url=server.url, timeout=60, excluded_checks=[positive_data_acceptance])

        answers_as_documented()
        tried.append(operation.label)
    assert "POST /segment" in tried
