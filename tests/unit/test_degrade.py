"""Every degradation: worked by hand where small, the same bytes again, worse when severer."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, JpegImagePlugin, features

from tests.conftest import draw
from utility_gate.degrade import (
    DEFAULT_QUALITIES,
    REGISTRY,
    Chain,
    Crop,
    DefocusBlur,
    Degradation,
    Jpeg,
    JpegTwice,
    LowLight,
    Messenger,
    MotionBlur,
    Screenshot,
    SensorNoise,
    Webp,
    describe,
    from_config,
    from_json,
    from_parameters,
    to_json,
)
from utility_gate.images import decode, encode_jpeg

KEY = "ab" * 32
EACH = [kind.at_severity(severity) for kind in REGISTRY.values() for severity in range(1, 6)]
RANDOM = [
    MotionBlur(9),
    SensorNoise(100, 3),
    LowLight(0.2),
    Crop(0.5),
    Chain((SensorNoise(100, 3), Jpeg(50))),
]


def each_name(degradation: Degradation) -> str:
    return describe(degradation)


def spot(side: int = 5) -> np.ndarray:
    """One white pixel in the middle of black."""
    pixels = np.zeros((side, side, 3), np.uint8)
    pixels[side // 2, side // 2] = 255
    return pixels


def to_linear(pixels: np.ndarray) -> np.ndarray:
    value = pixels / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def mean_error(degradation: Degradation, pixels: np.ndarray) -> float:
    """Mean absolute error against what of the source the copy shows."""
    height, width = pixels.shape[:2]
    x0, y0, x1, y1 = (int(edge) for edge in degradation.view(width, height, KEY))
    source = pixels[y0:y1, x0:x1]
    copy = Image.fromarray(degradation.alter(pixels, KEY)).resize((x1 - x0, y1 - y0))
    return float(np.abs(np.asarray(copy, float) - source).mean())


# --- JPEG


@pytest.mark.parametrize("quality", [1, *DEFAULT_QUALITIES, 100])
def test_jpeg_makes_the_bytes_it_always_made(quality: int, photo: np.ndarray) -> None:
    assert Jpeg(quality).apply(photo, KEY) == encode_jpeg(photo, quality)
    assert (Jpeg(quality).quality, Jpeg(quality).name) == (quality, "jpeg")


@pytest.mark.parametrize(("subsampling", "number"), [("4:4:4", 0), ("4:2:2", 1), ("4:2:0", 2)])
def test_the_file_has_the_subsampling(subsampling: str, number: int, photo: np.ndarray) -> None:
    with Image.open(io.BytesIO(Jpeg(60, subsampling).apply(photo))) as image:
        assert JpegImagePlugin.get_sampling(image) == number


@pytest.mark.parametrize(
    "degradation",
    [Jpeg(35), Jpeg(100, "4:4:4"), JpegTwice(80, 20), Messenger(100, 55), Chain((Jpeg(9),))],
    ids=each_name,
)
def test_the_encoder_names_the_tables_in_the_file(
    degradation: Degradation, photo: np.ndarray
) -> None:
    encoder = degradation.encoder()
    with Image.open(io.BytesIO(degradation.apply(photo))) as image:
        tables = image.quantization  # type: ignore[attr-defined]
    assert encoder["quantization"] == {str(number): list(t) for number, t in tables.items()}
    assert [len(table) for table in encoder["quantization"].values()] == [64, 64]
    assert encoder["format"] == "JPEG"
    assert str(features.version("libjpeg_turbo") or features.version("jpg")) in encoder["library"]


def test_jpeg_twice_is_jpeg_cropped_and_jpeg_again(photo: np.ndarray) -> None:
    once = decode(encode_jpeg(photo, 80)).pixels
    assert JpegTwice(80, 40).apply(photo) == encode_jpeg(once, 40)
    assert JpegTwice(80, 40, shift=3).apply(photo) == encode_jpeg(once[3:, 3:], 40)
    assert JpegTwice(80, 40, shift=3).view(320, 240) == (3, 3, 320, 240)
    assert JpegTwice(80, 40, shift=7).view(2, 240) == (1, 7, 2, 240)
    assert JpegTwice(80, 40).encoder()["first_quantization"] == Jpeg(80).encoder()["quantization"]


# --- WebP and messengers


def test_webp_is_lossy_webp_and_no_jpeg(photo: np.ndarray) -> None:
    data = Webp(20).apply(photo)
    assert decode(data).format == "WEBP"
    assert b"VP8 " in data[:20]  # lossless would be VP8L
    assert Webp(20).quality is None
    assert Webp(20).parameters == {"quality": 20}
    assert Webp(20).encoder()["library"] == f"libwebp {features.version('webp')}"


@pytest.mark.parametrize(
    ("size", "expected"),
    [((200, 100), (100, 50)), ((99, 100), (99, 100)), ((30, 400), (8, 100)), ((1, 999), (1, 100))],
)
def test_messengers_scale_down_only(size: tuple[int, int], expected: tuple[int, int]) -> None:
    messenger = Messenger(side=100, quality=70)
    image = decode(messenger.apply(np.zeros((size[1], size[0], 3), np.uint8)))
    assert (image.width, image.height) == messenger.size(*size) == expected
    assert messenger.view(*size) == (0, 0, *size)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((200, 100), (90, 45)), ((30, 20), (90, 60)), ((30, 400), (7, 90)), ((1, 999), (1, 90))],
)
def test_screenshots_have_the_screen_s_size(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    screenshot = Screenshot(side=90)
    image = decode(screenshot.apply(np.zeros((size[1], size[0], 3), np.uint8)))
    assert (image.width, image.height) == screenshot.size(*size) == expected
    assert screenshot.view(*size) == (0, 0, *size)
    assert (image.format, screenshot.quality) == ("PNG", None)


def test_a_screenshot_of_a_jpeg_does_not_tell_its_quality(photo: np.ndarray) -> None:
    shown = Chain((Jpeg(20), Screenshot(320)))
    assert shown.quality is None
    assert decode(shown.apply(photo)).luma_quantization is None
    assert (shown.alter(photo) == decode(encode_jpeg(photo, 20)).pixels).all()


# --- blur


def test_motion_spreads_one_pixel_along_its_line() -> None:
    # A third of white light is 1.055 * (1/3)^(1/2.4) - 0.055 = 0.6125 of 255.
    level = np.zeros((5, 5), np.uint8)
    level[2, 1:4] = 156
    assert (MotionBlur(3, 0).alter(spot()) == level[..., None]).all()
    assert (MotionBlur(3, 90).alter(spot()) == level.T[..., None]).all()
    rising = np.fliplr(np.diag([0, 156, 156, 156, 0]))
    assert (MotionBlur(4, 45).alter(spot()) == rising[..., None]).all()
    assert (MotionBlur(4, 135).alter(spot()) == np.fliplr(rising)[..., None]).all()
    assert (MotionBlur(1, 30).alter(draw(20, 10)) == draw(20, 10)).all()


def test_a_random_direction_depends_on_key_and_seed() -> None:
    scene = draw(64, 48)
    copies = {MotionBlur(15, seed=seed).apply(scene, key) for seed in (0, 1) for key in ("a", "b")}
    assert len(copies) == 4
    assert MotionBlur(15, 20.0, seed=0).apply(scene, "a") == MotionBlur(15, 20.0, seed=1).apply(
        scene, "b"
    )


def test_a_disc_of_radius_one_is_five_pixels() -> None:
    # A fifth of white light is 1.055 * (1/5)^(1/2.4) - 0.055 = 0.4845 of 255.
    plus = np.zeros((5, 5), np.uint8)
    plus[2, 1:4] = plus[1:4, 2] = 124
    assert (DefocusBlur(1).alter(spot()) == plus[..., None]).all()


@pytest.mark.parametrize("radius", [1, 1.5, 3.7, 12])
def test_defocus_is_the_mean_over_the_disc(radius: float) -> None:
    scene = draw(9, 6)
    reach = math.floor(radius)
    padded = to_linear(np.pad(scene, ((reach, reach), (reach, reach), (0, 0)), mode="edge"))
    disc = [
        padded[reach + y : reach + y + 6, reach + x : reach + x + 9]
        for y in range(-reach, reach + 1)
        for x in range(-reach, reach + 1)
        if x * x + y * y <= radius * radius
    ]
    mean = np.mean(disc, axis=0)
    expected = 255 * np.where(
        mean <= 0.0031308, mean * 12.92, 1.055 * mean ** (1 / 2.4) - 0.055
    )  # fmt: skip
    assert np.abs(DefocusBlur(radius).alter(scene) - expected).max() < 0.52


@pytest.mark.parametrize("degradation", [MotionBlur(500, 33), DefocusBlur(100)], ids=each_name)
def test_blur_leaves_what_is_uniform(degradation: Degradation) -> None:
    for value in (0, 1, 77, 255):
        flat = np.full((3, 2, 3), value, np.uint8)
        assert (degradation.alter(flat) == flat).all()


# --- noise and light


@pytest.mark.parametrize(
    ("photons", "read_noise"), [(4000, 0), (400, 5), (20, 1), (400, 20), (100_000, 900)]
)
def test_noise_is_poisson_and_gaussian_in_linear_light(photons: float, read_noise: float) -> None:
    grey = np.full((200, 200, 3), 128, np.uint8)
    noisy = to_linear(SensorNoise(photons, read_noise).alter(grey, KEY)) * photons
    expected = float(to_linear(np.array(128))) * photons
    assert noisy.mean() == pytest.approx(expected, rel=0.01)
    assert noisy.std() == pytest.approx(math.sqrt(expected + read_noise**2), rel=0.03)


def test_channels_and_pixels_have_their_own_noise() -> None:
    noise = SensorNoise(500, 2).alter(np.full((64, 64, 3), 128, np.uint8), KEY).astype(float)
    for one, other in (
        (noise[..., 0], noise[..., 1]),
        (noise[:, 1:], noise[:, :-1]),
        (noise[1:], noise[:-1]),
    ):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.06


def test_without_noise_only_the_light_is_missing() -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)
    clean = SensorNoise(1e6, 0).alter(ramp, KEY).astype(int)
    assert np.abs(clean - ramp).max() <= 1
    dark = to_linear(LowLight(0.25, photons=1e6, read_noise=0).alter(ramp, KEY))
    assert np.abs(dark - to_linear(ramp) / 4).max() < 0.003


def test_black_stays_black_without_read_noise() -> None:
    black = np.zeros((8, 8, 3), np.uint8)
    assert not SensorNoise(10, 0).alter(black, KEY).any()
    assert SensorNoise(10, 3).alter(black, KEY).any()


# --- where a copy lies in its source


@pytest.mark.parametrize("key", ["a", "b", "c"])
def test_a_crop_is_its_view(key: str, photo: np.ndarray) -> None:
    x0, y0, x1, y1 = (int(edge) for edge in Crop(0.4).view(320, 240, key))
    assert (x1 - x0, y1 - y0) == (128, 96)
    assert (Crop(0.4).alter(photo, key) == photo[y0:y1, x0:x1]).all()


def test_crops_reach_every_edge() -> None:
    views = np.array([Crop(0.5).view(4, 4, str(number)) for number in range(100)])
    assert set(views[:, 0]) == set(views[:, 1]) == {0, 1, 2}
    assert Crop(1).view(7, 5, "a") == (0, 0, 7, 5)
    assert Crop(0.01).size(7, 5, "a") == (1, 1)


def test_views_compose_in_pixels_of_the_source() -> None:
    # 400 x 200 is sent as 100 x 50; of that half of each side is kept: 4 source pixels for one.
    crop = Crop(0.5, seed=3)
    chain = Chain((Messenger(side=100, quality=90), crop))
    assert chain.view(400, 200, KEY) == tuple(4 * e for e in crop.view(100, 50, f"{KEY}/1"))
    assert chain.size(400, 200, KEY) == (50, 25)
    again = Chain((crop, Messenger(side=100, quality=90), JpegTwice(90, 80, shift=5)))
    x0, y0, x1, y1 = crop.view(400, 200, f"{KEY}/0")
    assert again.view(400, 200, KEY) == (x0 + 10, y0 + 10, x1, y1)
    assert again.size(400, 200, KEY) == (95, 45)


def test_crops_in_a_chain_are_the_view(photo: np.ndarray) -> None:
    chain = Chain((Crop(0.7), Crop(0.7), Crop(0.5, seed=9)))
    x0, y0, x1, y1 = (int(edge) for edge in chain.view(320, 240, KEY))
    assert (chain.alter(photo, KEY) == photo[y0:y1, x0:x1]).all()


# --- chains


def test_a_chain_does_its_steps_in_turn(photo: np.ndarray) -> None:
    chain = Chain((MotionBlur(9, 0), Jpeg(30)))
    assert chain.apply(photo) == Jpeg(30).apply(MotionBlur(9, 0).alter(photo))
    assert (chain.quality, Chain((Jpeg(30), Crop(0.5))).quality) == (30, None)
    encoder = chain.encoder()
    assert encoder["quantization"] == Jpeg(30).encoder()["quantization"]
    assert [step["kind"] for step in encoder["steps"]] == ["motion_blur", "jpeg"]
    assert "format" not in encoder["steps"][0]
    json.dumps(encoder)


def test_equal_steps_make_different_noise(photo: np.ndarray) -> None:
    noise = SensorNoise(200, 3)
    twice = Chain((noise, noise)).alter(photo, KEY)
    one, other = noise.alter(photo, f"{KEY}/0"), noise.alter(photo, f"{KEY}/1")
    assert (one != other).any()
    assert (twice == noise.alter(one, f"{KEY}/1")).all()


@pytest.mark.parametrize("wrong", [(), [Jpeg(3)], ("jpeg",), (Chain((Jpeg(3),)),)])
def test_impossible_chains_are_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        Chain(wrong)


# --- all of them


@pytest.mark.parametrize("degradation", EACH, ids=each_name)
def test_parameters_make_the_same_degradation(degradation: Degradation) -> None:
    name, text = degradation.name, to_json(degradation)
    assert from_parameters(name, degradation.parameters) == degradation
    assert from_json(name, text) == degradation
    assert from_parameters(name, json.loads(json.dumps(degradation.parameters))) == degradation
    assert hash(from_json(name, text)) == hash(degradation)
    assert to_json(from_json(name, text)) == text
    assert " " not in text
    assert describe(degradation)


def test_json_is_canonical() -> None:
    assert to_json(Jpeg(30)) == '{"quality":30,"subsampling":"4:2:0"}'
    assert to_json(DefocusBlur(3)) == to_json(DefocusBlur(3.0)) == '{"radius":3.0}'
    assert to_json(MotionBlur(3, -0.0)) == '{"angle":0.0,"length":3,"seed":0}'
    assert [describe(d) for d in (Jpeg(30), Webp(20), MotionBlur(3))] == [
        "jpeg 30",
        "webp 20",
        "motion_blur 3px",
    ]


@pytest.mark.parametrize("degradation", EACH, ids=each_name)
def test_the_same_key_gives_the_same_bytes(degradation: Degradation) -> None:
    scene = draw(60, 40)
    again = from_json(degradation.name, to_json(degradation))
    assert degradation.apply(scene, KEY) == again.apply(scene.copy(), KEY)
    assert (scene == draw(60, 40)).all()


@pytest.mark.parametrize("degradation", RANDOM, ids=each_name)
def test_another_key_gives_other_bytes(degradation: Degradation) -> None:
    scene = draw(60, 40)
    assert degradation.apply(scene, "a") != degradation.apply(scene, "b")


NOISE = [90, 118, 119, 134, 133, 114, 127, 133, 152, 139, 125, 121]
DARK = [58, 56, 66, 62, 53, 56, 64, 58, 57, 58, 62, 61]
CROPPED = (48.0, 478.0, 548.0, 978.0)


def test_drawn_bytes_are_the_same_everywhere() -> None:
    """Fixed once, so that another NumPy or processor cannot silently make other copies."""
    grey = np.full((2, 2, 3), 128, np.uint8)
    assert SensorNoise(100, 3).alter(grey, KEY).ravel().tolist() == NOISE
    assert LowLight(0.2).alter(grey, KEY).ravel().tolist() == DARK
    assert Crop(0.5).view(1000, 1000, KEY) == CROPPED


@pytest.mark.parametrize("kind", REGISTRY.values(), ids=REGISTRY)
def test_severity_grows(kind: type[Degradation]) -> None:
    pixels = draw(480, 360)
    grades = [kind.at_severity(severity) for severity in range(1, 6)]
    if kind is Crop:
        errors = [-math.prod(grade.size(480, 360, KEY)) for grade in grades]
    else:
        errors = [mean_error(grade, pixels) for grade in grades]
    assert errors == sorted(errors)
    assert len(set(errors)) == 5


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(
        [
            *EACH,
            JpegTwice(50, 50, shift=7),
            Messenger(7, 80),
            Screenshot(3),
            MotionBlur(101),
            DefocusBlur(45),
            Crop(0.01),
            Chain((Crop(0.5), Messenger(9, 50), SensorNoise(50, 2), JpegTwice(60, 40, 7))),
            Chain((Jpeg(20), Webp(50), Crop(0.9))),
        ]
    ),
    st.integers(1, 40),
    st.integers(1, 40),
)
def test_any_size_works(degradation: Degradation, width: int, height: int) -> None:
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    encoded, shown = degradation.copy(pixels, KEY)
    assert encoded == degradation.apply(pixels, KEY)
    image = decode(encoded)
    assert (image.pixels == shown).all()
    assert (image.pixels == degradation.alter(pixels, KEY)).all()
    assert (image.width, image.height) == degradation.size(width, height, KEY)
    x0, y0, x1, y1 = degradation.view(width, height, KEY)
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height
    assert image.format == degradation.encoder()["format"]


@pytest.mark.parametrize("kind", REGISTRY.values(), ids=REGISTRY)
def test_only_rgb_is_taken(kind: type[Degradation]) -> None:
    for shape, dtype in (((4, 4), "uint8"), ((4, 4, 4), "uint8"), ((4, 4, 3), "float32")):
        with pytest.raises(ValueError, match="HWC uint8 RGB"):
            kind.at_severity(3).apply(np.zeros(shape, dtype), KEY)


# --- from TOML


def test_configs_make_degradations() -> None:
    blurs = from_config({"kind": "motion_blur", "severity": [1, 2, 3, 4, 5], "seed": 3})
    assert blurs == tuple(MotionBlur.at_severity(severity, seed=3) for severity in range(1, 6))
    assert from_config({"kind": "webp", "quality": [50, 20]}) == (Webp(50), Webp(20))
    assert from_config({"kind": "jpeg", "severity": 2}) == (Jpeg.at_severity(2),)
    assert from_config({"kind": "defocus_blur", "radius": 2}) == (DefocusBlur(2.0),)
    steps = [{"kind": "motion_blur", "severity": 3}, {"kind": "jpeg", "quality": 30}]
    chain = Chain((MotionBlur.at_severity(3), Jpeg(30)))
    assert from_config({"kind": "chain", "steps": steps}) == (chain,)
    assert len(from_config({"kind": "chain", "severity": [1, 2]})) == 2


NAN = float("nan")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "kind"),
        ({"kind": "rain"}, "kind of degradation.*'rain'"),
        ({"kind": ["jpeg"]}, "kind of degradation"),
        ([("kind", "jpeg")], "expected a table"),
        ({"kind": "jpeg"}, "needed: quality"),
        ({"kind": "jpeg", "quality": 30, "speed": 1}, "speed"),
        ({"kind": "jpeg", "quality": 30, "cls": 1}, "cls"),
        ({"kind": "jpeg", "severity": 1, "cls": 1}, "got quality, cls"),
        ({"kind": "jpeg", "quality": True}, r"1\.\.100.*True"),
        ({"kind": "jpeg", "quality": 30.0}, r"30\.0"),
        ({"kind": "jpeg", "quality": "30"}, "'30'"),
        ({"kind": "jpeg", "quality": 0}, "got 0"),
        ({"kind": "jpeg", "quality": 30, "subsampling": "4:1:1"}, "4:1:1"),
        ({"kind": "jpeg", "quality": []}, "distinct"),
        ({"kind": "jpeg", "quality": [30, 30]}, "distinct"),
        ({"kind": "jpeg", "quality": [[30]]}, "JPEG quality"),
        ({"kind": "jpeg", "quality": [30, 0]}, "got 0"),
        ({"kind": "jpeg", "quality": [30], "subsampling": ["4:4:4"]}, "at most one list"),
        ({"kind": "jpeg", "severity": 0}, r"severity in 1\.\.5"),
        ({"kind": "jpeg", "severity": True}, "severity.*True"),
        ({"kind": "jpeg", "severity": 2, "quality": 30}, "either a severity or quality"),
        ({"kind": "jpeg", "severity": 2, "seed": 1}, "seed"),
        ({"kind": "jpeg_twice", "first": 90, "quality": 50, "shift": 8}, r"0\.\.7"),
        ({"kind": "webp", "quality": 101}, "101"),
        ({"kind": "webp", "level": 50}, "level"),
        ({"kind": "messenger", "side": 0, "quality": 50}, "side"),
        ({"kind": "motion_blur", "length": 501}, "501"),
        ({"kind": "motion_blur", "length": 5, "angle": 180}, "without 180"),
        ({"kind": "motion_blur", "length": 5, "angle": NAN}, "nan"),
        ({"kind": "motion_blur", "length": 5, "seed": -1}, "seed"),
        ({"kind": "motion_blur", "length": 5, "seed": 2**63}, "seed"),
        ({"kind": "defocus_blur", "radius": 0.5}, "radius"),
        ({"kind": "defocus_blur", "radius": True}, "True"),
        ({"kind": "defocus_blur", "radius": 10**400}, "radius"),
        ({"kind": "sensor_noise", "photons": math.inf, "read_noise": 1}, "inf"),
        ({"kind": "sensor_noise", "photons": 10, "read_noise": -1}, "read noise"),
        ({"kind": "sensor_noise", "photons": 10}, "needed: photons, read_noise"),
        ({"kind": "low_light", "exposure": 1}, "without 1"),
        ({"kind": "low_light", "exposure": 0}, "exposure"),
        ({"kind": "crop", "keep": 0}, "without 0"),
        ({"kind": "crop", "keep": 1.1}, "1.1"),
        ({"kind": "chain"}, "steps"),
        ({"kind": "chain", "steps": []}, "at least one"),
        ({"kind": "chain", "steps": "jpeg"}, "steps"),
        ({"kind": "chain", "steps": ["jpeg"]}, "expected a table"),
        ({"kind": "chain", "steps": [{"quality": 3}]}, "kind"),
        ({"kind": "chain", "steps": [{"kind": "jpeg", "quality": [3]}]}, "no lists"),
        ({"kind": "chain", "steps": [{"kind": "chain", "severity": 1}]}, "no chains"),
        ({"kind": "chain", "severity": 1, "steps": []}, "either a severity or steps"),
        ({"kind": "chain", "severity": 1, "seed": 1}, "steps"),
    ],
)
def test_impossible_configs_are_refused(table: Any, message: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        from_config(table)
    caught.match(message)


@pytest.mark.parametrize(
    "text", ["", "[1]", "null", "{", '{"quality":NaN}', '{"quality":1e999}', "[" * 100_000]
)
def test_impossible_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        from_json("jpeg", text)
