"""``pranet label-studio`` between a running service and a small Label Studio."""

import base64
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest

from pranet_client import AsyncClient
from pranet_client.answers import Presence
from service.annotation.labelling import control_of
from service.annotation.results import prediction
from service.annotation.run_lengths import encode
from tests.support.label_studio import LEGACY, PERSONAL, Storage, backend, storing
from tests.support.pictures import encoded, mask_of, red_box
from tests.support.predictors import GatedPredictor
from tests.support.serving import Running, serving

BRUSH = """<View><Image name="image" value="$picture"/><BrushLabels name="brush" toName="image">
<Label value="Polyp"/><Label value="Instrument"/></BrushLabels></View>"""
POLYGON = BRUSH.replace("BrushLabels", "PolygonLabels")
RECTANGLE = BRUSH.replace("BrushLabels", "RectangleLabels")
PICTURE = red_box(75, 61, (20, 10, 60, 40))
FILE = encoded(PICTURE)


@pytest.fixture
async def it() -> AsyncIterator[Running]:
    async with serving() as running:
        yield running


@pytest.fixture
async def storage() -> AsyncIterator[Storage]:
    async with storing() as kept:
        kept.files["/data/upload/1/a.png"] = FILE
        yield kept


def tasks(*sources: Any) -> list[dict[str, Any]]:
    return [{"id": number, "data": {"picture": source}, "project": 1} for number, source in enumerate(sources, 1)]


async def predict(asking: httpx.AsyncClient, *sources: Any, config: str = BRUSH) -> list[dict[str, Any]]:
    body = {"tasks": tasks(*sources), "project": "1.1795971234", "label_config": config, "params": {"context": None}}
    answer = await asking.post("/predict", json=body)
    assert answer.status_code == 200
    results: list[dict[str, Any]] = answer.json()["results"]
    assert len(results) == len(sources)
    return results


async def error_of(asking: httpx.AsyncClient, source: Any) -> str:
    (entry,) = await predict(asking, source)
    assert set(entry) == {"error"}
    return str(entry["error"])


async def test_a_polyp_becomes_a_brush_region_with_the_names_of_the_configuration(
    it: Running, storage: Storage
) -> None:
    async with backend(it, storage) as asking:
        (entry,) = await predict(asking, "/data/upload/1/a.png")
    mask = mask_of((await it.rest.post("/segment", content=FILE)).content)
    answer = (await it.rest.post("/segment", params={"output": "json"}, content=FILE)).json()
    assert entry["model_version"] == "red-00000000"
    assert entry["score"] == (answer["presence"] and answer["presence"]["score"])
    (region,) = entry["result"]
    assert region.pop("value") == {"format": "rle", "rle": encode(mask), "brushlabels": ["Polyp"]}
    assert region.pop("score") == answer["polyps"][0]["mean_probability"]
    assert region == {
        "id": "polyp-1",
        "type": "brushlabels",
        "from_name": "brush",
        "to_name": "image",
        "original_width": 75,
        "original_height": 61,
        "image_rotation": 0,
    }


async def test_two_polyps_are_two_regions_and_an_empty_frame_has_none(it: Running, storage: Storage) -> None:
    two = red_box(120, 60, (5, 5, 45, 50))
    two.paste((255, 0, 0), (80, 20, 100, 40))
    storage.files |= {"/two.png": encoded(two), "/none.png": encoded(red_box(75, 61, (0, 0, 0, 0)))}
    async with backend(it, storage) as asking:
        both, none = await predict(asking, "/two.png", "/none.png")
    assert [region["id"] for region in both["result"]] == ["polyp-1", "polyp-2"]
    assert none["result"] == []
    assert none["model_version"] == "red-00000000"


async def test_the_score_of_a_prediction_is_the_presence(it: Running) -> None:
    async with AsyncClient(f"http://127.0.0.1:{it.port}") as client:
        answer = await client.segment(FILE)
    assert prediction(replace(answer, presence=Presence(0.7, 0.5)), control_of(BRUSH))["score"] == 0.7
    assert prediction(replace(answer, presence=None), control_of(BRUSH))["score"] is None


async def test_polygons_and_rectangles_are_in_percent_of_the_picture(it: Running, storage: Storage) -> None:
    async with backend(it, storage) as asking:
        (polygon,) = (await predict(asking, "/data/upload/1/a.png", config=POLYGON))[0]["result"]
        (rectangle,) = (await predict(asking, "/data/upload/1/a.png", config=RECTANGLE))[0]["result"]
    rows, columns = np.nonzero(mask_of((await it.rest.post("/segment", content=FILE)).content))
    left, top, right, bottom = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    value = rectangle["value"]
    assert (rectangle["type"], value["rectanglelabels"], value["rotation"]) == ("rectanglelabels", ["Polyp"], 0)
    assert [value[name] for name in ("x", "y", "width", "height")] == pytest.approx(
        [100 * left / 75, 100 * top / 61, 100 * (right - left) / 75, 100 * (bottom - top) / 61]
    )
    points = np.array(polygon["value"]["points"]) * (0.75, 0.61)
    assert (polygon["type"], polygon["value"]["polygonlabels"], polygon["value"]["closed"]) == (
        "polygonlabels",
        ["Polyp"],
        True,
    )
    assert np.abs(points.min(axis=0) - (left, top)).max() <= 1
    assert np.abs(points.max(axis=0) - (right, bottom)).max() <= 1


async def test_setup_health_versions_and_webhook_answer_as_label_studio_expects(it: Running, storage: Storage) -> None:
    async with backend(it, storage) as asking:
        for path in ("/", "/health"):
            assert (await asking.get(path)).json()["status"] == "UP"
        schema = {"project": "1.1", "schema": BRUSH, "hostname": "http://localhost:8080", "access_token": "x"}
        assert (await asking.post("/setup", json=schema)).json() == {"model_version": "red-00000000"}
        assert (await asking.get("/versions")).json() == {"versions": ["red-00000000"]}
        assert (await asking.post("/webhook", json={"action": "ANNOTATION_CREATED"})).status_code == 200


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("<View></View>", "no place for polyps"),
        (BRUSH.replace('toName="image"', 'toName="text"'), "no place for polyps"),
        (BRUSH.replace("Polyp", "Lesion"), "2 labels"),
        ("<View>", "not XML"),
    ],
)
async def test_a_configuration_without_a_place_for_polyps_is_refused(
    it: Running, storage: Storage, config: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with backend(it, storage) as asking:
        for path, field in (("/setup", "schema"), ("/predict", "label_config")):
            answer = await asking.post(path, json={field: config, "tasks": tasks("/data/upload/1/a.png")})
            assert answer.status_code == 422
            assert reason in answer.json()["error"]
    assert reason in caplog.text  # Label Studio shows only the status


async def test_the_only_label_means_polyps_and_the_most_exact_tag_is_taken(it: Running, storage: Storage) -> None:
    one = BRUSH.replace('<Label value="Instrument"/>', "").replace("Polyp", "Lesion")
    several = BRUSH.replace(
        "</View>", '<PolygonLabels name="p" toName="image"><Label value="polyp"/></PolygonLabels></View>'
    )
    async with backend(it, storage) as asking:
        (lesion,) = (await predict(asking, "/data/upload/1/a.png", config=one))[0]["result"]
        (brush,) = (await predict(asking, "/data/upload/1/a.png", config=several))[0]["result"]
    assert lesion["value"]["brushlabels"] == ["Lesion"]
    assert brush["from_name"] == "brush"


async def test_a_bad_picture_has_an_error_and_the_others_their_predictions(
    it: Running, storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    storage.files["/broken.png"] = FILE[:100]
    async with backend(it, storage) as asking:
        sources = ["/broken.png", "/data/upload/1/a.png", "/missing.png", None, 7]
        broken, good, missing, none, number = await predict(asking, *sources)
    assert "undecodable-image" in broken["error"]
    assert len(good["result"]) == 1
    assert "answered 404" in missing["error"]
    assert (
        none["error"]
        == number["error"]
        == (
            "the task has no picture: its data has no text 'picture'; "
            "import the task again with the address of its picture there"
        )
    )
    assert "task 1 has no prediction: undecodable-image" in caplog.text
    assert "broken.png" not in caplog.text  # names of files may name patients


@pytest.mark.parametrize(
    "source",
    [
        "http://198.51.100.1/x.png",
        "//198.51.100.1/x.png",
        "https://127.0.0.1/x.png",
        "http://127.0.0.1:1/x.png",
        "http://user@198.51.100.1/x.png",
        "file:///etc/passwd",
        "ftp://127.0.0.1/x.png",
    ],
)
async def test_a_picture_at_another_host_is_not_fetched(it: Running, storage: Storage, source: str) -> None:
    async with backend(it, storage) as asking:
        assert "fetched from Label Studio at" in await error_of(asking, source)
    assert storage.asked == []


async def test_a_redirection_is_not_followed(it: Running, storage: Storage) -> None:
    async with backend(it, storage) as asking:
        assert "is not followed" in await error_of(asking, "/moved/x.png")


@pytest.mark.parametrize("form", ["{url}/data/upload/1/a.png", "data/upload/1/a.png", "/data/upload/1/a.png"])
async def test_a_picture_of_label_studio_may_be_given_in_several_forms(
    it: Running, storage: Storage, form: str
) -> None:
    async with backend(it, storage) as asking:
        (entry,) = await predict(asking, form.format(url=storage.url))
    assert len(entry["result"]) == 1
    assert storage.asked == [("/data/upload/1/a.png", f"Token {LEGACY}")]


async def test_label_studio_below_a_path_is_asked_below_it(it: Running, storage: Storage) -> None:
    storage.files = {"/labels/data/a.png": FILE}
    storage.url += "/labels"
    async with backend(it, storage) as asking:
        entries = await predict(asking, "/data/a.png", "/labels/data/a.png", f"{storage.url}/data/a.png")
    assert [len(entry["result"]) for entry in entries] == [1, 1, 1]


async def test_an_object_of_a_storage_is_fetched_through_label_studio(it: Running, storage: Storage) -> None:
    storage.files["1:s3://bucket/frames/a b.png"] = FILE
    async with backend(it, storage) as asking:
        (entry,) = await predict(asking, "s3://bucket/frames/a b.png")
    assert len(entry["result"]) == 1


async def test_a_data_uri_needs_no_request(it: Running, storage: Storage) -> None:
    uri = f"data:image/png;base64,{base64.b64encode(FILE).decode()}"
    async with backend(it, storage) as asking:
        (entry,) = await predict(asking, uri)
        assert "upload the picture" in await error_of(asking, "data:image/png;base64,%%%")
    assert len(entry["result"]) == 1
    assert storage.asked == []


async def test_a_personal_token_is_exchanged_once_and_again_when_it_expires(it: Running, storage: Storage) -> None:
    async with backend(it, storage, PERSONAL) as asking:
        for _ in range(2):
            assert len((await predict(asking, "/data/upload/1/a.png"))[0]["result"]) == 1
        assert storage.exchanges == 1
        storage.valid = set()
        assert len((await predict(asking, "/data/upload/1/a.png"))[0]["result"]) == 1
    assert storage.exchanges == 2


async def test_a_refused_token_is_named(it: Running, storage: Storage) -> None:
    async with backend(it, storage, "wrong") as asking:
        assert "answered 401" in await error_of(asking, "/data/upload/1/a.png")
    async with backend(it, storage, "a.wrong.token") as asking:
        assert "refused the personal access token with 401" in await error_of(asking, "/data/upload/1/a.png")


async def test_a_picture_that_is_too_large_is_not_kept(it: Running, storage: Storage) -> None:
    large = bytes(64 * 1024 * 1024 + 1)
    storage.files["/large.png"] = large
    async with backend(it, storage) as asking:
        for source in ("/large.png", f"data:image/png;base64,{base64.b64encode(large).decode()}"):
            assert "more than 67108864 bytes; import a smaller copy" in await error_of(asking, source)


async def test_a_service_or_label_studio_that_is_not_there_is_said(storage: Storage) -> None:
    async with serving() as it:
        pass
    async with backend(it, storage) as asking:
        assert "unreachable" in await error_of(asking, "/data/upload/1/a.png")
        answer = await asking.post("/setup", json={"schema": BRUSH})
        assert (answer.status_code, "unreachable" in answer.text) == (503, True)
        storage.url = "http://127.0.0.1:1"
    async with backend(it, storage) as asking:
        assert "check that it runs, and --label-studio-url" in await error_of(asking, "/data/upload/1/a.png")


async def test_what_is_done_when_the_time_is_up_is_answered(storage: Storage) -> None:
    predictor = GatedPredictor()
    predictor.permits.release()  # for one picture
    async with serving(predictor, max_batch_size=1) as it:
        async with backend(it, storage, seconds=5) as asking:
            entries = await predict(asking, *["/data/upload/1/a.png"] * 3)
        predictor.open()
    assert sorted("result" in entry for entry in entries) == [False, False, True]
    assert {entry["error"] for entry in entries if "error" in entry} == {
        "there was no time left for this task; ask for its prediction again"
    }


async def test_with_a_login_nobody_else_is_answered(it: Running, storage: Storage) -> None:
    async with backend(it, storage, login="label:studio") as asking:
        for wrong in (None, ("label", "wrong"), ("", "")):
            answer = await asking.get("/health", auth=wrong)
            assert (answer.status_code, answer.headers["www-authenticate"][:5]) == (401, "Basic")
        for odd in ("%", "\u00e9"):
            answer = await asking.get("/health", headers={"authorization": f"Basic {odd}".encode()})
            assert answer.status_code == 401
        assert (await asking.get("/health", auth=("label", "studio"))).status_code == 200


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"[" * 100_000, b'{"tasks": [], "label_config": 7}'])
async def test_what_is_no_request_is_refused(it: Running, storage: Storage, content: bytes) -> None:
    async with backend(it, storage) as asking:
        assert (await asking.post("/predict", content=content)).status_code == 422
