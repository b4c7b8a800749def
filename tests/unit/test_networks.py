"""Labelling networks: ONNX by TOML entry, torchvision by name from local state dicts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from labelers.images import ImageBatch
from labelers.networks import (
    Classifier,
    Detections,
    Detector,
    Network,
    facts_of,
    open_network,
)
from labelers.truth import GroundTruth, Truth, check_fit
from tests.conftest import draw
from tests.networks import pooled_network, save_colour_network, save_detector, write_entries
from utility_gate.errors import NetworkError, TableError
from utility_gate.files import digest_bytes
from utility_gate.networks import load_detector_specs, load_specs, open_session
from utility_gate.statistics import softmax


@pytest.fixture
def entries(tmp_path: Path) -> Path:
    save_colour_network(tmp_path / "one.onnx")
    save_colour_network(tmp_path / "two.onnx")
    return write_entries(tmp_path, ["one", "two"])


def classify(network: Network, *images: np.ndarray) -> np.ndarray:
    assert isinstance(network, Classifier)
    return network.forward(network.prepare(ImageBatch(list(images))))


def detect(network: Network, *images: np.ndarray) -> list[Detections]:
    assert isinstance(network, Detector)
    return network.forward(network.prepare(ImageBatch(list(images))))


def plain(red: int, green: int = 0, width: int = 40, height: int = 30) -> np.ndarray:
    return np.full((height, width, 3), (red, green, 0), np.uint8)


def test_wrong_networks_are_named(entries: Path, tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=r"expected one of one, two for class.*got 'three'"):
        open_network("three", entries)
    with pytest.raises(NetworkError, match="expected one of no networks for detection"):
        open_network("one", entries, "detection")
    with pytest.raises(NetworkError, match="--networks"):
        open_network("one", None)
    (tmp_path / "one.onnx").write_bytes(b"junk")
    with pytest.raises(NetworkError, match="cannot load"):
        open_network("one", entries)
    (tmp_path / "one.onnx").unlink()
    with pytest.raises(NetworkError, match="found none"):
        open_network("one", entries)
    entries.write_text("[one]\nfile = 'one.onnx'\ninput = 16\nresize = 8\n")
    with pytest.raises(NetworkError, match="crop <= resize"):
        load_specs(entries)
    entries.write_text("[one]\nfile = 'two.onnx'\ninput = 8\nresize = 8\n")
    with pytest.raises(NetworkError, match="does not run on its own preprocessing"):
        open_network("one", entries)


@pytest.mark.parametrize(("output", "last"), [("logits", "Identity"), ("probabilities", "Softmax")])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_background_probabilities_and_temperature_are_understood(
    tmp_path: Path, output: str, last: str, temperature: float
) -> None:
    # Background e^9, then classes e^0, e^2, e^1: class 1 wins once the background is dropped.
    scores = np.array([9.0, 0.0, 2.0, 1.0])
    (tmp_path / "net.onnx").write_bytes(pooled_network(np.zeros((3, 4)), scores, 16, last=last))
    (tmp_path / "networks.toml").write_text(
        '[net]\nfile = "net.onnx"\ninput = 16\nresize = 16\nbackground = true\n'
        f'output = "{output}"\n'
    )
    network = open_network("net", tmp_path / "networks.toml", temperature=temperature)
    assert isinstance(network, Classifier)
    assert network.classes == 3
    e = np.exp(np.array([0.0, 2.0, 1.0]) / temperature)
    for row in classify(network, draw(20, 20), draw(30, 20)):
        assert row == pytest.approx(e / e.sum(), rel=1e-4)


def test_a_misspelt_entry_is_refused(tmp_path: Path) -> None:
    (tmp_path / "n.toml").write_text(
        '[net]\nfile = "n.onnx"\ninput = 16\nresize = 16\nbackgroud = true\n'
    )
    with pytest.raises(NetworkError, match="backgroud"):
        load_specs(tmp_path / "n.toml")


def test_a_device_that_gives_way_to_the_cpu_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ONNX Runtime's GPU package does where there is no GPU."""
    save_colour_network(tmp_path / "net.onnx")
    opened = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime, "InferenceSession",
        lambda model, options, providers: opened(model, options, providers[-1:]),
    )  # fmt: skip
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    with pytest.raises(NetworkError, match="by CUDAExecutionProvider, it runs by CPUExec"):
        open_session(tmp_path / "net.onnx", providers=wanted)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(wanted))
    write_entries(tmp_path, ["net"])
    assert open_network("net", tmp_path / "networks.toml").name == "net"  # labelling goes on


def test_softmax_by_hand() -> None:
    result = softmax(np.array([[0.0, np.log(3.0)], [1000.0, 1000.0]]))
    assert result[0].tolist() == pytest.approx([0.25, 0.75])
    assert result[1].tolist() == [0.5, 0.5]
    assert softmax(np.array([[0.0, np.log(9.0)]]), 2.0)[0].tolist() == pytest.approx([0.25, 0.75])


def test_networks_of_one_geometry_share_their_crops(entries: Path) -> None:
    images = ImageBatch([draw(40, 30)])
    first, second = (open_network(name, entries) for name in ("one", "two"))
    specs = load_specs(entries)
    assert images.crops(specs["one"].preprocess) is images.crops(specs["two"].preprocess)
    assert isinstance(first, Classifier)
    assert isinstance(second, Classifier)
    assert (first.prepare(images) == second.prepare(images)).all()


def test_an_onnx_detector(tmp_path: Path) -> None:
    network = open_network("watcher", save_detector(tmp_path), "detection")
    assert isinstance(network, Detector)
    assert network.categories == {0: "thing", 1: "other"}
    red, green = detect(network, plain(255, 51), plain(0, 255, width=80))
    # Padding beyond `count` is dropped; yxyx became xyxy, in parts of the image.
    assert red.boxes.tolist() == [[0.25, 0.25, 0.75, 0.75], [0.0, 0.0, pytest.approx(0.4), 0.5]]
    assert red.classes.tolist() == [0, 1]
    assert red.scores.tolist() == pytest.approx([1.0, 0.2])
    assert green.scores.tolist() == pytest.approx([0.0, 1.0])


def test_detector_boxes_in_pixels_and_class_offsets(tmp_path: Path) -> None:
    path = save_detector(tmp_path, "a", box_unit='"input"', class_offset=1)
    save_detector(tmp_path, "b", box_order='"xyxy"')
    in_pixels, offset = (open_network(name, path, "detection") for name in ("a", "b"))
    assert detect(in_pixels, plain(255))[0].boxes[0].tolist() == [0.25 / 32] * 2 + [0.75 / 32] * 2
    assert detect(in_pixels, plain(255))[0].classes.tolist() == [1, 2]
    assert detect(offset, plain(255))[0].boxes[1].tolist() == [0, 0, 0.5, pytest.approx(0.4)]


def test_a_detector_without_its_outputs_is_refused(tmp_path: Path) -> None:
    path = save_detector(tmp_path)
    text = path.read_text()
    path.write_text(text.replace('boxes = "boxes"', 'boxes = "bboxes"'))
    with pytest.raises(NetworkError, match=r"expected the outputs \['bboxes'\], it has boxes"):
        open_network("watcher", path, "detection")
    path.write_text(text.replace('scores = "scores", ', ""))
    with pytest.raises(NetworkError, match="is not a detection entry"):
        load_detector_specs(path)


def test_coco_is_the_default_of_a_detectors_classes(tmp_path: Path) -> None:
    path = save_detector(tmp_path)
    path.write_text(path.read_text().replace('categories = ["thing", "other"]\n', ""))
    network = open_network("watcher", path, "detection")
    assert isinstance(network, Detector)
    assert len(network.categories) == 80
    assert (network.categories[1], network.categories[90]) == ("person", "toothbrush")


def test_ground_truth_must_fit_the_networks(entries: Path, tmp_path: Path) -> None:
    one = open_network("one", entries)
    rows = (Truth("red.png", true_class=0), Truth("far.png", true_class=7))
    with pytest.raises(TableError, match=r"far.png: expected a class index in 0\.\.2 for one"):
        check_fit(GroundTruth(rows, {}, None), [facts_of(one)])
    save_colour_network(tmp_path / "two.onnx", classes=4)
    two = open_network("two", entries)
    with pytest.raises(NetworkError, match="same classes, got one 3, two 4; is `background`"):
        check_fit(GroundTruth(rows[:1], {}, None), [facts_of(one), facts_of(two)])
    watcher = open_network("watcher", save_detector(tmp_path), "detection")
    with pytest.raises(NetworkError, match=r"watcher: expected to know every category.*zebra"):
        check_fit(GroundTruth((), {1: "thing", 2: "zebra"}, None), [facts_of(watcher)])
    check_fit(GroundTruth((), {5: "thing"}, None), [facts_of(watcher)])


CLASSIFIERS = ["inception_v3", "vgg19", "densenet121", "alexnet", "resnext50_32x4d",
               "efficientnet_b7"]  # fmt: skip
DETECTORS = ["fasterrcnn_resnet50_fpn", "ssd300_vgg16", "ssdlite320_mobilenet_v3_large",
             "maskrcnn_resnet50_fpn", "retinanet_resnet50_fpn",
             "fasterrcnn_mobilenet_v3_large_fpn"]  # fmt: skip


def cache_state(name: str, weights: str, home: Path) -> Path:
    """The true architecture's state dict under the name that torch's hub cache gives it."""
    import torch
    import torchvision

    entry = torchvision.models.get_model_weights(name)[weights]
    cached = home / "hub" / "checkpoints" / Path(entry.url).name
    cached.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    options = {"weights_backbone": None} if name in DETECTORS else {}
    if name == "inception_v3":
        options = {"init_weights": False}  # its own initialisation takes half a minute
    torch.save(torchvision.models.get_model(name, weights=None, **options).state_dict(), cached)
    return cached


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_papers_classifiers_load_from_the_cache(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = cache_state(name, "IMAGENET1K_V1", tmp_path)
    network = open_network(f"torchvision:{name}", None)
    assert isinstance(network, Classifier)
    assert network.name == f"torchvision:{name}:IMAGENET1K_V1"
    assert network.classes == 1000
    assert network.digest == digest_bytes(cached.read_bytes())
    probabilities = classify(network, draw(), draw(64, 300))
    assert probabilities.shape == (2, 1000)
    assert probabilities.sum(axis=1) == pytest.approx([1, 1])
    cached.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("name", DETECTORS)
def test_the_papers_detectors_load_from_the_cache(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = cache_state(name, "COCO_V1", tmp_path)
    network = open_network(f"torchvision:{name}", None, "detection")
    assert isinstance(network, Detector)
    assert network.name == f"torchvision:{name}:COCO_V1"
    assert network.digest == digest_bytes(cached.read_bytes())
    assert network.categories[3] == "car"
    (found,) = detect(network, draw(160, 120))
    assert found.boxes.shape == (len(found.scores), 4)
    assert len(found.classes) == len(found.scores)
    assert np.isfinite(found.boxes).all()
    cached.unlink()


def test_wrong_torchvision_networks_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(NetworkError, match="no network 'squeezenet9' for classification"):
        open_network("torchvision:squeezenet9", None)
    with pytest.raises(NetworkError, match="no network 'vgg19' for detection"):
        open_network("torchvision:vgg19", None, "detection")
    with pytest.raises(NetworkError, match="expected weights IMAGENET1K_V1, got 'V9'"):
        open_network("torchvision:squeezenet1_1:V9", None)
    cached = cache_state("squeezenet1_1", "IMAGENET1K_V1", tmp_path)
    cached.write_bytes(b"half a download")
    with pytest.raises(NetworkError, match="does not hold the weights IMAGENET1K_V1"):
        open_network("torchvision:squeezenet1_1", None)


def test_torchvision_detections_are_in_parts_of_the_image() -> None:
    import torch

    from labelers.torchvision_networks import _to_detections

    raw = {
        "boxes": torch.tensor([[10.0, 5.0, 30.0, 20.0]]),
        "scores": torch.tensor([0.75]),
        "labels": torch.tensor([3]),
    }
    found = _to_detections(raw, torch.zeros(3, 20, 40))
    assert found.boxes.tolist() == [[0.25, 0.25, 0.75, 1.0]]
    assert (found.scores.tolist(), found.classes.tolist()) == ([0.75], [3])


@pytest.mark.parametrize("scores", [[5.0, -3.0, -1.0], [0.5, 0.2, 0.1]])
def test_what_is_no_probability_distribution_is_refused(
    tmp_path: Path, scores: list[float]
) -> None:
    (tmp_path / "net.onnx").write_bytes(pooled_network(np.zeros((3, 3)), np.array(scores), 16))
    path = write_entries(tmp_path, ["net"])
    with path.open("a") as file:
        file.write('output = "probabilities"\n')
    with pytest.raises(NetworkError, match=r'expected probabilities that sum to 1.*"logits"\?'):
        open_network("net", path)


@pytest.mark.slow
def test_torchvision_sums_do_not_depend_on_the_number_of_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cache_state("mobilenet_v2", "IMAGENET1K_V1", tmp_path)
    torch.set_num_threads(2)  # as in a process that labels alone
    alone = classify(open_network("torchvision:mobilenet_v2", None), draw(), draw(seed=1))
    torch.set_num_threads(1)  # as in one of many
    one_of_many = classify(open_network("torchvision:mobilenet_v2", None), draw(), draw(seed=1))
    assert (alone == one_of_many).all()


def test_networks_for_one_image_at_a_time_are_run_one_by_one(tmp_path: Path) -> None:
    import onnx

    save_colour_network(tmp_path / "one.onnx")
    model = onnx.load(str(tmp_path / "one.onnx"))
    for size in (1, 4):
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = size
        model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = size
        onnx.save(model, str(tmp_path / f"by{size}.onnx"))
    path = write_entries(tmp_path, ["one", "by1", "by4"])
    images = [plain(255), plain(0, 255), plain(90, 80)]
    expected = classify(open_network("one", path), *images)
    assert (classify(open_network("by1", path), *images) == expected).all()
    with pytest.raises(NetworkError, match="expected a free batch size or 1, got 4"):
        open_network("by4", path)
