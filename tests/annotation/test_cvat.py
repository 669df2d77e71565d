"""The auto-annotation function for CVAT, called as CVAT's SDK calls it, and read with the SDK's own decoder."""

import asyncio
import io
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import cvat_sdk.auto_annotation as cvataa
import numpy as np
import pytest
from cvat_sdk.auto_annotation.driver import _AnnotationMapper, _DetectionFunctionContextImpl
from cvat_sdk.masks import decode_mask
from cvat_sdk.models import Label
from PIL import Image

from pranet_client.annotation import cvat
from pranet_client.errors import ClientError, RequestFailed
from tests.support.pictures import encoded
from tests.support.serving import Running, serving


@pytest.fixture
async def it() -> AsyncIterator[Running]:
    async with serving() as running:
        yield running


def picture(*boxes: tuple[int, int, int, int], size: tuple[int, int] = (75, 61)) -> Image.Image:
    made = Image.new("RGB", size)
    for box in boxes:
        made.paste((255, 0, 0), box)
    return made


async def detect(it: Running, image: Image.Image, **context: Any) -> list[Any]:
    function = cvat.create(f"http://127.0.0.1:{it.port}")
    given = _DetectionFunctionContextImpl(frame_name="frame-7.jpg", **context)
    return await asyncio.to_thread(function.detect, given, image)


def mask_of(shape: Any, image: Image.Image) -> np.ndarray:
    return decode_mask(shape.points, image_width=image.width, image_height=image.height)


async def expected(it: Running, image: Image.Image) -> np.ndarray:
    answer = await it.rest.post("/segment", content=encoded(image))
    return np.asarray(Image.open(io.BytesIO(answer.content))) > 0


@pytest.mark.parametrize("size", [(75, 61), (64, 64), (353, 201)])
async def test_each_polyp_is_a_mask_and_together_they_are_the_mask_of_the_service(
    it: Running, size: tuple[int, int]
) -> None:
    image = picture((3, 2, 21, 17), (40, 30, 55, 50), size=size)
    shapes = await detect(it, image)
    assert [shape.type.value for shape in shapes] == ["mask", "mask"]
    masks = [mask_of(shape, image) for shape in shapes]
    assert np.array_equal(masks[0] | masks[1], await expected(it, image))
    assert not (masks[0] & masks[1]).any()
    assert masks[0].sum() > masks[1].sum() > 0


async def test_an_empty_frame_has_no_shapes_and_a_full_one_has_one(it: Running) -> None:
    assert await detect(it, picture()) == []
    image = picture((0, 0, 75, 61))
    (shape,) = await detect(it, image)
    assert mask_of(shape, image).all()
    assert shape.points[-4:] == [0, 0, 74, 60]  # the box has its last column and row


async def test_the_sdk_accepts_what_the_function_declares_and_returns(it: Running) -> None:
    label = Label(name="polyp", id=31, type="mask", attributes=[], sublabels=[])
    function = cvat.create(f"http://127.0.0.1:{it.port}")
    for polygons in (False, True):
        label.type = "polygon" if polygons else "mask"
        mapper = _AnnotationMapper(
            logging.getLogger(),
            function.spec.labels,
            [label],
            allow_unmatched_labels=False,
            conv_mask_to_poly=polygons,
        )
        shapes = await detect(it, picture((3, 2, 21, 17)), conv_mask_to_poly=polygons)
        _, mapped = mapper.validate_and_remap(shapes, 5)
        assert [(each.label_id, each.frame, each.type.value) for each in mapped] == [
            (31, 5, "polygon" if polygons else "mask")
        ]


async def test_polygons_enclose_what_the_masks_show(it: Running) -> None:
    image = picture((8, 5, 68, 53))
    (shape,) = await detect(it, image, conv_mask_to_poly=True)
    corners = np.reshape(shape.points, (-1, 2))
    mask = await expected(it, image)
    rows, columns = np.nonzero(mask)
    assert np.abs(corners.min(axis=0) - (columns.min(), rows.min())).max() <= 1
    assert np.abs(corners.max(axis=0) - (columns.max() + 1, rows.max() + 1)).max() <= 1


@pytest.mark.parametrize(("threshold", "count"), [(None, 1), (0.0, 1), (0.5, 1), (1.0, 0)])
async def test_polyps_below_the_threshold_are_left_out(it: Running, threshold: float | None, count: int) -> None:
    assert len(await detect(it, picture((8, 5, 68, 53)), conf_threshold=threshold)) == count


async def test_the_label_may_have_another_name() -> None:
    function = cvat.create(label="Lesion")
    assert [(each.name, each.type) for each in function.spec.labels] == [("Lesion", "mask")]
    assert isinstance(function.spec, cvataa.DetectionFunctionSpec)


async def test_a_frame_that_is_refused_is_named_and_does_not_end_the_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(max_image_pixels=1000) as it:
        assert await detect(it, picture()) == []
    assert "frame-7.jpg is left without annotations: too-many-pixels" in caplog.text
    caplog.clear()
    async with serving() as it:
        assert await detect(it, Image.new("I;16", (8, 8))) == []
    assert "frame-7.jpg is left without annotations: a Pillow image of mode I;16" in caplog.text


async def test_a_service_that_is_not_there_ends_the_run() -> None:
    async with serving() as it:
        pass
    with pytest.raises(RequestFailed, match="unreachable"):
        await detect(it, picture())


async def test_it_sends_the_token_of_a_file(tmp_path: Path, it: Running) -> None:
    (tmp_path / "token").write_text("secret\n")
    function = cvat.create(f"http://127.0.0.1:{it.port}", token_file=str(tmp_path / "token"))
    assert function._client._client._access.token == "secret"
    with pytest.raises(ClientError, match="missing"):
        cvat.create(ca_file=str(tmp_path / "missing"))
