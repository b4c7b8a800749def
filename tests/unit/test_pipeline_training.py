"""The pipelines' networks are trained, small enough for a laptop, with nothing replaced."""

from __future__ import annotations

import copy
import csv
import json
from collections import Counter
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

from cli.main import main
from pipelines import evaluate
from pipelines.boxed import BoxedImage, by_original, read_boxed
from pipelines.car_model import train as car_train
from pipelines.car_model.data import load_job
from pipelines.car_model.pipeline import CarModelPipeline
from pipelines.card import ClassifierCard
from pipelines.classifier import Classifier
from pipelines.damage import train as damage_train
from pipelines.damage.pipeline import DamagePipeline
from pipelines.detector import places
from pipelines.examples import Example, assign_sides, on_side
from pipelines.heads import Head
from pipelines.job import Job
from pipelines.training import backbones, experiments, runs
from pipelines.training import fit as fits
from pipelines.training import train_classifier as classifiers
from pipelines.training import train_detector as detectors
from pipelines.training.backbones import BACKBONES, Trunk
from pipelines.training.config import Recipe, load_recipe
from pipelines.training.dataset import (
    ImageSetDataset,
    augmentation,
    class_sampler,
    classifier_preprocess,
    count_classes,
    decode_all,
    normalize,
    to_targets,
)
from pipelines.training.detector import STRIDES, BoxNet
from pipelines.training.detector_config import DetectorRecipe, load_detector_config
from pipelines.training.detector_fit import (
    CropDataset,
    DetectorModule,
    collate,
    fit_detector,
    load_scaled,
)
from pipelines.training.fit import ClassifierModule, fit, hits
from pipelines.training.losses import UNKNOWN, class_alphas, focal_loss, multi_label_loss
from pipelines.training.network import HeadedNet
from pipelines.training.stored import FIT, WEIGHTS, fit_digest, once
from pipelines.training.train_classifier import mean_accuracy, train_classifier
from pipelines.training.train_detector import train_detector
from tests.labelled import box, picture, save, save_boxes, save_classes, save_table
from utility_gate.checkpoint import load_card
from utility_gate.errors import CheckpointError, ConfigError, TableError
from utility_gate.networks import open_session

CONFIGS = Path(__file__).parents[2] / "configs" / "pipelines"

TINY: dict[str, Any] = {
    "arch": "alexnet", "init": "scratch", "side": 64, "head_epochs": 1, "epochs": 1,
    "learning_rate": 3e-3, "batch_size": 8, "workers": 0, "threads": 1, "precision": "32-true",
    "views": False,
}  # fmt: skip
"""AlexNet is exported in a second, MobileNet-v2 in ten."""

HEADS = (Head("type", ("a", "b", "c")), Head("place", ("front", "rear"), multi_label=True))


def recipe(**changes: Any) -> Recipe:
    return Recipe(**TINY | changes)


def to_toml(**fields: Any) -> str:
    """A TOML table's lines; JSON's values are TOML's too."""
    return "\n".join(f"{name} = {json.dumps(value)}" for name, value in fields.items())


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    """Networks as small as these are slower on several."""
    torch.set_num_threads(1)


# Losses


def logits_of(*rows: tuple[float, ...]) -> Tensor:
    """Logits of which the softmax gives these probabilities."""
    return torch.tensor(rows).log()


def test_focal_loss_is_equation_1_of_seed_004_worked_out_by_hand() -> None:
    logits = logits_of((0.7, 0.2, 0.1), (0.7, 0.2, 0.1))
    alphas = torch.tensor([0.25, 0.75, 2.0])
    # -0.25 (1 - 0.7)^2 ln 0.7 = 0.25 * 0.09 * 0.356675 = 0.008025
    # -0.75 (1 - 0.2)^2 ln 0.2 = 0.75 * 0.64 * 1.609438 = 0.772530
    one = focal_loss(logits[:1], torch.tensor([0]), alphas, 2.0)
    other = focal_loss(logits[:1], torch.tensor([1]), alphas, 2.0)
    both = focal_loss(logits, torch.tensor([0, 1]), alphas, 2.0)
    assert one.item() == pytest.approx(0.008025, abs=1e-6)
    assert other.item() == pytest.approx(0.772530, abs=1e-6)
    assert both.item() == pytest.approx((0.008025 + 0.772530) / 2, abs=1e-6)
    # Without factors: 0.64 * 1.609438.
    assert focal_loss(logits[:1], torch.tensor([1]), None, 2.0).item() == pytest.approx(1.030040)


def test_with_gamma_0_it_is_cross_entropy() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(32, 5), torch.randint(5, (32,))
    expected = nn.functional.cross_entropy(logits, targets)
    torch.testing.assert_close(focal_loss(logits, targets, None, 0.0), expected)
    alphas = torch.rand(5)
    weighted = nn.functional.cross_entropy(logits, targets, alphas, reduction="none").mean()
    torch.testing.assert_close(focal_loss(logits, targets, alphas, 0.0), weighted)


def test_pictures_without_a_label_have_no_say() -> None:
    logits = torch.randn(4, 3, requires_grad=True)
    targets = torch.tensor([0, UNKNOWN, 2, UNKNOWN])
    loss = focal_loss(logits, targets, None, 2.0)
    torch.testing.assert_close(loss, focal_loss(logits[[0, 2]], targets[[0, 2]], None, 2.0))
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[[1, 3]].abs().sum() == 0
    nothing = focal_loss(logits, torch.full((4,), UNKNOWN), None, 2.0)
    nothing.backward()
    assert nothing.item() == 0


def test_class_factors_are_inverse_to_the_counts_and_1_on_average() -> None:
    alphas = class_alphas([60, 30, 10, 0])
    # 100 images, 3 classes: 100 / (3 * 60), 100 / (3 * 30), 100 / (3 * 10).
    torch.testing.assert_close(alphas, torch.tensor([0.555556, 1.111111, 3.333333, 0.0]))
    assert float((alphas * torch.tensor([60, 30, 10, 0])).sum() / 100) == pytest.approx(1)
    assert class_alphas([0, 0]).tolist() == [0, 0]


def test_several_labels_have_binary_cross_entropy() -> None:
    logits = torch.tensor([[0.0, 1.0], [5.0, 5.0], [2.0, -1.0]])
    targets = torch.tensor([[1, 0], [UNKNOWN, UNKNOWN], [1, 0]])
    # ln(1 + e^-z) where true, ln(1 + e^z) where not: 0.693147, 1.313262, 0.126928, 0.313262.
    by_hand = (0.693147 + 1.313262 + 0.126928 + 0.313262) / 4
    assert multi_label_loss(logits, targets).item() == pytest.approx(by_hand, abs=1e-6)
    assert multi_label_loss(logits, torch.full((3, 2), UNKNOWN)).item() == 0


def test_hits_are_by_picture_or_by_picture_and_class() -> None:
    single = hits(torch.eye(3), torch.tensor([0, 2, UNKNOWN]), multi_label=False)
    assert single.tolist() == [1, 0]
    several = hits(
        torch.tensor([[1.0, -1.0], [3.0, 3.0], [-1.0, 1.0]]),
        torch.tensor([[1, 1], [UNKNOWN, UNKNOWN], [0, 1]]),
        multi_label=True,
    )
    assert several.tolist() == [1, 0, 1, 1]


# Pictures


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-four pictures of three types, some with a place."""
    folder = tmp_path_factory.mktemp("pictures")
    save_classes(folder, ("a", "b", "c"), 8)
    return folder


def examples_of(folder: Path, *, places: bool = False) -> list[Example]:
    found = []
    for number, path in enumerate(sorted(folder.rglob("*.png"))):
        labels = {"type": (path.parent.name,)}
        if places:
            labels |= {"place": (("front", "rear"), ("rear",))[number % 2]}
        side = ("train", "train", "train", "train", "train", "train", "validation", "test")
        found.append(Example(path, labels, path.stem, side[number % 8]))  # type: ignore[arg-type]
    return found


def job_of(folder: Path, out: Path, heads: tuple[Head, ...] = HEADS[:1]) -> Job:
    examples = tuple(examples_of(folder, places=len(heads) > 1))
    return Job("shapes", "3", heads, examples, folder, out)


def test_targets_say_what_is_not_known() -> None:
    both = Example(Path("x"), {"type": ("c",), "place": ("rear",)}, "x")
    neither = Example(Path("x"), {}, "x")
    nowhere = Example(Path("x"), {"place": ()}, "x")
    assert {k: v.tolist() for k, v in to_targets(both, HEADS).items()} == {
        "type": 2,
        "place": [0, 1],
    }
    assert {k: v.tolist() for k, v in to_targets(neither, HEADS).items()} == {
        "type": UNKNOWN,
        "place": [UNKNOWN, UNKNOWN],
    }
    assert to_targets(nowhere, HEADS)["place"].tolist() == [0, 0]


def test_a_network_is_validated_on_what_it_will_be_served(tmp_path: Path) -> None:
    path = save(tmp_path / "wide.jpg", picture(3, side=200)[:120], quality=90)
    example = Example(path, {"type": ("a",)}, "x")
    (image, _) = ImageSetDataset([example], HEADS, recipe(), augment=False)[0]
    card = SimpleNamespace(scale_to=64, preprocess=classifier_preprocess(64))
    pixels = Classifier.decode(SimpleNamespace(card=card), path.read_bytes()).pixels  # type: ignore[arg-type]
    np.testing.assert_allclose(image.numpy(), card.preprocess([pixels])[0], atol=1e-5)


def test_augmented_pictures_differ_and_keep_their_place_in_the_range(pictures: Path) -> None:
    data = ImageSetDataset(examples_of(pictures), HEADS, recipe(), augment=True)
    torch.manual_seed(0)
    first, second = data[0][0], data[0][0]
    assert first.shape == second.shape == (3, 64, 64)
    assert first.dtype == torch.float32
    assert not torch.equal(first, second)
    assert first.abs().max() < 3
    assert len(data) == 24
    grey = torch.full((3, 73, 73), 128, dtype=torch.uint8)
    assert augmentation(recipe())(grey).dtype == torch.uint8
    white = normalize(torch.full((3, 2, 2), 255, dtype=torch.uint8))[:, 0, 0]
    expected = [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    torch.testing.assert_close(white, torch.tensor(expected))


def test_what_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    path = tmp_path / "text.png"
    path.write_text("no image")
    for missing in (path, tmp_path / "none.png"):
        with pytest.raises(TableError, match=f"{missing.name}: expected an image"):
            decode_all([Example(missing, {}, "x")], 32)


def test_classes_can_be_drawn_equally_often() -> None:
    examples = [Example(Path("x"), {"type": (name,)}, "x") for name in "a" * 90 + "b" * 10]
    unknown = [Example(Path("x"), {}, "x")] * 20
    assert count_classes([*examples, *unknown], HEADS[0]) == [90, 10, 0]
    sampler = class_sampler([*examples, *unknown], HEADS[0], seed=1)
    drawn = Counter("a" if i < 90 else "b" if i < 100 else "?" for _ in range(40) for i in sampler)
    assert sum(drawn.values()) == 40 * 120
    assert drawn["a"] / drawn["b"] == pytest.approx(1, abs=0.15)
    assert drawn["?"] / drawn["a"] == pytest.approx(
        0.4, abs=0.08
    )  # 20 of the labelled 100: 0.2 * 2
    assert list(class_sampler(examples, HEADS[0], 1)) == list(class_sampler(examples, HEADS[0], 1))


# Networks

CHANNELS = {
    "resnet18": 512, "resnet34": 512, "resnet50": 2048, "vgg16": 512, "vgg19": 512,
    "inception_v3": 2048, "mobilenet_v2": 1280, "mobilenet_v3_large": 960, "alexnet": 256,
}  # fmt: skip


@pytest.mark.parametrize("arch", BACKBONES)
def test_every_backbone_falls_into_two_halves(arch: str) -> None:
    with torch.device("meta"):  # shapes alone: VGG's own end has 120 million weights
        trunk = Trunk(arch)
    assert trunk.channels == CHANNELS[arch]
    early, late = ({id(p) for p in half} for half in trunk.blocks())
    assert early
    assert late
    assert not early & late
    assert early | late == {id(p) for p in trunk.parameters()}
    # The earlier half comes first.
    in_order = [id(p) in late for p in trunk.parameters()]
    assert in_order == sorted(in_order)


@pytest.fixture(scope="module")
def resnet() -> HeadedNet:
    torch.manual_seed(0)
    return HeadedNet("resnet18", HEADS, dropout=0.5)


@pytest.fixture
def net(resnet: HeadedNet) -> HeadedNet:
    """A ResNet-18 with heads, as new."""
    return copy.deepcopy(resnet)


def test_logits_are_the_means_of_their_maps(net: HeadedNet) -> None:
    with torch.inference_mode():
        logits, maps = net.eval()(torch.randn(2, 3, 96, 64))
        pooled = net.trunk(torch.ones(1, 3, 32, 32)).mean((2, 3))
        linear = pooled @ net.classify.weight[:, :, 0, 0].T + net.classify.bias
        torch.testing.assert_close(net(torch.ones(1, 3, 32, 32))[0], linear)
    assert (logits.shape, maps.shape) == ((2, 5), (2, 5, 3, 2))
    torch.testing.assert_close(logits, maps.mean((2, 3)))


def test_logits_are_split_by_head(net: HeadedNet) -> None:
    parts = net.split_logits(torch.arange(10.0).reshape(2, 5))
    assert {name: part.tolist() for name, part in parts.items()} == {
        "type": [[0, 1, 2], [5, 6, 7]],
        "place": [[3, 4], [8, 9]],
    }


def test_dropout_takes_whole_channels_and_only_in_training(net: HeadedNet) -> None:
    images = torch.randn(1, 3, 32, 32)
    net.freeze_trunk()
    net.train()
    assert not torch.equal(net(images)[0], net(images)[0])
    net.eval()
    assert torch.equal(net(images)[0], net(images)[0])
    assert isinstance(net.dropout, nn.Dropout2d)
    assert net.dropout.p == 0.5


def step(net: HeadedNet) -> set[str]:
    """One step in training mode; the names of what it changed."""
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net.train()
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    torch.manual_seed(0)
    nn.functional.cross_entropy(net(torch.randn(4, 3, 32, 32))[0], torch.arange(4)).backward()
    optimizer.step()
    return {n for n, value in net.state_dict().items() if not torch.equal(value, before[n])}


def test_a_frozen_trunk_keeps_weights_and_statistics(net: HeadedNet) -> None:
    net.freeze_trunk()
    assert step(net) == {"classify.weight", "classify.bias"}
    net.freeze_trunk(frozen=False)
    changed = step(net)
    assert {"trunk.net.conv1.weight", "trunk.net.bn1.running_mean"} < changed


def test_a_frozen_earlier_half_keeps_weights_and_statistics(net: HeadedNet) -> None:
    net.trunk.freeze_early()
    changed = step(net)
    halves = {name.split(".")[2] for name in changed if name.startswith("trunk.")}
    assert halves == {"layer3", "layer4"}
    assert {"trunk.net.layer3.0.bn1.running_mean", "trunk.net.layer3.0.conv1.weight"} < changed
    # Also behind a whole freeze that has ended, as in a fit.
    net.freeze_trunk()
    net.freeze_trunk(frozen=False)
    net.trunk.freeze_early()
    assert {name.split(".")[2] for name in step(net) if "trunk" in name} == {"layer3", "layer4"}


def test_a_trunk_starts_from_a_file_of_its_own_kind(net: HeadedNet, tmp_path: Path) -> None:
    path = tmp_path / "trunk.safetensors"
    save_file({k: v.contiguous() for k, v in net.trunk.state_dict().items()}, path)
    other = Trunk("resnet18")
    other.initialize("scratch")
    assert not torch.equal(other.net.conv1.weight, net.trunk.net.conv1.weight)
    other.initialize(str(path))
    assert torch.equal(other.net.conv1.weight, net.trunk.net.conv1.weight)
    with torch.device("meta"):
        stranger = Trunk("alexnet")
    for source in (str(path), str(tmp_path / "none"), "IMAGENET1K_V3"):
        with pytest.raises(CheckpointError, match="expected scratch, IMAGENET1K_V1 or a trunk"):
            stranger.initialize(source)


def test_torchvisions_weights_are_taken_without_their_end(
    net: HeadedNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {n: torch.full_like(v, 2) for n, v in net.trunk.net.state_dict().items()}
    whole = state | {"fc.weight": torch.zeros(2, 2)}
    given: dict[str, Any] = {"state": whole}

    def get_state_dict(**options: Any) -> Any:
        assert options["check_hash"]
        if "error" in given:
            raise given["error"]
        return given["state"]

    source = SimpleNamespace(url="https://weights.invalid/x.pth", get_state_dict=get_state_dict)
    monkeypatch.setattr(backbones, "get_model_weights", lambda arch: {"IMAGENET1K_V1": source})
    net.trunk.initialize("IMAGENET1K_V1")
    assert (net.trunk.net.conv1.weight == 2).all()
    given["error"] = OSError("no network")
    with pytest.raises(CheckpointError, match=r"put https://weights.invalid/x.pth into .*hub"):
        net.trunk.initialize("IMAGENET1K_V1")


# Recipes


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"arch": "resnet19"}, "expected one of resnet18, resnet34"),
        ({"block_rates": [-1, 1]}, "the second above 0"),
        ({"block_rates": [0.1, 0]}, "the second above 0"),
        ({"dropout": 1.0}, "less than 1"),
        ({"schedule": "steps"}, "'onecycle', 'cyclic' or 'plateau'"),
        ({"side": 16}, "greater than or equal to 32"),
        ({"lr": 0.1}, "lr"),
        ({"epochs": 0, "head_epochs": 0}, "expected head_epochs or epochs above 0"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(
    tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("[recipe]\n" + to_toml(**fields))
    with pytest.raises(ConfigError, match=f"recipe.toml: not a recipe: (.|\n)*{message}"):
        load_recipe(path)


@pytest.mark.parametrize("text", ["recipe = 3", "[recipe", "\xff"])
def test_what_is_no_recipe_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"recipe.toml: not a recipe"):
        load_recipe(path)
    with pytest.raises(ConfigError, match=r"none.toml: not a recipe"):
        load_recipe(tmp_path / "none.toml")


def test_a_changed_recipe_is_of_its_own_kind() -> None:
    for one in (recipe(), DetectorRecipe(**DETECTOR)):
        changed = one.with_changes(seed=9, precision="bf16-mixed")
        assert type(changed) is type(one)
        assert changed.model_dump() == one.model_dump() | {"seed": 9, "precision": "bf16-mixed"}
        for wrong in ({"seed": "x"}, {"seeds": 1}, {"precision": "64-true"}, {"workers": -1}):
            with pytest.raises(ConfigError, match="not a recipe"):
                one.with_changes(**wrong)


def test_a_fits_digest_outlives_the_code(pictures: Path) -> None:
    """Fits that are stored already are known again: their digests are of the recipe's fields."""
    with torch.device("meta"):
        net = HeadedNet("alexnet", HEADS[:1])
    digest = fit_digest(net, recipe(), examples_of(pictures)[:1], pictures)
    assert digest == DIGEST
    boxed = BoxedImage(Path("a.jpg"), ((0.0, 1.0, 2.0, 3.0),), ("dent",), "a", "train")
    assert detectors._digest(DetectorRecipe(**DETECTOR), [boxed]) == DETECTOR_DIGEST


def test_options_of_the_command_line_win_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("[recipe]\nepochs = 7\nseed = 5\n")
    loaded = load_recipe(path, epochs=2, seed=None)
    assert (loaded.epochs, loaded.seed) == (2, 5)
    assert loaded.with_changes(dropout=0.4).dropout == 0.4
    with pytest.raises(ConfigError, match="not a recipe"):
        loaded.with_changes(dropout=1.5)


DETECTOR: dict[str, Any] = {
    "init": "scratch", "classes": ["dent", "scratch"],
    "rename": {"minor-dent": "dent", "minor-scratch": "scratch"}, "side": 128, "sides": [128, 64],
    "crop": 96, "epochs": 1, "batch_size": 4, "workers": 0, "threads": 1, "precision": "32-true",
    "frozen": 0,
}  # fmt: skip


DIGEST = "a2b5feaec1ef19857e95067d12ac56cabceeb9b4d058e3ff0fa2399f8e5a413a"
DETECTOR_DIGEST = "deefb77570d1cf56dd0103ee0a2eda3939f02d7c21da7994481f9b193488b20a"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"side": 100}, r"expected multiples of 32, got \[100\]"),
        ({"sides": [640, 90]}, r"expected multiples of 32, got \[90\]"),
        ({"rename": {"a": "hole"}}, r"expected classes of \('dent', 'scratch'\), got \['hole'\]"),
        ({"classes": []}, "classes"),
        ({"frozen": 19}, "less than or equal to 18"),
    ],
)
def test_a_detectors_recipe_that_cannot_be_is_refused(
    tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    changed = DETECTOR | fields
    renamed = to_toml(**changed.pop("rename"))
    path = tmp_path / "damage.toml"
    text = f"[detector]\n{to_toml(**changed)}\n[detector.rename]\n{renamed}\n"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"damage.toml: expected \[detector\] and \[\[boxes\]\]"):
        load_detector_config(path)
    path.write_text(f'{text}[[boxes]]\ntable = "a"\nfolder = "b"\n')
    with pytest.raises(ConfigError, match=f"(.|\n)*{message}"):
        load_detector_config(path)


def test_the_recipes_that_ship_are_read() -> None:
    for name in ("car-model", "damage"):
        assert load_recipe(CONFIGS / f"{name}.toml").arch in BACKBONES
    detector, sets = load_detector_config(CONFIGS / "damage.toml")
    assert detector.side in detector.sides
    assert len(detector.sides) == 2
    assert len(sets) == 3
    with pytest.raises(ConfigError, match="not a recipe"):
        detector.with_changes(epochs=0)


# Rates over time


def module_of(chosen: Recipe, steps: int, *, heads_only: bool = False) -> ClassifierModule:
    net = HeadedNet("alexnet", HEADS)
    module = ClassifierModule(net, chosen, {}, heads_only=heads_only)
    module._trainer = SimpleNamespace(estimated_stepping_batches=steps)  # type: ignore[assignment]
    return module


def rates_over(module: ClassifierModule, steps: int) -> list[float]:
    """The heads' rate before every step."""
    configured = module.configure_optimizers()
    optimizer, scheduler = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[-1]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_one_cycle_warms_up_for_a_quarter_and_ends_low() -> None:
    rates = rates_over(module_of(recipe(schedule="onecycle", learning_rate=0.01), 40), 40)
    assert rates.index(max(rates)) == 9
    assert max(rates) == pytest.approx(0.01)
    assert rates[0] == pytest.approx(0.01 / 25)
    assert rates[-1] < 1e-6


@pytest.mark.parametrize("steps", range(1, 10))
def test_one_cycle_is_possible_however_short(steps: int) -> None:
    rates = rates_over(module_of(recipe(schedule="onecycle", learning_rate=0.01), steps), steps)
    assert all(0 < rate <= 0.01 for rate in rates)


def test_a_cyclic_rate_falls_and_starts_again() -> None:
    chosen = recipe(schedule="cyclic", learning_rate=0.01, epochs=6, cycle_epochs=2)
    rates = rates_over(module_of(chosen, 60), 60)
    assert [rates[i] for i in (0, 20, 40)] == [0.01] * 3
    assert rates[10] == pytest.approx(0.005)
    assert rates[19] < 1e-4


def test_a_rate_on_a_plateau_falls_to_a_tenth() -> None:
    chosen = recipe(schedule="plateau", learning_rate=0.01, plateau_epochs=2)
    configured = module_of(chosen, 60).configure_optimizers()
    schedule = configured["lr_scheduler"]
    assert schedule["monitor"] == "val_loss"
    assert schedule.get("interval", "epoch") == "epoch"
    for _ in range(3):
        schedule["scheduler"].step(1.0)
    assert configured["optimizer"].param_groups[-1]["lr"] == 0.01
    schedule["scheduler"].step(1.0)
    assert configured["optimizer"].param_groups[-1]["lr"] == pytest.approx(0.001)


def test_earlier_layers_learn_slower_and_frozen_ones_not_at_all() -> None:
    module = module_of(recipe(learning_rate=0.01, block_rates=(0.1, 0.3), schedule="plateau"), 8)
    groups = module.configure_optimizers()["optimizer"].param_groups
    assert [group["lr"] for group in groups] == pytest.approx([0.001, 0.003, 0.01])
    sizes = [len(group["params"]) for group in groups]
    assert sum(sizes) == len(list(module.net.parameters()))
    module = module_of(recipe(learning_rate=0.01, block_rates=(0, 0.3), schedule="plateau"), 8)
    groups = module.configure_optimizers()["optimizer"].param_groups
    assert [group["lr"] for group in groups] == pytest.approx([0.003, 0.01])
    alone = module_of(recipe(learning_rate=0.01), 8, heads_only=True).configure_optimizers()
    assert [len(group["params"]) for group in alone.param_groups] == [2]


def test_the_recipe_decides_the_loss() -> None:
    images = torch.randn(4, 3, 64, 64)
    targets = {"type": torch.tensor([0, 1, 2, UNKNOWN]), "place": torch.tensor([[1, 0]] * 4)}
    alphas = {"type": torch.tensor([1.0, 2.0, 3.0])}
    net = HeadedNet("alexnet", HEADS).eval()
    for chosen, gamma in (
        (recipe(loss="focal", gamma=1.5), 1.5),
        (recipe(loss="cross_entropy", gamma=1.5), 0.0),
    ):
        module = ClassifierModule(net, chosen, alphas, heads_only=False).eval()
        loss, parts = module.loss((images, targets))
        expected = focal_loss(parts["type"], targets["type"], alphas["type"], gamma)
        expected = expected + multi_label_loss(parts["place"], targets["place"])
        torch.testing.assert_close(loss, expected)


# Fits


def read_history(out: Path) -> list[dict[str, str]]:
    with (out / fits.HISTORY).open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": "onecycle", "balanced": True, "block_rates": (0, 0.5), "dropout": 0.3},
        {"schedule": "cyclic", "cycle_epochs": 1, "loss": "focal", "class_weights": True},
        {"schedule": "plateau", "patience": 1, "plateau_epochs": 1, "precision": "bf16-mixed"},
    ],
)
def test_every_kind_of_fit_changes_what_it_may_and_writes_its_history(
    pictures: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    chosen = recipe(epochs=2, **changes)
    torch.manual_seed(0)
    net = HeadedNet("alexnet", HEADS, chosen.dropout)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    examples = examples_of(pictures, places=True)
    train, validation = on_side(examples, "train"), on_side(examples, "validation")
    assert fit(net, chosen, train, validation, tmp_path) == chosen.learning_rate
    assert not net.training
    after = net.state_dict()
    kept = {name for name in before if torch.equal(after[name], before[name])}
    early = {f"trunk.net.features.{n}.{kind}" for n in (0, 3) for kind in ("weight", "bias")}
    assert kept == (set() if chosen.block_rates[0] else early)
    assert {value.dtype for value in after.values()} == {torch.float32}
    rows = read_history(tmp_path)
    assert [(row["stage"], row["epoch"]) for row in rows] == [
        ("heads", "0"), ("all", "0"), ("all", "1"),
    ]  # fmt: skip
    for row in rows:
        assert float(row["train_loss"]) > 0
        assert 0 <= float(row["val_accuracy_type"]) <= 1
        assert 0 <= float(row["val_accuracy_place"]) <= 1


def remember(seen: list[dict[str, Tensor]]) -> Any:
    """In place of the end of a validation: every epoch is worse than the one before it."""

    def on_validation_epoch_end(self: Any) -> None:
        seen.append({name: value.clone() for name, value in self.net.state_dict().items()})
        self.log("val_loss", torch.tensor(float(len(seen))))

    return on_validation_epoch_end


def test_a_fit_ends_as_it_was_in_its_best_epoch(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Tensor]] = []
    monkeypatch.setattr(ClassifierModule, "on_validation_epoch_end", remember(seen))
    examples = examples_of(pictures)
    net = HeadedNet("alexnet", HEADS[:1])
    chosen = recipe(head_epochs=0, epochs=2)
    fit(net, chosen, on_side(examples, "train"), on_side(examples, "validation"), tmp_path)
    first, last = seen
    assert all(torch.equal(value, first[name]) for name, value in net.state_dict().items())
    assert not torch.equal(first["classify.weight"], last["classify.weight"])


def test_a_loss_that_is_no_number_is_worse_than_any(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ClassifierModule(HeadedNet("alexnet", HEADS[:1]), recipe(), {}, heads_only=True)
    losses = iter([1.0, float("nan")])
    parts = {"type": torch.eye(3)}
    monkeypatch.setattr(module, "loss", lambda _: (torch.tensor(next(losses)), parts))
    for number in range(2):
        module.validation_step((torch.zeros(3, 3, 8, 8), {"type": torch.arange(3)}), number)
    assert float(module.val_loss.compute()) == float("inf")


def test_training_stops_when_nothing_gets_better(pictures: Path, tmp_path: Path) -> None:
    chosen = recipe(schedule="plateau", patience=1, epochs=9, head_epochs=0, learning_rate=1e-9)
    net = HeadedNet("alexnet", HEADS[:1])
    nn.init.zeros_(net.classify.weight)
    examples = examples_of(pictures)
    fit(net, chosen, on_side(examples, "train"), on_side(examples, "validation"), tmp_path)
    assert len(read_history(tmp_path)) < 9


def test_a_fit_is_the_same_each_time(pictures: Path, tmp_path: Path) -> None:
    examples = examples_of(pictures)
    train, validation = on_side(examples, "train"), on_side(examples, "validation")
    states = []
    for name in "ab":
        torch.manual_seed(7)
        net = HeadedNet("alexnet", HEADS[:1])
        fit(net, recipe(head_epochs=0), train, validation, tmp_path / name)
        states.append(net.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_the_heads_learn_what_colours_tell(pictures: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = HeadedNet("resnet18", HEADS[:1])
    examples = examples_of(pictures)
    train, validation = on_side(examples, "train"), on_side(examples, "validation")
    chosen = recipe(epochs=6, head_epochs=0, block_rates=(1, 1), smallest_crop=0.9)
    fit(net, chosen, train, validation, tmp_path)
    rows = read_history(tmp_path)
    assert float(rows[-1]["train_loss"]) < 0.5 * float(rows[0]["train_loss"])


def test_the_learning_rate_finder_leaves_no_trace(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = examples_of(pictures)
    train, validation = on_side(examples, "train"), on_side(examples, "validation")
    net = HeadedNet("alexnet", HEADS[:1])
    before = {name: value.clone() for name, value in net.state_dict().items()}
    seen: list[dict[str, Tensor]] = []

    def run(module: ClassifierModule, *_: Any) -> list[dict[str, str]]:
        seen.append({name: v.clone() for name, v in module.net.state_dict().items()})
        return [{"stage": "heads", "epoch": "0"}]

    monkeypatch.setattr(fits, "_run", run)
    # Eighteen pictures are two batches an epoch; the finder needs sixty.
    rate = fit(net, recipe(learning_rate=0.0, epochs=0), train, validation, tmp_path)
    assert 1e-4 <= rate <= 0.3
    assert all(torch.equal(value, before[name]) for name, value in seen[0].items())
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_fit_that_diverges_is_told(pictures: Path, tmp_path: Path) -> None:
    examples = examples_of(pictures)
    train, validation = on_side(examples, "train"), on_side(examples, "validation")
    net = HeadedNet("alexnet", HEADS[:1])
    nn.init.constant_(net.classify.weight, float("nan"))
    with pytest.raises(ConfigError, match="at least one finite validation loss, got none"):
        fit(net, recipe(), train, validation, tmp_path)
    with pytest.raises(ConfigError, match="train and to validate on, got 18 and 0"):
        fit(net, recipe(), train, [], tmp_path)


def test_threads_are_set_if_they_are_given_and_the_seed_always() -> None:
    before = torch.get_num_threads()
    runs.begin_fit(recipe(threads=0, seed=3))
    first = torch.rand(2)
    assert torch.get_num_threads() == before
    try:
        runs.begin_fit(recipe(threads=before + 1, seed=3))
        assert torch.get_num_threads() == before + 1
        assert torch.equal(torch.rand(2), first)
    finally:
        torch.set_num_threads(before)
    runs.seed_run(recipe(seed=4))
    assert not torch.equal(torch.rand(2), first)


def test_workers_stay_between_epochs_if_there_are_any() -> None:
    for workers in (0, 2):
        options = runs.loader_options(recipe(workers=workers), 5)
        loader = DataLoader(range(12), **options)  # type: ignore[arg-type]
        assert (loader.batch_size, loader.num_workers) == (5, workers)
        assert loader.persistent_workers is (workers > 0)


def test_a_trainer_writes_checkpoints_only_if_a_callback_does(tmp_path: Path) -> None:
    for callbacks, count in (([], 0), ([ModelCheckpoint(tmp_path)], 1)):
        trainer = runs.make_trainer(recipe(), 1, tmp_path, callbacks, gradient_clip_val=3.0)
        assert len(trainer.checkpoint_callbacks) == count
        assert trainer.gradient_clip_val == 3.0
        assert trainer.max_epochs == 1


def test_a_card_tells_the_packages_that_made_it(shapes: Job) -> None:
    told = Classifier.load(shapes.out).card.training["packages"]
    assert told == runs.package_versions()
    assert told["torch"] == metadata.version("torch")


# Classifiers on disk


@pytest.fixture(scope="module")
def shapes(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A trained classifier with two heads."""
    job = job_of(pictures, tmp_path_factory.mktemp("shapes") / "out", HEADS)
    train_classifier(job, recipe(views=True))
    return job


def is_png(path: Path) -> bool:
    with Image.open(path) as image:
        image.load()
        return image.format == "PNG"


def test_a_trained_classifier_serves_and_says_where_it_came_from(shapes: Job) -> None:
    classifier = Classifier.load(shapes.out)  # repeats the conformance vectors
    card = classifier.card
    assert (card.name, card.version, card.scale_to) == ("shapes", "3", 64)
    assert [head.head for head in card.heads] == list(HEADS)
    assert card.heads[0].temperature != 1.0
    assert card.training["images"] == {"train": 18, "validation": 3, "test": 3}
    assert card.training["recipe"]["arch"] == "alexnet"
    assert card.training["learning_rate"] == 3e-3
    assert set(card.training["validation_accuracy"]) == {"fp16", "int8"}
    assert set(card.metrics) == {"type", "place"}
    assert card.metrics["type"]["images"] == 3
    assert len(card.conformance) == 2
    assert (shapes.out / "model.int8.onnx").stat().st_size < 0.7 * (
        shapes.out / "model.onnx"
    ).stat().st_size
    assert card.weights.file in ("model.onnx", "model.int8.onnx")
    (answers,) = classifier.classify([picture(1)])
    assert answers["type"].probabilities.sum() == pytest.approx(1)
    assert answers["place"].maps.shape[0] == 2


def test_results_and_pictures_lie_beside_it(shapes: Job) -> None:
    assert "| type | 3 | 3 |" in (shapes.out / "results.md").read_text()
    numbers = json.loads((shapes.out / "results.json").read_text())
    assert numbers["type"]["accuracy_with_views"] is not None
    assert is_png(shapes.out / "confusion-type.png")
    assert is_png(shapes.out / "learning-curves.png")
    assert [row["stage"] for row in read_history(shapes.out)] == ["heads", "all"]


def test_both_exports_say_what_torch_says(shapes: Job) -> None:
    net = HeadedNet("alexnet", HEADS)
    net.load_state_dict(load_file(shapes.out / WEIGHTS))
    net.eval()
    preprocess = classifier_preprocess(64)
    batch = preprocess([picture(seed, seed) for seed in range(3)])
    with torch.inference_mode():
        logits, maps = (part.numpy() for part in net(torch.from_numpy(batch)))
    spread = float(logits.max() - logits.min())
    for name, tolerance in (("model.onnx", 0.02), ("model.int8.onnx", 0.15)):
        said = open_session(shapes.out / name).run(["logits", "maps"], {"images": batch})
        np.testing.assert_allclose(said[0], logits, atol=tolerance * max(spread, 1))
        assert said[1].shape == maps.shape


def test_a_fit_is_not_repeated_and_gives_the_same_again(
    shapes: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifiers, "fit", lambda *_: pytest.fail("it was fitted again"))
    files = (WEIGHTS, FIT, fits.HISTORY)
    before = [(shapes.out / name).stat().st_mtime_ns for name in files]
    old = (shapes.out / "results.json").read_text()
    # What does not decide a fit may differ.
    train_classifier(shapes, recipe(views=True, workers=3, threads=2))
    assert [(shapes.out / name).stat().st_mtime_ns for name in files] == before
    assert (shapes.out / "results.json").read_text() == old
    Classifier.load(shapes.out)


def test_each_side_is_classified_once_by_each_network(
    shapes: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str | None, bool]] = []

    def classify_all(classifier: Classifier, examples: Any, *, views: bool = False) -> Any:
        (side,) = {example.side for example in examples}
        seen.append((classifier.card.weights.file, side, views))
        return original(classifier, examples, views=views)

    original = evaluate.classify_all
    monkeypatch.setattr(classifiers, "classify_all", classify_all)
    monkeypatch.setattr(evaluate, "classify_all", classify_all)
    card, _ = train_classifier(shapes, recipe(views=True))
    chosen = card.weights.file
    assert seen == [
        ("model.onnx", "validation", False),
        ("model.int8.onnx", "validation", False),
        (chosen, "test", False),
        (chosen, "test", True),
    ]


def test_the_accuracies_that_chose_are_those_of_the_networks_as_they_serve(shapes: Job) -> None:
    card, weights = load_card(shapes.out, ClassifierCard)
    kind = "int8" if "int8" in card.weights.file else "fp16"
    served = mean_accuracy(Classifier(card, weights), shapes.side("validation"))
    assert card.training["validation_accuracy"][kind] == served


def test_another_recipe_or_other_pictures_are_refused_in_the_same_folder(shapes: Job) -> None:
    message = "holds a network that was trained with another recipe or on other images"
    with pytest.raises(CheckpointError, match=message):
        train_classifier(shapes, recipe(views=True, seed=1))
    fewer = replace(shapes, examples=shapes.examples[1:])
    with pytest.raises(CheckpointError, match=message):
        train_classifier(fewer, recipe(views=True))


def test_impossible_trainings_are_refused_before_anything_is_done(
    shapes: Job, tmp_path: Path
) -> None:
    job = replace(shapes, out=tmp_path / "out")
    untested = replace(job, examples=tuple(e for e in job.examples if e.side != "test"))
    with pytest.raises(TableError, match="head type: expected labelled images on the test side"):
        train_classifier(untested, recipe())
    strange = replace(job.examples[0], labels={"type": ("d",)})
    with pytest.raises(TableError, match="head type: expected one of a, b, c, got 'd'"):
        train_classifier(replace(job, examples=(strange, *job.examples)), recipe())
    assert not job.out.exists()


def test_a_fit_is_known_by_recipe_heads_and_pictures(pictures: Path) -> None:
    examples = examples_of(pictures)
    with torch.device("meta"):
        net = HeadedNet("alexnet", HEADS[:1])
        two = HeadedNet("alexnet", HEADS)
    digest = fit_digest(net, recipe(), examples, pictures)
    same = recipe(workers=2, threads=3, views=True)
    assert fit_digest(net, same, examples, pictures) == digest
    moved = [replace(examples[0], side="test"), *examples[1:]]
    for other in (
        fit_digest(net, recipe(seed=1), examples, pictures),
        fit_digest(two, recipe(), examples, pictures),
        fit_digest(net, recipe(), moved, pictures),
        fit_digest(net, recipe(), examples[1:], pictures),
    ):
        assert other != digest


def test_a_fit_that_was_broken_off_is_done_again(tmp_path: Path) -> None:
    net = nn.Linear(2, 2)
    calls: list[int] = []

    def breaks() -> float:
        calls.append(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        once(net, "x", tmp_path, breaks)
    assert once(net, "x", tmp_path, lambda: 0.5) == 0.5
    other = nn.Linear(2, 2)
    assert once(other, "x", tmp_path, breaks) == 0.5
    assert torch.equal(other.weight, net.weight)
    assert len(calls) == 1


def test_several_labels_do_not_choose_the_weights(shapes: Job) -> None:
    classifier = Classifier.load(shapes.out)
    placed = [replace(e, labels={"place": e.labels["place"]}) for e in shapes.side("train")]
    alone = mean_accuracy(classifier, shapes.side("train"))
    assert mean_accuracy(classifier, [*shapes.side("train"), *placed]) == alone


# Many fits


def test_a_grid_is_searched_and_the_best_by_the_validation_side_is_taken(
    pictures: Path, tmp_path: Path
) -> None:
    job = job_of(pictures, tmp_path / "grid")

    def train(part: Job, one: Recipe) -> None:
        accuracy = {(0.01, 0.2): 0.5, (0.01, 0.4): 0.75, (0.1, 0.2): 0.25, (0.1, 0.4): 0.5}
        rows = [
            {"stage": "heads", "epoch": 0, "val_accuracy_type": 0.99},
            {"stage": "all", "epoch": 0,
             "val_accuracy_type": accuracy[one.learning_rate, one.dropout]},
            {"stage": "all", "epoch": 1, "val_accuracy_type": 0.1},
        ]  # fmt: skip
        save_table(part.out / fits.HISTORY, rows)

    best, table = experiments.search_grid(job, recipe(), (0.01, 0.1), (0.2, 0.4), train)
    assert (best.learning_rate, best.dropout) == (0.01, 0.4)
    assert table.splitlines()[2:] == [
        "| 0.01 | 0.2 | 50.0 |",
        "| 0.01 | 0.4 | 75.0 |",
        "| 0.1 | 0.2 | 25.0 |",
        "| 0.1 | 0.4 | 50.0 |",
    ]
    assert (job.out / "grid.md").read_text() == table
    # Heads alone are judged by their own stage.
    best, _ = experiments.search_grid(job, recipe(epochs=0), (0.01,), (0.2,), train)
    assert best.epochs == 0
    with pytest.raises(ConfigError, match="not a recipe"):
        experiments.search_grid(job, recipe(), (0.01,), (0.2, 1.5), lambda *_: pytest.fail("late"))


def test_folds_make_a_table_with_their_mean(pictures: Path, tmp_path: Path) -> None:
    job = job_of(pictures, tmp_path / "folds")
    table = experiments.cross_validate(job, recipe(head_epochs=0), 2)
    lines = table.splitlines()
    assert lines[0] == "| fold | type |"
    numbers = [float(line.split("|")[2]) for line in lines[2:]]
    assert numbers[2] == pytest.approx((numbers[0] + numbers[1]) / 2, abs=0.1)
    assert lines[4].startswith("| mean |")
    assert (job.out / "folds.md").read_text() == table
    for fold in range(2):
        assert Classifier.load(job.out / f"fold-{fold}").card.metrics["type"]["images"] == 12
    for folds in (-1, 0, 1):
        with pytest.raises(ConfigError, match=f"expected 2 folds or more, got {folds}"):
            experiments.cross_validate(job, recipe(), folds)


def test_backbones_are_compared_with_one_recipe(pictures: Path, tmp_path: Path) -> None:
    job = job_of(pictures, tmp_path / "backbones")
    with pytest.raises(ConfigError, match="expected one of resnet18"):
        experiments.compare_backbones(job, recipe(), ("alexnet", "resnet19"))
    assert not job.out.exists()
    table = experiments.compare_backbones(job, recipe(), ("alexnet", "resnet18"))
    lines = table.splitlines()
    assert lines[0].startswith("| backbone | head | heads only (validation) | all layers |")
    assert [line.split(" | ")[:2] for line in lines[2:]] == [
        ["| alexnet", "type"],
        ["| resnet18", "type"],
    ]
    assert all(len(line.split("|")) == 10 for line in lines)
    assert (job.out / "backbones.md").read_text() == table
    assert Classifier.load(job.out / "resnet18").card.training["recipe"]["arch"] == "resnet18"


# Car model


@pytest.fixture(scope="module")
def cars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of three models and other things, and a configuration."""
    folder = tmp_path_factory.mktemp("cars")
    classes = ("Audi A4 2012", "Audi TT 2012", "BMW M3 2012", "no car")
    save_classes(folder / "tree", classes, 14)
    fields = TINY | {"arch": "mobilenet_v2", "views": True, "epochs": 1, "batch_size": 16}
    fields |= {"serve_side": 96}
    save_boxes(folder, ("car", "truck"), 40)
    detector = dict(DETECTOR) | {"classes": ["car"]}
    del detector["rename"]
    (folder / "car.toml").write_text(
        f"""
[[sets]]
folder = "tree"
levels = ["model"]
[recipe]
{to_toml(**fields)}
[detector]
{to_toml(**detector)}
[detector.rename]
car = "car"
truck = "car"
[[boxes]]
table = "boxes.json"
folder = "images"
group = '^(.*)\\.rf\\.'
"""
    )
    return folder


@pytest.fixture(scope="module")
def trained_cars(cars: Path) -> tuple[Path, str]:
    out = cars / "out"
    return out, car_train.train(cars / "car.toml", cars, out, release="2", threads=1)


@pytest.mark.slow
def test_the_car_model_pipeline_is_trained_from_one_file(
    cars: Path, trained_cars: tuple[Path, str]
) -> None:
    out, text = trained_cars
    pipeline = CarModelPipeline.load(out)
    card = pipeline.classifier.card
    assert (card.name, card.version) == ("car-model", "2")
    assert (card.preprocess.crop, card.scale_to) == (96, 96), "served larger than it was trained"
    assert pipeline.classes == ("Audi A4 2012", "Audi TT 2012", "BMW M3 2012")
    assert set(card.thresholds) == {"model_from", "make_from"}
    assert card.metrics["answers"]["cars"] == 6
    assert card.metrics["model"]["images"] == 8
    assert "| model | 4 | 8 |" in text
    assert "| 6 cars, 2 others | percent |" in text
    assert "Input 64, any class:" in text
    assert (out / "answers.md").read_text() == text[text.index("| 6 cars") :]
    classifier = out / "classifier"
    assert is_png(classifier / "confusion-model.png")
    assert is_png(classifier / "learning-curves.png")
    assert (classifier / "model.int8.onnx").stat().st_size < 4_000_000
    assert pipeline.detector is not None
    assert (pipeline.detector.card.name, pipeline.detector.card.classes) == ("car-finder", ("car",))
    pixels = picture(1, 1)
    answer = pipeline.identify(pipeline.decode((cars / "tree/no car/3000.png").read_bytes()))
    assert answer.identification.candidates[0].name in pipeline.classes
    assert pixels.shape == (64, 64, 3)


@pytest.mark.slow
def test_a_trained_car_model_is_measured_and_labels_from_the_command_line(
    cars: Path, trained_cars: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    out, text = trained_cars
    common = ["--config", str(cars / "car.toml"), "--data", str(cars), "--model", str(out)]
    measured = cars / "measured"
    assert run_cli("evaluate", "car_model", *common, "--out", str(measured)) == 0
    printed = capsys.readouterr().out
    assert printed.strip() == text.strip()
    for name in ("classifier/results.md", "detector/results.md", "answers.md"):
        assert (measured / name).read_text() == (out / name).read_text()
    assert run_cli("sources", "car_model", *common, "--out", str(cars / "sources")) == 0
    assert "16 sources for the head model" in capsys.readouterr().out
    with (cars / "sources" / "truth.csv").open(newline="") as file:
        told = {row["name"] for row in csv.DictReader(file)}
    assert told == {*CarModelPipeline.load(out).classes, "no car"}


def test_a_grid_folds_and_backbones_are_asked_for_with_the_car_model(
    cars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, Path, Any]] = []

    def note(name: str, result: Any) -> Any:
        def called(job: Job, one: Recipe, *rest: Any) -> Any:
            calls.append((name, job.out, rest))
            return result(one) if callable(result) else result

        return called

    class StopHereError(Exception):
        pass

    def stop(job: Job, one: Recipe) -> Any:
        calls.append(("train", job.out, (one.learning_rate, one.dropout, one.epochs)))
        raise StopHereError

    monkeypatch.setattr(experiments, "cross_validate", note("folds", "F"))
    monkeypatch.setattr(experiments, "compare_backbones", note("backbones", "B"))
    best = lambda one: (one.with_changes(dropout=0.6), "G")  # noqa: E731
    monkeypatch.setattr(car_train, "search_grid", note("grid", best))
    monkeypatch.setattr(car_train, "train_classifier", stop)
    config = cars / "car.toml"
    assert car_train.train(config, cars, tmp_path, folds=3) == "F"
    assert car_train.train(config, cars, tmp_path, backbones=["alexnet"]) == "B"
    with pytest.raises(StopHereError):
        car_train.train(config, cars, tmp_path, dropouts=[0.1, 0.6], epochs=4)
    assert calls == [
        ("folds", tmp_path / "folds", (3,)),
        ("backbones", tmp_path / "backbones", (["alexnet"],)),
        ("grid", tmp_path / "grid", ((0.003,), [0.1, 0.6])),
        ("train", tmp_path / "classifier", (0.003, 0.6, 4)),
    ]


# Damage


@pytest.fixture(scope="module")
def damage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of damages with severities and places, boxes, and a configuration."""
    folder = tmp_path_factory.mktemp("damage")
    kinds, grades = ("door_dent", "door_scratch"), ("minor", "moderate", "severe")
    rows = []
    for path in save_classes(folder / "photos", kinds, 21):
        number = int(path.stem)
        rows.append(
            {
                "path": path.relative_to(folder),
                "kind": path.parent.name,
                "grade": grades[number % 3],
                "at": "front;side" if number % 2 else "rear",
                "part": ("train", "train", "train", "val", "test")[number % 5],
            }
        )
    save_table(folder / "labels.csv", rows)
    save_boxes(folder, ("minor-dent", "minor-scratch"), 40)
    detector = dict(DETECTOR)
    renamed = detector.pop("rename")
    for name, located in (("damage", ', location = "at"'), ("nowhere", "")):
        (folder / f"{name}.toml").write_text(
            f"""
[[sets]]
table = "labels.csv"
heads = {{ type = "kind", severity = "grade"{located} }}
split = "part"
[recipe]
{to_toml(**TINY | {"head_epochs": 0, "class_weights": True, "loss": "focal"})}
[detector]
{to_toml(**detector)}
[detector.rename]
{to_toml(**renamed)}
[[boxes]]
table = "boxes.json"
folder = "images"
group = '^(.*)\\.rf\\.'
"""
        )
    return folder


@pytest.fixture(scope="module")
def trained_damage(damage: Path) -> tuple[Path, str]:
    out = damage / "out"
    return out, damage_train.train(damage / "damage.toml", damage, out, release="4")


@pytest.mark.slow
def test_both_networks_of_the_damage_pipeline_are_trained_from_one_file(
    damage: Path, trained_damage: tuple[Path, str]
) -> None:
    out, text = trained_damage
    pipeline = DamagePipeline.load(out)  # repeats both cards' vectors
    heads = {head.name: head for head in pipeline.classifier.card.heads}
    assert list(heads) == ["type", "severity", "location"]
    assert heads["location"].multi_label
    assert len(heads["type"].classes) == 10
    assert "val_accuracy_location" in read_history(out / "classifier")[0]
    told = pipeline.classifier.card.metrics["location"]["binary_accuracy"]
    assert 0 <= told["low"] <= told["value"] <= told["high"] <= 1
    assert "| location |" in (out / "classifier" / "results.md").read_text()
    detector = pipeline.detector.card
    assert (detector.name, detector.version, detector.side) == ("damage-detector", "4", 128)
    assert detector.classes == ("dent", "scratch")
    assert set(detector.metrics) == {"128", "64"}
    assert sum(detector.training["originals"].values()) == 40
    assert sum(detector.training["copies"].values()) == 54
    for part in ("| severity | 3 |", "Input 64, any class:", "| 128 |"):
        assert part in text
    assert json.loads((out / "detector" / "results.json").read_text()) == detector.metrics
    said = pipeline.assess((damage / "images" / "photo0_jpg.rf.0.jpg").read_bytes())
    assert {answer.head for answer in said.whole} == set(heads)


@pytest.mark.slow
def test_an_exported_detector_says_what_torch_says_at_every_size(
    trained_damage: tuple[Path, str],
) -> None:
    out, _ = trained_damage
    net = BoxNet(2)
    net.load_state_dict(load_file(out / "detector" / WEIGHTS))
    net.eval()
    session = open_session(out / "detector" / "model.onnx")
    for height, width in ((128, 128), (64, 64), (160, 96), (256, 256)):
        images = np.random.default_rng(1).normal(size=(1, 3, height, width)).astype(np.float32)
        said = session.run(["logits", "distances", "centerness"], {"images": images})
        with torch.inference_mode():
            expected = [part.numpy() for part in net(torch.from_numpy(images))]
        for one, other in zip(said, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=0.05)


def test_without_labels_for_it_there_is_no_location_head(
    damage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Head, ...]] = []

    def train(job: Job, one: Recipe) -> Any:
        seen.append(job.heads)
        assert job.out == tmp_path / "classifier"
        assert one.epochs == 3
        return None, []

    monkeypatch.setattr(damage_train, "train_classifier", train)
    damage_train.train(damage / "nowhere.toml", damage, tmp_path, parts=["classifier"], epochs=3)
    assert [head.name for head in seen[0]] == ["type", "severity"]


def test_parts_folds_and_backbones_of_damage_are_asked_for(
    damage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiments, "cross_validate", lambda job, _, folds: f"{job.out} {folds}")
    monkeypatch.setattr(
        experiments, "compare_backbones", lambda job, _, archs: f"{job.out} {archs}"
    )
    seen: list[DetectorRecipe] = []
    monkeypatch.setattr(
        detectors, "train_detector", lambda one, *_, **__: (seen.append(one), "D")[1]
    )
    config = damage / "damage.toml"
    folds = damage_train.train(config, damage, tmp_path, folds=4)
    assert folds == f"{tmp_path / 'folds'} 4"
    archs = damage_train.train(config, damage, tmp_path, backbones=["vgg16"])
    assert archs == f"{tmp_path / 'backbones'} ['vgg16']"
    text = damage_train.train(config, damage, tmp_path, parts=["detector"], epochs=5, seed=6)
    assert text == "D"
    assert (seen[0].epochs, seen[0].seed, seen[0].threads) == (5, 6, 1)
    with pytest.raises(ConfigError, match="expected the parts classifier, detector, got wheels"):
        damage_train.train(config, damage, tmp_path, parts=["wheels"])
    with pytest.raises(ConfigError, match="not a recipe"):
        damage_train.train(config, damage, tmp_path, parts=["detector"], epochs=0)


# The detector


@pytest.fixture(scope="module")
def boxed(damage: Path) -> tuple[DetectorRecipe, list[BoxedImage]]:
    chosen, sets = load_detector_config(damage / "damage.toml")
    return chosen, read_boxed(sets, damage, chosen.rename)


def test_a_detector_answers_for_every_cell_of_every_level() -> None:
    net = BoxNet(3).eval()
    with torch.inference_mode():
        logits, distances, centerness = net(torch.zeros(2, 3, 128, 128))
    cells = len(places(128, STRIDES)[0])
    assert logits.shape == (2, cells, 3)
    assert distances.shape == (2, cells, 4)
    assert centerness.shape == (2, cells, 1)
    assert (distances >= 0).all()


def test_a_detectors_trunk_starts_like_a_classifiers_and_can_be_frozen(tmp_path: Path) -> None:
    torch.manual_seed(0)
    trunk = Trunk("mobilenet_v2")
    path = tmp_path / "trunk.safetensors"
    save_file({k: v.contiguous() for k, v in trunk.state_dict().items()}, path)
    net = BoxNet(2)
    net.initialize(str(path))
    body = net.fcos.backbone.body
    state = {f"net.features.{name}": value for name, value in body.state_dict().items()}
    assert state.keys() == trunk.state_dict().keys()
    assert all(torch.equal(value, trunk.state_dict()[name]) for name, value in state.items())
    net.freeze(4)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net.train()
    boxes, labels = [torch.tensor([[10.0, 10.0, 60.0, 50.0]])] * 2, [torch.tensor([1])] * 2
    loss = net.losses(torch.randn(2, 3, 96, 96), boxes, labels)
    loss.backward()
    torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=1e-4).step()
    changed = {n for n, value in net.state_dict().items() if not torch.equal(value, before[n])}
    layers = {int(name.split(".")[3]) for name in changed if ".body." in name}
    assert layers == set(range(4, 19))
    assert net.losses(torch.randn(1, 3, 96, 96), [torch.zeros(0, 4)], [torch.zeros(0).long()]) > 0


def test_boxes_are_scaled_and_cropped_with_their_pictures(
    boxed: tuple[DetectorRecipe, list[BoxedImage]],
) -> None:
    chosen, images = boxed
    first = next(image for image in images if image.path.name.startswith("photo0_"))
    pixels, boxes = load_scaled(first, 64)
    assert pixels.shape == (64, 64, 3)
    np.testing.assert_allclose(boxes.numpy() * 2, [box(0, 128)])
    originals = by_original(images, "train")
    plain = CropDataset(originals, chosen, augment=False)
    image, its, labels = plain[0]
    assert image.shape == (3, 96, 96)
    (truth,) = originals[0][0].boxes
    expected = np.clip(np.array(truth) - 16, 0, 96)  # the middle of 128 pixels
    np.testing.assert_allclose(its.numpy(), [expected])
    assert labels.tolist() == [chosen.classes.index(originals[0][0].labels[0])]
    assert len(plain) == len(originals)
    more = CropDataset(originals, chosen.model_copy(update={"repeats": 3}), augment=True)
    assert len(more) == 3 * len(originals)
    torch.manual_seed(0)
    batch, many, _ = collate([more[i] for i in range(12)])
    assert batch.shape == (12, 3, 96, 96)
    for boxes_ in many:
        assert ((boxes_ >= 0) & (boxes_ <= 96)).all()
        assert ((boxes_[:, 2:] - boxes_[:, :2]) >= 3).all()
    nothing = BoxedImage(first.path, (), (), "x", "train")
    image, its, labels = CropDataset([[nothing]], chosen, augment=True)[0]
    assert (tuple(its.shape), tuple(labels.shape)) == ((0, 4), (0,))


def test_few_originals_make_a_batch_of_their_own_and_the_best_epoch_is_kept(
    boxed: tuple[DetectorRecipe, list[BoxedImage]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen, images = boxed
    few = by_original(images, "train")[:3]
    net = BoxNet(2)
    before = net.fcos.head.classification_head.cls_logits.bias.clone()
    seen: list[dict[str, Tensor]] = []
    monkeypatch.setattr(DetectorModule, "on_validation_epoch_end", remember(seen))
    fit_detector(net, chosen.with_changes(epochs=3, learning_rate=0.1), few, few, tmp_path)
    assert not torch.equal(net.fcos.head.classification_head.cls_logits.bias, before)
    assert not net.training
    assert len(seen) == 3
    assert all(torch.equal(value, seen[0][name]) for name, value in net.state_dict().items())


def test_a_detector_that_cannot_be_trained_is_told(
    boxed: tuple[DetectorRecipe, list[BoxedImage]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen, images = boxed
    untested = [image for image in images if image.side != "test"]
    with pytest.raises(ConfigError, match=r"expected originals on every side, got .*'test': 0"):
        train_detector(chosen, untested, tmp_path / "out", "finder")
    assert not (tmp_path / "out").exists()
    few = by_original(images, "train")[:4]
    with pytest.raises(ConfigError, match="to validate on, got 4, 0"):
        fit_detector(BoxNet(2), chosen, few, [], tmp_path)
    losses = BoxNet.losses
    monkeypatch.setattr(BoxNet, "losses", lambda *its: losses(*its) * float("nan"))
    with pytest.raises(ConfigError, match="at least one finite validation loss, got none"):
        fit_detector(BoxNet(2), chosen, few, few, tmp_path)


@pytest.mark.slow
def test_a_detectors_folder_is_for_one_recipe(
    damage: Path, trained_damage: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, _ = trained_damage
    chosen, sets = load_detector_config(damage / "damage.toml")
    images = read_boxed(sets, damage, chosen.rename)
    monkeypatch.setattr(detectors, "fit_detector", lambda *_: pytest.fail("it was fitted again"))
    with pytest.raises(CheckpointError, match="trained with another recipe or on other images"):
        train_detector(chosen.model_copy(update={"epochs": 2}), images, out / "detector", "finder")

    class ExportedError(Exception):
        pass

    def export(*_: Any) -> Any:
        raise ExportedError

    monkeypatch.setattr(detectors, "export", export)
    with pytest.raises(ExportedError):  # the stored fit is taken, whatever it is served with
        train_detector(chosen.model_copy(update={"score": 0.9}), images, out / "detector", "finder")


# The command line


def run_cli(*arguments: str) -> int:
    return main(["pipeline", *arguments])


COMMON = ("--config", "c.toml", "--data", "d", "--out", "o")


def test_the_command_line_passes_on_what_was_given(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Any] = []

    def train(*places: Path, **options: Any) -> str:
        seen.append((places, options))
        return "a table"

    monkeypatch.setattr(car_train, "train", train)
    monkeypatch.setattr(damage_train, "train", train)
    where = (Path("c.toml"), Path("d"), Path("o"))
    assert run_cli("train", "car_model", *COMMON) == 0
    assert seen.pop() == (where, {})
    assert capsys.readouterr().out == "a table\n"
    assert run_cli("train", "car_model", *COMMON, "--rates", "0.1", "1e-3", "--dropouts", "0.2",
            "--epochs", "3", "--seed", "0", "--release", "1.2") == 0  # fmt: skip
    assert seen.pop()[1] == {
        "rates": [0.1, 0.001], "dropouts": [0.2], "epochs": 3, "seed": 0, "release": "1.2",
    }  # fmt: skip
    arguments = ("--only", "detector", "--folds", "5", "--threads", "1")
    assert run_cli("train", "damage", *COMMON, *arguments) == 0
    assert seen.pop()[1] == {"parts": ["detector"], "folds": 5, "threads": 1}


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        ("damage", "--rates", "--rates: only car_model has it, damage has not"),
        ("damage", "--dropouts", "--dropouts: only car_model has it, damage has not"),
    ],
)
def test_options_of_the_other_pipeline_are_refused(
    name: str, option: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli("train", name, *COMMON, option, "1") == 1
    assert capsys.readouterr().err == f"utility-gate pipeline: {message}\n"


@pytest.mark.parametrize("action", ["train", "evaluate", "sources"])
@pytest.mark.parametrize("name", ["car_model", "damage"])
def test_a_missing_configuration_is_a_message(
    action: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "none.toml"
    places = ("--data", str(tmp_path), "--out", str(tmp_path / "out"))
    assert run_cli(action, name, "--config", str(config), *places) == 1
    assert f"utility-gate pipeline: {config}" in capsys.readouterr().err


def test_cars_are_assigned_sides_by_their_looks(cars: Path, tmp_path: Path) -> None:
    _, job = load_job(cars / "car.toml", cars, tmp_path)
    assert list(job.examples) == assign_sides(job.examples)
