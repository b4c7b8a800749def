"""Labelling from files to tables, with tiny networks that are really run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest
from onnx import TensorProto, helper, numpy_helper

from labelers.networks import open_network, softmax
from labelers.run import LabelConfig, run
from labelers.truth import read_truth
from tests.conftest import draw, encode
from utility_gate.errors import ConfigError, NetworkError, TableError
from utility_gate.images import encode_jpeg
from utility_gate.networks import load_specs
from utility_gate.split import digest_bytes
from utility_gate.tables import read_labels, read_metadata, read_observations


def save_colour_network(path: Path, sharpness: float = 1.0, classes: int = 3) -> None:
    """Class 0, 1, 2: the image is mostly red, green, blue."""
    weight = np.zeros((3, classes), np.float32)
    weight[:, :3] = np.eye(3) * sharpness
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("MatMul", ["flat", "w"], ["logits"]),
        ],
        "colour",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, 16, 16])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", classes])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, str(path))


@pytest.fixture
def job(tmp_path: Path) -> LabelConfig:
    """Three plain images, one with a wrong truth, one that is no image; two networks."""
    images = tmp_path / "images"
    images.mkdir()
    for name, colour in (("red", (220, 20, 20)), ("green", (20, 220, 20)), ("blue", (20, 20, 220))):
        pixels = np.full((40, 60, 3), colour, np.uint8)
        (images / f"{name}.png").write_bytes(encode(pixels, "PNG"))
    (images / "broken.png").write_bytes(b"not an image")
    (tmp_path / "truth.csv").write_text(
        "path,class_index,name\nred.png,0,r\ngreen.png,1,g\nblue.png,0,wrong\n"
        "broken.png,0,b\nmissing.png,1,m\n"
    )
    for name in ("one", "two", "onlooker"):
        save_colour_network(tmp_path / f"{name}.onnx", sharpness=0.1 if name == "one" else 0.08)
    (tmp_path / "networks.toml").write_text(
        "".join(
            f'[{name}]\nfile = "{name}.onnx"\ninput = 16\nresize = 16\n'
            for name in ("one", "two", "onlooker")
        )
        + '[a_detector]\nfile = "d.onnx"\ntask = "detection"\n'
    )
    return LabelConfig(
        images=images,
        truth=tmp_path / "truth.csv",
        out=tmp_path / "out",
        networks=("one", "two"),
        observe_only=("onlooker",),
        networks_file=tmp_path / "networks.toml",
        qualities=(90, 30, 5),
        workers=2,
    )


def test_a_job_makes_both_tables(job: LabelConfig) -> None:
    calls: list[tuple[int, int]] = []
    result = run(job, lambda done, total: calls.append((done, total)))
    assert calls[-1] == (5, 5)
    assert [name for name, _ in result.skipped] == ["broken.png", "missing.png"]
    observations = read_observations(job.out / "observations.parquet")
    # 3 readable images x (pristine + 3 qualities) x 3 networks
    assert len(observations) == 36 == result.observations
    labels = read_labels(job.out / "labels.parquet")
    assert len(labels) == 9
    by_source = {label.source: label.label for label in labels}
    assert by_source == {"red.png": 1, "green.png": 1, "blue.png": None}
    assert {label.networks for label in labels} == {2}
    assert "missing.png" in (job.out / "skipped.csv").read_text()


def test_observations_hold_what_the_networks_said(job: LabelConfig) -> None:
    run(job)
    rows = read_observations(job.out / "observations.parquet")
    red = next(r for r in rows if r.source == "red.png" and r.network == "one" and r.quality == 30)
    assert red.predicted_class == red.true_class == 0
    assert red.ccsp == red.top1 > 0.99
    pixels = np.full((40, 60, 3), (220, 20, 20), np.uint8)
    assert red.image_digest == digest_bytes(encode_jpeg(pixels, 30))
    assert red.source_digest == digest_bytes((job.images / "red.png").read_bytes())
    blue = next(r for r in rows if r.source == "blue.png" and r.quality is None)
    assert not blue.correct
    assert blue.predicted_class == 2
    assert blue.ccsp < 0.01


def test_the_tables_say_how_they_were_made(job: LabelConfig) -> None:
    run(job)
    metadata = read_metadata(job.out / "labels.parquet")
    assert metadata["voters"] == ["one", "two"]
    assert metadata["rule"] == {"name": "ccsp", "t_high": 0.9, "t_low": 0.1}
    assert metadata["networks"]["two"]["resize"] == 16
    assert metadata["truth_sha256"] == digest_bytes(job.truth.read_bytes())
    assert metadata["networks"]["one"]["sha256"] == digest_bytes(
        (job.images.parent / "one.onnx").read_bytes()
    )
    assert {"pillow", "onnxruntime"} <= set(metadata["packages"])


def test_the_same_job_gives_the_same_bytes(job: LabelConfig) -> None:
    run(job)
    first = {path.name: path.read_bytes() for path in job.out.iterdir()}
    run(job)
    assert {path.name: path.read_bytes() for path in job.out.iterdir()} == first


def test_a_truth_class_beyond_the_networks_stops_the_run(job: LabelConfig) -> None:
    job.truth.write_text("path,class_index\nred.png,7\n")
    calls: list[int] = []
    with pytest.raises(TableError, match=r"class index in 0\.\.2 for one, got 7"):
        run(job, lambda done, _: calls.append(done))
    assert not calls, "it should be found before the first image"


def test_a_folder_that_cannot_be_written_is_found_before_the_first_image(job: LabelConfig) -> None:
    job.out.write_text("a file where the folder should be")
    with pytest.raises(TableError, match="a folder that can be written"):
        run(job)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na.jpg,1\n", "missing.*class_index"),
        ("path,class_index\na.jpg,cat\n", "line 2: expected an integer class_index, got 'cat'"),
        ("path,class_index\na.jpg,1\na.jpg,2\n", "found twice"),
        ("path,class_index\n", "found none"),
    ],
)
def test_wrong_truth_tables_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "truth.csv").write_text(text)
    with pytest.raises(TableError, match=message):
        read_truth(tmp_path / "truth.csv")
    with pytest.raises(TableError, match="ground truth"):
        read_truth(tmp_path / "absent.csv")


def test_wrong_networks_are_named(job: LabelConfig, tmp_path: Path) -> None:
    specs = job.networks_file
    assert specs is not None
    with pytest.raises(NetworkError, match="expected one of one, two, onlooker, got 'three'"):
        open_network("three", specs)
    with pytest.raises(NetworkError, match="--networks"):
        open_network("one", None)
    (tmp_path / "one.onnx").write_bytes(b"junk")
    with pytest.raises(NetworkError, match="cannot load"):
        open_network("one", specs)
    (tmp_path / "one.onnx").unlink()
    with pytest.raises(NetworkError, match="found none"):
        open_network("one", specs)
    specs.write_text("[one]\nfile = 'one.onnx'\ninput = 16\nresize = 8\n")
    with pytest.raises(NetworkError, match="crop <= resize"):
        load_specs(specs)
    specs.write_text("[one]\nfile = 'two.onnx'\ninput = 8\nresize = 8\n")
    with pytest.raises(NetworkError, match="does not run on its own preprocessing"):
        open_network("one", specs)


def save_constant_network(path: Path, scores: list[float], last: str) -> None:
    """Ends in `last` (Identity or Softmax) of the same scores, whatever the image."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["scores"]),
        helper.make_node(last, ["scores"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "constant",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, 16, 16])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", len(scores)])],
        [
            numpy_helper.from_array(np.zeros((3, len(scores)), np.float32), "w"),
            numpy_helper.from_array(np.array(scores, np.float32), "b"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, str(path))


@pytest.mark.parametrize(("output", "last"), [("logits", "Identity"), ("probabilities", "Softmax")])
def test_background_and_probabilities_are_understood(
    tmp_path: Path, output: str, last: str
) -> None:
    # Background e^9, then classes e^0, e^2, e^1: class 1 wins once the background is dropped.
    save_constant_network(tmp_path / "net.onnx", [9.0, 0.0, 2.0, 1.0], last)
    (tmp_path / "networks.toml").write_text(
        '[net]\nfile = "net.onnx"\ninput = 16\nresize = 16\nbackground = true\n'
        f'output = "{output}"\n'
    )
    network = open_network("net", tmp_path / "networks.toml")
    assert network.classes == 3
    e = np.exp([0.0, 2.0, 1.0])
    for row in network.probabilities([draw(20, 20), draw(30, 20)]):
        assert row == pytest.approx(e / e.sum(), rel=1e-4)


def test_a_misspelt_entry_is_refused(tmp_path: Path) -> None:
    (tmp_path / "n.toml").write_text(
        '[net]\nfile = "n.onnx"\ninput = 16\nresize = 16\nbackgroud = true\n'
    )
    with pytest.raises(NetworkError, match="backgroud"):
        load_specs(tmp_path / "n.toml")


def test_softmax_by_hand() -> None:
    result = softmax(np.array([[0.0, np.log(3.0)], [1000.0, 1000.0]]))
    assert result[0].tolist() == pytest.approx([0.25, 0.75])
    assert result[1].tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    "changes",
    [{"networks": ()}, {"networks": ("a", "a")}, {"observe_only": ("one",)}, {"qualities": (0,)},
     {"workers": 0}],
)  # fmt: skip
def test_impossible_jobs_are_refused(job: LabelConfig, changes: dict[str, object]) -> None:
    import dataclasses

    with pytest.raises(ConfigError, match="expected"):
        dataclasses.replace(job, **changes)  # type: ignore[arg-type]


def test_broken_tables_are_named(job: LabelConfig, tmp_path: Path) -> None:
    run(job)
    with pytest.raises(TableError, match="missing"):
        read_labels(job.out / "observations.parquet")
    damaged = tmp_path / "damaged.parquet"
    damaged.write_bytes((job.out / "labels.parquet").read_bytes()[:-20])
    with pytest.raises(TableError, match="expected a Parquet table"):
        read_labels(damaged)
    table = pq.read_table(job.out / "labels.parquet")
    index = table.column_names.index("label")
    import pyarrow as pa

    wrong = table.set_column(index, "label", pa.array([7] * len(table), pa.int8()))
    pq.write_table(wrong, damaged)
    with pytest.raises(TableError, match="impossible value"):
        read_labels(damaged)


def test_torchvision_networks_load_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    import torchvision

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    weights = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1
    cached = tmp_path / "hub" / "checkpoints" / Path(weights.url).name
    cached.parent.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(torchvision.models.squeezenet1_1().state_dict(), cached)
    network = open_network("torchvision:squeezenet1_1", None)
    assert network.name == "torchvision:squeezenet1_1:IMAGENET1K_V1"
    assert network.classes == 1000
    assert network.digest == digest_bytes(cached.read_bytes())
    probabilities = network.probabilities([draw(), draw(64, 300)])
    assert probabilities.shape == (2, 1000)
    assert probabilities.sum(axis=1) == pytest.approx([1, 1])
    with pytest.raises(NetworkError, match="no classifier 'squeezenet9'"):
        open_network("torchvision:squeezenet9", None)
    with pytest.raises(NetworkError, match="V9"):
        open_network("torchvision:squeezenet1_1:V9", None)
