"""The detector's arithmetic beside torchvision's, and what it makes of odd images and outputs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import detector as detectors
from pipelines.boxes import iou, suppress
from pipelines.detector import Detection, Detector, places, to_input, to_numbers
from tests.checkpoints import (
    GREEN,
    GREY,
    MEAN,
    RED,
    SIDE,
    STD,
    plain,
    save_detector,
    vector,
    with_block,
)
from tests.conftest import encode
from utility_gate.errors import CheckpointError, ConfigError, NetworkError

STRIDES = (8, 16, 32, 64, 128)


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    return Detector.load(save_detector(tmp_path_factory.mktemp("detector")))


def speaking(detector: Detector, outputs: Any, **changes: Any) -> Detector:
    """The detector with a network that says `outputs`, whatever it sees."""
    mute = Detector.__new__(Detector)
    mute.card = detector.card.model_copy(update=changes)
    mute._session = SimpleNamespace(run=lambda *_: outputs)
    mute._input = "images"
    return mute


def random_outputs(random: np.random.Generator, side: int, strides: Any, classes: int) -> Any:
    cells = sum((-(-side // s)) ** 2 for s in strides)
    return [
        random.normal(-1, 2, (1, cells, classes)).astype(np.float32),
        random.gamma(2.0, 1.5, (1, cells, 4)).astype(np.float32),
        random.normal(1, 2, (1, cells, 1)).astype(np.float32),
    ]


def torchvision_anchors(side: int, strides: Any) -> Any:
    import torch
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.image_list import ImageList

    generator = AnchorGenerator(tuple((s,) for s in strides), ((1.0,),) * len(strides))
    features = [torch.zeros(1, 1, -(-side // s), -(-side // s)) for s in strides]
    return generator(ImageList(torch.zeros(1, 3, side, side), [(side, side)]), features)[0]


def torchvision_answer(outputs: Any, side: int, inner: Any, strides: Any, **options: Any) -> Any:
    """What torchvision's FCOS makes of outputs; boxes in pixels of the input."""
    import torch
    from torchvision.models.detection import _utils
    from torchvision.models.detection.fcos import FCOS

    counts = [(-(-side // s)) ** 2 for s in strides]
    names = ("cls_logits", "bbox_regression", "bbox_ctrness")
    heads = {
        name: list(torch.from_numpy(value).split(counts, dim=1))
        for name, value in zip(names, outputs, strict=True)
    }
    anchors = [list(torchvision_anchors(side, strides).split(counts))]
    coder = _utils.BoxLinearCoder(normalize_by_size=True)
    model = SimpleNamespace(box_coder=coder, **options)
    (answer,) = FCOS.postprocess_detections(model, heads, anchors, [inner[::-1]])
    return {name: value.numpy() for name, value in answer.items()}


@pytest.mark.parametrize("side", [32, 96, 416, 608, 640])
def test_places_are_torchvision_s(side: int) -> None:
    anchors = torchvision_anchors(side, STRIDES).numpy()
    where, units = places(side, STRIDES)
    np.testing.assert_array_equal(where, (anchors[:, :2] + anchors[:, 2:]) / 2)
    np.testing.assert_array_equal(units, anchors[:, 2] - anchors[:, 0])


@pytest.mark.parametrize("seed", range(12))
def test_what_is_found_is_what_torchvision_finds(
    detector: Detector, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(seed)
    side = int(random.choice([96, 128, 160, 256]))
    classes, score = int(random.integers(1, 4)), (0.05, 0.3, 0.6, 0.05)[seed % 4]
    overlap, most = float(random.uniform(0.2, 0.8)), (5, 300, 300)[seed % 3]
    candidates = (20, 1000)[seed % 2]
    monkeypatch.setattr(detectors, "CANDIDATES", candidates)
    monkeypatch.setattr(detectors, "SMALLEST", 0.0)
    width, height = (int(n) for n in random.integers(20, 400, 2))
    outputs = random_outputs(random, side, STRIDES, classes)
    names = tuple("abc"[:classes])
    mute = speaking(
        detector, outputs, strides=STRIDES, classes=names, score=score, overlap=overlap, most=most
    )
    pixels = plain(GREY, width, height)
    size = (2 * width, 3 * height)  # as if the decoder had scaled it
    _, inner = to_input(pixels, side, MEAN, STD)
    expected = torchvision_answer(
        outputs, side, inner, STRIDES, score_thresh=score, nms_thresh=overlap,
        topk_candidates=candidates, detections_per_img=most,
    )  # fmt: skip
    got = mute.detect(pixels, size, side)
    assert len(got) > 0
    assert [names.index(d.label) for d in got] == expected["labels"].tolist()
    np.testing.assert_allclose([d.score for d in got], expected["scores"], rtol=1e-5)
    scale = np.array([size[0] / inner[0], size[1] / inner[1]] * 2)
    boxes = np.array([d.box for d in got])
    np.testing.assert_allclose(boxes, expected["boxes"] * scale, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("seed", range(20))
def test_suppression_is_torchvision_s(seed: int) -> None:
    import torch
    from torchvision.ops import batched_nms

    random = np.random.default_rng(seed)
    count = int(random.integers(0, 200))
    corners = random.uniform(0, 60, (count, 2)).astype(np.float32)
    sides = random.uniform(0, 40, (count, 2)).astype(np.float32)
    boxes = np.concatenate([corners, corners + sides], axis=1)
    scores = random.uniform(0, 1, count).astype(np.float32)
    labels = random.integers(0, 3, count)
    overlap = float(random.uniform(0.1, 0.9))
    expected = batched_nms(
        torch.from_numpy(boxes), torch.from_numpy(scores), torch.from_numpy(labels), overlap
    )
    assert suppress(boxes, scores, labels, overlap, 10**6) == expected.tolist()
    assert suppress(boxes, scores, labels, overlap, 3) == expected.tolist()[:3]


def test_boxes_without_an_inside_overlap_nothing() -> None:
    boxes = np.array([[5, 5, 5, 5], [0, 0, 10, 10], [8, 8, 2, 2]], np.float32)
    for box in boxes[[0, 2]]:
        assert iou(box, boxes).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("width", "height"), [(256, 256), (512, 256), (256, 512), (1024, 1024), (64, 64), (200, 96)]
)
def test_a_region_is_told_where_it_is(detector: Detector, width: int, height: int) -> None:
    """One cell of the input, drawn in the image, is found in the image's own pixels."""
    cell = 32 * max(width, height) / SIDE
    box = (cell, 0, 2 * cell, cell)
    pixels = with_block(RED, tuple(int(edge) for edge in box), width, height)  # type: ignore[arg-type]
    (found,) = detector.detect(pixels)
    assert found.label == "scratch"
    assert found.box == pytest.approx((*box[:3], min(box[3], height)), abs=0.51)
    # The same in pixels of an image three times as large, of which these are a scaled copy.
    (larger,) = detector.detect(pixels, (3 * width, 3 * height))
    assert larger.box == pytest.approx([3 * edge for edge in found.box])


def test_a_larger_input_finds_smaller_things(detector: Detector) -> None:
    pixels = with_block(RED, (32, 0, 64, 32))
    assert detector.detect(pixels) == []
    (found,) = detector.detect(pixels, side=256)
    assert found.box == pytest.approx((32, 0, 64, 32))


def test_nothing_found_is_an_empty_list(detector: Detector) -> None:
    assert detector.detect(plain(GREY)) == []
    assert detector.detect(plain(RED), score=1.0) == []


def test_surest_first_and_no_more_than_the_card_allows(detector: Detector) -> None:
    everywhere = detector.detect(plain(RED))
    assert len(everywhere) == 16
    scores = [found.score for found in everywhere]
    assert scores == sorted(scores, reverse=True)
    outputs = random_outputs(np.random.default_rng(0), SIDE, (32, 64), 2)
    assert len(speaking(detector, outputs, score=0.0, most=3).detect(plain(GREY))) == 3


def test_boxes_are_clipped_and_tiny_ones_dropped(detector: Detector) -> None:
    cells = (SIDE // 32) ** 2 + (SIDE // 64) ** 2
    logits = np.full((1, cells, 2), -20, np.float32)
    distances = np.zeros((1, cells, 4), np.float32)
    logits[0, 0, 0] = logits[0, 5, 1] = logits[0, 6, 1] = logits[0, 15, 0] = 9
    distances[0, 0] = 99  # beyond all edges
    distances[0, 5] = 1.9 / 2 / 32 / 2  # 1.9 pixels of an image of twice the size
    distances[0, 6] = 2.1 / 2 / 32 / 2
    outputs = [logits, distances, np.full((1, cells, 1), 9, np.float32)]
    # Cell 15 lies below the image, in what was padded.
    distances[0, 15] = 0.2
    found = speaking(detector, outputs).detect(plain(GREY, 256, 128))
    assert [d.label for d in found] == ["scratch", "dent"]
    assert found[0].box == (0, 0, 256, 128)
    width = found[1].box[2] - found[1].box[0]
    assert width == pytest.approx(2.1, abs=1e-4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_numbers_that_are_none_are_no_boxes(detector: Detector, bad: float) -> None:
    for place in range(3):
        outputs = random_outputs(np.random.default_rng(1), SIDE, (32, 64), 2)
        outputs[place][0, ::2] = bad
        for found in speaking(detector, outputs, score=0.01).detect(plain(GREY, 100, 50)):
            assert np.isfinite(found.box).all()
            assert 0 <= found.score <= 1
            assert 0 <= found.box[0] < found.box[2] <= 100
            assert 0 <= found.box[1] < found.box[3] <= 50


@pytest.mark.parametrize(
    "shapes",
    [
        [(1, 20, 3), (1, 20, 4), (1, 20, 1)],
        [(1, 19, 2), (1, 19, 4), (1, 19, 1)],
        [(2, 20, 2), (2, 20, 4), (2, 20, 1)],
        [(1, 20, 2), (1, 20), (1, 20, 1)],
        [(0,), (0,), (0,)],
    ],
)
def test_outputs_of_other_shapes_are_an_error_that_says_so(
    detector: Detector, shapes: list[tuple[int, ...]]
) -> None:
    outputs = [np.zeros(shape, np.float32) for shape in shapes]
    with pytest.raises(NetworkError, match=r"expected logits, distances and centerness .*\(1, 20"):
        speaking(detector, outputs).detect(plain(GREY))


@given(width=st.integers(1, 3000), height=st.integers(1, 3000))
@settings(max_examples=40, deadline=None)
def test_any_image_fits_into_the_input(width: int, height: int) -> None:
    batch, inner = to_input(np.zeros((height, width, 3), np.uint8), 64, MEAN, STD)
    assert batch.shape == (1, 3, 64, 64)
    assert max(inner) == 64
    assert min(inner) >= 1
    assert batch[0, :, : inner[1], : inner[0]].max() == -4  # black
    assert not batch[0, :, inner[1] :].any()
    assert not batch[0, :, :, inner[0] :].any()


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (2, 5)])
def test_odd_images_are_looked_at_like_others(detector: Detector, size: tuple[int, int]) -> None:
    for found in detector.detect(plain(RED, *size)):
        assert found.box[2] - found.box[0] >= 2
        assert found.box[3] - found.box[1] >= 2


@pytest.mark.parametrize("side", [0, -32, 31, 100, 8192])
def test_a_side_that_cannot_be_is_refused(detector: Detector, side: int) -> None:
    with pytest.raises(ConfigError, match=f"multiple of 32 up to 4096, got {side}"):
        detector.detect(plain(GREY), side=side)


def test_conformance_holds_where_boxes_are(tmp_path: Path) -> None:

    right = {"dent/score": 0.94, "dent/left": 0.5, "dent/top": 0.0, "scratch/score": 0.0}
    pixels = with_block(GREEN, (128, 0, 256, 128))
    Detector.load(save_detector(tmp_path, conformance=(vector(pixels, right),)))
    for wrong in (
        {"dent/score": 0.8}, {"dent/left": 0.4}, {"scratch/left": 0.5}, {"window/score": 0.0},
    ):  # fmt: skip
        folder = save_detector(tmp_path, conformance=(vector(pixels, wrong),))
        with pytest.raises(CheckpointError, match="conformance vector 0"):
            Detector.load(folder)


def test_of_several_detections_of_a_class_the_surest_is_what_conformance_is_about() -> None:
    found = [
        Detection((10, 20, 30, 40), 0.9, "dent"),
        Detection((0, 0, 99, 199), 0.8, "dent"),
        Detection((0, 0, 50, 50), 0.7, "scratch"),
    ]
    assert to_numbers(found, ("dent", "scratch", "broken"), (100, 200)) == {
        "dent/score": 0.9, "dent/left": 0.1, "dent/top": 0.1, "dent/right": 0.3,
        "dent/bottom": 0.2, "scratch/score": 0.7, "scratch/left": 0.0, "scratch/top": 0.0,
        "scratch/right": 0.5, "scratch/bottom": 0.25, "broken/score": 0.0,
    }  # fmt: skip


def test_a_card_s_side_must_be_possible(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="multiple of 32"):
        Detector.load(save_detector(tmp_path, side=100))


def test_the_detector_decodes_no_smaller_than_it_looks(detector: Detector) -> None:
    image = detector.decode(encode(plain(GREY, 2048, 1024), quality=90))
    assert (image.width, image.height) == (2048, 1024)
    assert SIDE <= min(image.pixels.shape[:2]) < 1024
