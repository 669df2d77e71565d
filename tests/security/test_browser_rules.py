"""What browsers are told: whose pages may call, and to be careful with what comes."""

from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from pranet_client.credentials import NO_ACCESS
from service.http.middleware import SAFE_HEADERS
from tests.support import callers
from tests.support.serving import serving

ELSEWHERE = "https://elsewhere.example"
PREFLIGHT = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/docs/try", "/livez", "/info", "/pages/live.js", "/nothing", "/metrics"]
)
async def test_every_answer_tells_browsers_to_be_careful(path: str) -> None:
    async with serving() as it:
        answer = await it.rest.get(path)
        assert set(SAFE_HEADERS) <= set(answer.headers)
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert "unsafe" not in answer.headers["content-security-policy"]


async def test_what_may_be_about_a_patient_is_kept_by_no_cache() -> None:
    async with serving() as it:
        answer = await it.rest.post("/segment", content=callers.PICTURE)
        assert answer.headers["cache-control"] == "no-store"
        assert (await it.rest.get("/pages/live.js")).headers["cache-control"] == "no-cache"  # asked for at each visit


async def test_pages_of_other_sites_get_no_permission_by_default() -> None:
    async with serving() as it:
        answer = await it.rest.get("/info", headers={"origin": ELSEWHERE})
        assert not [name for name in answer.headers if name.startswith("access-control-")]
        assert (await it.rest.options("/segment", headers={"origin": ELSEWHERE, **PREFLIGHT})).status_code == 405


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=b", None])
async def test_pages_of_other_sites_may_not_send_what_browsers_send_unasked(kind: str | None) -> None:
    headers = {"origin": ELSEWHERE} | ({"content-type": kind} if kind else {})
    async with serving() as it:
        refused = await it.rest.post("/segment", content=callers.PICTURE, headers=headers)
        assert (refused.status_code, refused.json()["type"]) == (403, "urn:pranet:error:foreign-origin")
        assert it.metric("pranet_decodes_total") == 0
        own = await it.rest.post("/segment", content=callers.PICTURE, headers={"origin": str(it.rest.base_url)})
        assert own.status_code == 200
    async with serving(cors_origins=ELSEWHERE) as it:
        named = await it.rest.post("/segment", content=callers.PICTURE, headers={"origin": ELSEWHERE})
        assert named.status_code == 200


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://hospital.example", "hospital.example:443"),  # as many proxies pass it on
        ("http://hospital.example", "hospital.example:80"),
        ("https://hospital.example:8443", "Hospital.example:8443"),
    ],
)
async def test_an_origin_is_its_host_in_any_spelling(origin: str, host: str) -> None:
    async with serving() as it:
        own = await it.rest.post("/segment", content=callers.PICTURE, headers={"origin": origin, "host": host})
        assert own.status_code == 200
        other = {"origin": origin, "host": host + "1"}
        assert (await it.rest.post("/segment", content=callers.PICTURE, headers=other)).status_code == 403


async def test_named_sites_are_known_in_any_spelling() -> None:
    async with serving(cors_origins="https://Viewer.example:443") as it:
        headers = {"origin": "https://viewer.example"}
        answer = await it.rest.post("/segment", content=callers.PICTURE, headers=headers)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, headers["origin"])


async def test_a_preflight_that_asks_for_too_much_is_an_error_with_a_cause() -> None:
    async with serving(cors_origins=ELSEWHERE) as it:
        for headers in ({"origin": "https://evil.example"}, {"access-control-request-method": "DELETE"}):
            asked = {"origin": ELSEWHERE, **PREFLIGHT, **headers}
            refused = await it.rest.options("/segment", headers=asked)
            assert (refused.status_code, refused.json()["type"]) == (403, "urn:pranet:error:foreign-origin")
        assert it.metric("pranet_rejected_total", {"reason": "foreign-origin"}) == 2


async def test_a_page_without_an_origin_is_told_what_it_lacks() -> None:
    async with serving() as it:
        refused = await it.rest.post("/segment", content=callers.PICTURE, headers={"origin": "null"})
        assert (refused.status_code, "open the page over HTTP" in refused.json()["detail"]) == (403, True)


async def test_pages_of_named_sites_may_ask_and_stream() -> None:
    async with serving(cors_origins=f"https://other.example, {ELSEWHERE}/") as it:
        preflight = await it.rest.options("/segment", headers={"origin": ELSEWHERE, **PREFLIGHT})
        assert preflight.headers["access-control-allow-origin"] == ELSEWHERE
        assert "authorization" in preflight.headers["access-control-allow-headers"].lower()
        answer = await it.rest.get("/info", headers={"origin": ELSEWHERE})
        assert answer.headers["access-control-allow-origin"] == ELSEWHERE
        assert {"x-model", "x-pictures"} <= set(answer.headers["access-control-expose-headers"].split(", "))
        async with callers.socket(it, NO_ACCESS, by_header=True, origin=ELSEWHERE):
            pass
        stranger = await it.rest.get("/info", headers={"origin": "https://stranger.example"})
        assert "access-control-allow-origin" not in stranger.headers
        with pytest.raises(InvalidStatus):
            async with callers.socket(it, NO_ACCESS, by_header=True, origin="https://stranger.example"):
                pass


async def test_a_refusal_can_be_read_by_pages_of_named_sites(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("")
    async with serving(cors_origins=ELSEWHERE, api_tokens_file=tmp_path / "tokens") as it:
        assert (await it.rest.options("/segment", headers={"origin": ELSEWHERE, **PREFLIGHT})).status_code == 200
        refused = await it.rest.get("/info", headers={"origin": ELSEWHERE})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, ELSEWHERE)
