"""Training from tables to a checkpoint, small enough for a laptop, with nothing replaced."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.conftest import draw, encode
from tests.networks import save_colour_network
from tests.training import METADATA, SHARES, SOURCES, TINY, label
from utility_gate.degrade import Jpeg, to_json
from utility_gate.errors import CheckpointError, ConfigError, NetworkError, TableError
from utility_gate.files import digest_bytes
from utility_gate.images import decode
from utility_gate.networks import load_specs
from utility_gate.predictor import UtilityPredictor
from utility_gate.sides import Shares, count_labels, load_sides, side_of, target_of
from utility_gate.split import split_of
from utility_gate.tables import (
    read_labels,
    write_labels,
)
from utility_gate.training.calibrate import fit_temperature
from utility_gate.training.config import load_config
from utility_gate.training.dataset import predictor_preprocess
from utility_gate.training.distill import DegradedCrops, DistillConfig, Teacher, distill
from utility_gate.training.fit import build_net
from utility_gate.training.module import Trunk, UtilityNet
from utility_gate.training.origin import describe_init, photographs_of, short_digest
from utility_gate.training.photos import build_cache
from utility_gate.training.train import train


@pytest.fixture(scope="module")
def trained(tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "predictor"
    photo = tables / "0.png"
    train(
        load_config("finetune", **TINY), [tables / "labels.parquet"], tables, out,
        name="tiny", release="9", conformance_photos=(photo,),
        intended_use="tests", limits=("drawn scenes alone",),
    )  # fmt: skip
    return out


def test_a_trained_predictor_serves_without_torch_and_says_where_it_came_from(
    trained: Path, tables: Path
) -> None:
    predictor = UtilityPredictor.load(trained)  # repeats the conformance vectors
    card = predictor.card
    assert (card.name, card.version, card.task) == ("tiny", "9", "general")
    assert (card.intended_use, card.limits) == ("tests", ("drawn scenes alone",))
    assert card.training["config"]["optimizer"] == "adamw"
    digest = digest_bytes((tables / "labels.parquet").read_bytes())
    assert card.training["labels"] == [{"sha256": digest, **METADATA}]
    assert sum(side["sources"] for side in card.training["copies"].values()) == SOURCES
    assert len(card.conformance) == 6
    assert 0.05 <= card.temperature <= 20
    image = predictor.decode(Jpeg(50).apply(draw(96, 72)))
    assert 0 <= predictor.judge(image, predictor.crop(image)) <= 1
    assert (trained / "model.safetensors").exists()


def test_the_export_tells_nothing_of_the_machine_that_made_it(trained: Path) -> None:
    data = (trained / "model.onnx").read_bytes()
    for trace in (b".py", b"stack_trace", str(Path(__file__).parents[2]).encode()):
        assert trace not in data


def test_the_export_computes_what_the_safetensors_do(trained: Path) -> None:
    from safetensors.torch import load_file

    net = UtilityNet(dropout=0.2).eval()
    net.load_state_dict(load_file(trained / "model.safetensors"))
    predictor = UtilityPredictor.load(trained)
    crops = np.stack([predictor.crop(decode(encode(draw(80, 80, s), "PNG"))) for s in range(3)])
    images = torch.from_numpy(predictor.card.preprocess.normalize(crops))
    with torch.inference_mode():
        expected = (net(images) / predictor.card.temperature).softmax(1)[:, 1].numpy()
    assert predictor.predict(crops) == pytest.approx(expected, abs=0.01)


def test_a_head_can_be_trained_on_a_frozen_mobilenet(tables: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    config = load_config("embedded", **(TINY | {"views": 1, "weight_decay": 1.0}))
    start = build_net(config).trunk.state_dict()
    out = tmp_path / "predictor"
    train(config, [tables / "labels.parquet"], tables, out, name="frozen", release="1")
    trained = load_file(out / "model.safetensors")
    assert all(torch.equal(trained[f"trunk.{name}"], value) for name, value in start.items())
    assert "head.2.weight" in trained
    assert UtilityPredictor.load(out).card.training["config"]["arch"] == "mobilenet_v2"


def test_an_existing_predictor_is_not_overwritten(trained: Path, tables: Path) -> None:
    with pytest.raises(ConfigError, match="holds a predictor already"):
        train(
            load_config("best"), [tables / "labels.parquet"], tables, trained, name="x", release="1"
        )


def test_no_source_is_on_two_sides_and_test_copies_are_unanimous(tables: Path) -> None:
    sides = load_sides([tables / "labels.parquet"], tables, "votes", SHARES)
    sources = [
        {copy.label.source for copy in side} for side in (sides.train, sides.validation, sides.test)
    ]
    assert not (sources[0] & sources[1])
    assert not (sources[0] & sources[2])
    assert not (sources[1] & sources[2])
    assert sum(map(len, sources)) == SOURCES
    assert {copy.label.label for copy in sides.train} == {0, 1, None}
    assert {copy.label.label for copy in sides.test + sides.validation} == {0, 1}


def test_further_tables_add_to_training_alone(tables: Path, tmp_path: Path) -> None:
    rows = read_labels(tables / "labels.parquet")
    more = [dataclasses.replace(row, label=0) for row in rows if row.quality == 90]
    for row in rows[::3]:
        pixels = decode((tables / row.source).read_bytes()).pixels
        digest = digest_bytes(Jpeg(7).apply(pixels))
        more.append(
            dataclasses.replace(
                row, quality=7, parameters=to_json(Jpeg(7)), label=0, image_digest=digest
            )
        )
    write_labels(more, tmp_path / "more.parquet", METADATA)
    one = load_sides([tables / "labels.parquet"], tables, "unanimous", SHARES)
    both = [tables / "labels.parquet", tmp_path / "more.parquet"]
    two = load_sides(both, tables, "unanimous", SHARES)
    assert (two.validation, two.test) == (one.validation, one.test)
    assert len(two.train) == len(one.train) * 3 // 2
    # A copy in both tables keeps the label of the first.
    assert {c.label.label for c in two.train if c.label.quality == 90} == {1}
    write_labels(more, tmp_path / "more.parquet", METADATA | {"rule": {"t_high": 0.5}})
    with pytest.raises(TableError, match=r"expected labels made as in .*rule.t_high: 0.9 -> 0.5"):
        load_sides(both, tables, "unanimous", SHARES)
    write_labels(more, tmp_path / "more.parquet", METADATA | {"voters": ["x"]})
    with pytest.raises(TableError, match=r"voters: \['x', 'y'\] -> \['x'\]"):
        load_sides(both, tables, "unanimous", SHARES)
    # What a later version records beside is no disagreement.
    write_labels(more, tmp_path / "more.parquet", METADATA | {"test_fraction": 0.2})
    assert len(load_sides(both, tables, "unanimous", SHARES).train) == len(two.train)
    # A threshold on a probability means what the temperature makes of it.
    warm = METADATA | {"config": {"temperature": {"x": 3.0}}}
    write_labels(more, tmp_path / "more.parquet", warm)
    with pytest.raises(TableError, match=r"temperature.x: 1.0 -> 3.0"):
        load_sides(both, tables, "unanimous", SHARES)
    # Also of another task: what one table holds out the other would teach.
    for task in ("classification", "detection"):
        other = METADATA | {"test_fraction": 0.4, "task": task}
        write_labels(more, tmp_path / "more.parquet", other)
        with pytest.raises(TableError, match=r"one test_fraction, got 0.2 in .*, 0.4 in .*more"):
            load_sides(both, tables, "unanimous", SHARES)


def test_changed_sources_and_other_encoders_are_refused(tables: Path, tmp_path: Path) -> None:
    for file in tables.glob("*.png"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "3.png").write_bytes(encode(draw(96, 72, seed=99), "PNG"))
    with pytest.raises(TableError, match="is not the image that was labelled"):
        load_sides([tables / "labels.parquet"], tmp_path, "votes", SHARES)
    (tmp_path / "3.png").unlink()
    with pytest.raises(TableError, match=r"3\.png: expected this source"):
        load_sides([tables / "labels.parquet"], tmp_path, "votes", SHARES)
    data = (tables / "0.png").read_bytes()
    strange = label(source="0.png", source_digest=digest_bytes(data), label=1)
    write_labels([strange], tmp_path / "labels.parquet", {})
    with pytest.raises(TableError, match="this Pillow encodes other bytes"):
        load_sides([tmp_path / "labels.parquet"], tables, "votes", SHARES)


def test_one_class_alone_cannot_be_trained_on(tables: Path, tmp_path: Path) -> None:
    useful = [row for row in read_labels(tables / "labels.parquet") if row.label == 1]
    write_labels(useful, tmp_path / "labels.parquet", {})
    with pytest.raises(TableError, match="expected useful and non-useful copies on the train side"):
        load_sides([tmp_path / "labels.parquet"], tables, "unanimous", SHARES)


@pytest.mark.parametrize(
    ("changes", "unanimous", "votes", "eq2"),
    [
        ({"label": 1, "useful_votes": 3, "utility": 0.8}, 1.0, 1.0, 1.0),
        ({"label": 0, "non_useful_votes": 3, "utility": 0.2}, 0.0, 0.0, 0.0),
        ({"useful_votes": 2, "utility": 0.7}, None, 0.5 + 2 / 6, 0.7),
        ({"non_useful_votes": 1, "utility": -0.2}, None, 0.5 - 1 / 6, 0.0),
        ({"useful_votes": 1, "non_useful_votes": 1, "utility": 1.5}, None, 0.5, 1.0),
        ({"useful_votes": 1}, None, 0.5 + 1 / 6, None),
        ({}, None, None, None),
    ],
)
def test_targets(
    changes: dict[str, int], unanimous: float | None, votes: float | None, eq2: float | None
) -> None:
    assert target_of(label(**changes), "unanimous") == unanimous
    assert target_of(label(**changes), "votes") == votes
    assert target_of(label(**changes), "eq2") == eq2


def test_classifiers_and_detectors_may_be_mixed(tables: Path, tmp_path: Path) -> None:
    rows = read_labels(tables / "labels.parquet")
    flipped = [
        dataclasses.replace(row, label=None if row.label is None else 1 - row.label) for row in rows
    ]
    other = {"voters": ["d"], "networks": {"d": 3}, "rule": {"score": 0.5}, "task": "detection"}
    write_labels(flipped, tmp_path / "boxes.parquet", other)
    first = tables / "labels.parquet"
    one = load_sides([first], tables, "unanimous", SHARES)
    both = load_sides([first, tmp_path / "boxes.parquet"], tables, "unanimous", SHARES)
    for side in ("train", "validation", "test"):
        assert len(both.of(side)) == 2 * len(one.of(side))  # type: ignore[arg-type]
    labels = {(c.label.image_digest, c.task): c.label.label for c in both.test}
    for digest, task in labels:
        if task == "detection":
            assert labels[digest, task] == 1 - (labels[digest, "classification"] or 0)
    counts = count_labels([first, tmp_path / "boxes.parquet"], SHARES)
    assert counts["test"]["useful"] == len(one.test)


def test_calibration_sources_are_apart_from_all_others(tables: Path) -> None:
    shares = Shares(validation=0.3, calibration=0.3)
    rows = read_labels(tables / "labels.parquet")
    sides = {row.source: side_of(row, shares) for row in rows}
    assert set(sides.values()) == {"train", "validation", "calibration", "test"}
    without = {row.source: side_of(row, SHARES) for row in rows}
    for source, side in sides.items():
        assert without[source] == ("train" if side == "calibration" else side)
    loaded = load_sides([tables / "labels.parquet"], tables, "votes", shares, only=("calibration",))
    assert {copy.label.source for copy in loaded.calibration} <= {
        source for source, side in sides.items() if side == "calibration"
    }
    assert (loaded.train, loaded.validation, loaded.test) == ([], [], [])


def test_presets_and_mistakes() -> None:
    paper = load_config("paper")
    assert (paper.optimizer, paper.learning_rate, paper.targets) == ("sgd", 1e-4, "unanimous")
    assert load_config("finetune", epochs=3, seed=None).epochs == 3
    best, embedded = load_config("best"), load_config("embedded")
    assert best.model_copy(update={"arch": "mobilenet_v2"}) == embedded
    own = {"init": embedded.init, "fit": embedded.fit}
    assert load_config("pipeline").model_copy(update=own) == embedded
    with pytest.raises(ConfigError, match=r"a preset \(best, embedded, finetune"):
        load_config("worst")
    with pytest.raises(ConfigError, match="epochs"):
        load_config("best", epochs=0)
    with pytest.raises(ConfigError, match="scale_to >= side"):
        load_config("best", side=512)


def test_temperature_undoes_overconfidence() -> None:
    generator = torch.Generator().manual_seed(0)
    margin = torch.randn(4000, generator=generator) * 2
    labels = (torch.rand(4000, generator=generator) < margin.sigmoid()).long()
    logits = torch.stack([torch.zeros(4000), margin], 1)
    assert fit_temperature(logits * 5, labels) == pytest.approx(5, rel=0.15)
    assert fit_temperature(logits, labels) == pytest.approx(1, rel=0.15)


def test_the_trunk_starts_as_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    trunk = Trunk()
    save_file(trunk.state_dict(), tmp_path / "trunk.safetensors")
    net = UtilityNet()
    net.initialize(str(tmp_path / "trunk.safetensors"))
    assert torch.equal(net.trunk.net.conv1.weight, trunk.net.conv1.weight)
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="expected a trunk of this network"):
        net.initialize(str(tmp_path / "other.safetensors"))
    with pytest.raises(CheckpointError, match="expected init"):
        net.initialize("IMAGENET9")
    # One that knows other classes, and a head that does not ask them.
    taught = Trunk("mobilenet_v2", ("confidence",))
    taught.net.classifier[1] = torch.nn.Linear(1280, 7)
    save_file(taught.state_dict(), tmp_path / "taught.safetensors")
    for features, classes in ((("confidence", "pooled"), 7), (("pooled",), None)):
        other = UtilityNet("mobilenet_v2", features)
        other.initialize(str(tmp_path / "taught.safetensors"))
        assert torch.equal(other.trunk.net.features[0][0].weight, taught.net.features[0][0].weight)
        assert other.trunk.sizes()["pooled"] == 1280
        if classes:
            assert torch.equal(
                other.trunk.net.classifier[1].weight, taught.net.classifier[1].weight
            )

    # torchvision's own weights, from its cache.
    import torchvision

    state = torchvision.models.resnet18().state_dict()
    weights = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    monkeypatch.setattr(type(weights), "get_state_dict", lambda self, **_: state)
    net.initialize("IMAGENET1K_V1")
    assert torch.equal(net.trunk.net.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])


def test_a_trunk_can_be_distilled(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"{number}.png").write_bytes(encode(draw(90, 70, seed=number), "PNG"))
    (tmp_path / "broken.png").write_bytes(b"junk")
    save_colour_network(tmp_path / "net.onnx")
    (tmp_path / "n.toml").write_text('[net]\nfile = "net.onnx"\ninput = 16\nresize = 16\n')
    spec = load_specs(tmp_path / "n.toml")["net"]
    config = DistillConfig(
        photos=(tmp_path,), cache=tmp_path / "cache", out=tmp_path / "runs" / "trunk.safetensors",
        samples=8, batch_size=4, side=32, workers=0, threads=1,
    )  # fmt: skip
    net = UtilityNet()
    before = net.trunk.net.conv1.weight.clone()
    net.initialize(str(distill(config, spec)))
    assert not torch.equal(net.trunk.net.conv1.weight, before)

    made_from = describe_init(str(config.out))
    assert made_from["teacher_sha256"] == digest_bytes((tmp_path / "net.onnx").read_bytes())
    assert made_from["samples"] == "8"
    with pytest.raises(ConfigError, match="exists already"):
        distill(config, spec)
    with pytest.raises(ConfigError, match="at least 4 samples"):
        distill(dataclasses.replace(config, out=tmp_path / "x", samples=3), spec)

    cache = build_cache([tmp_path], tmp_path / "cache", side=256)
    held_out = [digest_bytes((tmp_path / f"{n}.png").read_bytes()) for n in range(12)]
    assert set(cache.digests) == {d for d in held_out if split_of(d) == "train"}
    assert photographs_of(str(config.out)) == {short_digest(d) for d in cache.digests}
    assert cache.pixels.shape[1:] == (256, 256, 3)
    crops = DegradedCrops(cache, 16, 5, seed=3)
    assert crops[0].shape == (16, 16, 3)
    assert torch.equal(crops[1], DegradedCrops(cache, 16, 5, seed=3)[1])
    features, logits = Teacher(spec, 1)(np.stack([crops[0].numpy(), crops[1].numpy()]))
    assert features.shape == (2, 3, 16, 16)
    assert logits.shape == (2, 3)


def test_distilling_without_photographs_or_features_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="found none"):
        build_cache([tmp_path], tmp_path / "cache")
    import onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )  # fmt: skip
    onnx.save(helper.make_model(graph), str(tmp_path / "net.onnx"))
    (tmp_path / "n.toml").write_text('[net]\nfile = "net.onnx"\ninput = 16\nresize = 16\n')
    with pytest.raises(NetworkError, match="pooling"):
        Teacher(load_specs(tmp_path / "n.toml")["net"], 1)


def test_the_predictors_preprocessing_is_the_trained_one(trained: Path) -> None:
    card = UtilityPredictor.load(trained).card
    assert card.preprocess == predictor_preprocess(48)
    assert dataclasses.is_dataclass(card.preprocess)
