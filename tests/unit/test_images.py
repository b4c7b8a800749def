"""What real files look like, and what a user would expect of each."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin

from tests.conftest import draw, encode
from utility_gate.errors import (
    ConfigError,
    CorruptImageError,
    ImageError,
    ImageTooLargeError,
    NotAnImageError,
)
from utility_gate.images import DecodeLimits, decode, encode_jpeg


def close(left: np.ndarray, right: np.ndarray, tolerance: float = 6.0) -> bool:
    difference = left.astype(float) - right.astype(float)
    return bool(np.abs(difference).mean() < tolerance)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_the_three_formats_decode_to_upright_rgb(photo: np.ndarray, format: str) -> None:
    options = {"lossless": True} if format == "WEBP" else {}
    image = decode(encode(photo, format, **options))
    assert image.format == format
    assert image.pixels.shape == photo.shape
    assert image.pixels.dtype == np.uint8
    assert (image.width, image.height) == (320, 240)
    assert close(image.pixels, photo, tolerance=9.0)
    assert (image.luma_quantization is not None) == (format == "JPEG")


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_grey_is_repeated_over_the_channels(photo: np.ndarray, format: str) -> None:
    pixels = decode(encode(photo[..., 0], format)).pixels
    assert pixels.shape == photo.shape
    assert (pixels[..., 0] == pixels[..., 2]).all()


def test_cmyk_jpeg_keeps_its_colours(photo: np.ndarray) -> None:
    buffer = io.BytesIO()
    Image.fromarray(photo).convert("CMYK").save(buffer, "JPEG", quality=95)
    assert close(decode(buffer.getvalue()).pixels, photo, tolerance=9.0)


def test_sixteen_bit_png_is_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 256 * 64).reshape(64, 256).astype(np.uint16)
    pixels = decode(encode(ramp, "PNG")).pixels
    assert pixels.shape == (64, 256, 3)
    assert close(pixels[..., 0], (ramp >> 8).astype(np.uint8), tolerance=1.0)
    assert pixels.max() == 255
    assert 100 < pixels.mean() < 155


def test_sixteen_bit_rgb_png_decodes() -> None:
    assert decode(png_16_bit_rgb(8, 8, 0x8000)).pixels.tolist()[0][0] == [128, 128, 128]


def png_16_bit_rgb(width: int, height: int, level: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    row = b"\x00" + struct.pack(">H", level) * 3 * width
    body = zlib.compress(row * height)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


def test_transparency_is_laid_over_white() -> None:
    rgba = np.zeros((16, 16, 4), np.uint8)
    assert (decode(encode(rgba, "PNG")).pixels == 255).all()
    palette = Image.new("P", (16, 16), 0)
    palette.putpalette([0, 0, 0] * 256)
    buffer = io.BytesIO()
    palette.save(buffer, "PNG", transparency=0)
    assert (decode(buffer.getvalue()).pixels == 255).all()


@pytest.mark.parametrize(("orientation", "turns"), [(3, 2), (6, -1), (8, 1)])
@pytest.mark.parametrize("scale_to", [None, 64])
def test_exif_rotation_is_applied(
    photo: np.ndarray, orientation: int, turns: int, scale_to: int | None
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode(encode(photo, "JPEG", quality=95, exif=exif), scale_to=scale_to)
    upright = np.rot90(photo, turns)
    assert (image.height, image.width) == upright.shape[:2]
    ratio = image.pixels.shape[1] / image.pixels.shape[0]
    assert ratio == pytest.approx(upright.shape[1] / upright.shape[0], rel=0.02)
    if scale_to is None:
        assert close(image.pixels, upright, tolerance=9.0)


def test_mpo_of_a_phone_counts_as_jpeg(photo: np.ndarray) -> None:
    buffer = io.BytesIO()
    second = Image.fromarray(photo[::-1].copy())
    Image.fromarray(photo).save(buffer, "MPO", save_all=True, append_images=[second])
    image = decode(buffer.getvalue(), scale_to=64)
    assert image.format == "JPEG"
    assert (image.width, image.height) == (320, 240)


def test_an_animation_is_judged_by_its_first_frame(photo: np.ndarray) -> None:
    buffer = io.BytesIO()
    Image.fromarray(photo).save(
        buffer, "WEBP", save_all=True, append_images=[Image.new("RGB", (320, 240))], lossless=True
    )
    assert close(decode(buffer.getvalue()).pixels, photo)


def test_one_pixel_is_an_image() -> None:
    image = decode(encode(np.full((1, 1, 3), 7, np.uint8), "PNG"), scale_to=256)
    assert image.pixels.tolist() == [[[7, 7, 7]]]


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_truncated_files_are_corrupt(photo: np.ndarray, format: str, share: float) -> None:
    data = encode(photo, format)
    with pytest.raises(CorruptImageError, match="truncated or damaged"):
        decode(data[: int(len(data) * share)])


def test_nothing_and_no_image_are_named() -> None:
    with pytest.raises(NotAnImageError, match="got 0 bytes"):
        decode(b"")
    with pytest.raises(NotAnImageError, match="begin with 25 50 44 46"):
        decode(b"%PDF-1.7")


@pytest.mark.parametrize("format", ["GIF", "BMP", "TIFF"])
def test_other_formats_are_refused(photo: np.ndarray, format: str) -> None:
    with pytest.raises(NotAnImageError):
        decode(encode(photo, format))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_hundred_megapixels_are_refused_before_decoding() -> None:
    data = bomb(10_000, 10_000)
    assert len(data) < 1000
    with pytest.raises(ImageTooLargeError, match="10000 x 10000 = 100000000"):
        decode(data)


def test_eighty_megapixels_decode_if_allowed() -> None:
    data = encode(np.zeros((8_000, 10_000), np.uint8), "JPEG")
    image = decode(data, DecodeLimits(max_pixels=80_000_000), scale_to=256)
    assert (image.width, image.height) == (10_000, 8_000)
    assert image.pixels.shape == (1000, 1250, 3)


def test_what_follows_a_jpeg_does_not_count(photo: np.ndarray) -> None:
    """Phones append videos, in which any bytes may stand."""
    data = encode(photo)
    assert (decode(data + b"\xff\xda" * 10_000).pixels == decode(data).pixels).all()
    thumbnail = b"\xff\xe1" + (2 + 4000).to_bytes(2) + b"\xff\xda" * 2000
    assert decode(data[:2] + thumbnail + data[2:]).format == "JPEG"


@pytest.mark.parametrize(
    ("junk", "message"),
    [(b"\xff\xfe\x00\x02", "2000 segments"), (b"\xff", "1000 bytes between two segments"),
     (b"x", "1000 bytes between two segments")],
)  # fmt: skip
def test_endless_segments_are_refused(photo: np.ndarray, junk: bytes, message: str) -> None:
    data = encode(photo)
    with pytest.raises(CorruptImageError, match=f"at most {message}"):
        decode(data[:2] + junk * 5000 + data[2:])
    if junk != b"x":  # Pillow takes none of that
        assert decode(data[:2] + junk * 100 + data[2:]).format == "JPEG"
    chunk = b"\0\0\0\0prVt" + zlib.crc32(b"prVt").to_bytes(4)
    png = encode(photo, "PNG")
    decode(png[:33] + chunk * 100 + png[33:])
    with pytest.raises(CorruptImageError, match="at most 50000 chunks"):
        decode(png[:33] + chunk * 60_000 + png[33:])


def test_a_jpeg_of_endless_scans_is_refused_before_decoding(photo: np.ndarray) -> None:
    data = encode(photo, "JPEG", progressive=True)
    start = data.rindex(b"\xff\xda")
    scan = data[start:-2]
    assert decode(data[:-2] + scan * 20 + data[-2:]).pixels.shape == photo.shape
    with pytest.raises(CorruptImageError, match="at most 100 scans"):
        decode(data[:-2] + scan * 200 + data[-2:])


def ill_typed_exif() -> bytes:
    """Orientation 6 beside tags whose type is not what the standard says."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[0x0112] = 6
    for tag in (0x010F, 0x0128):  # Make should be text, ResolutionUnit a short
        tags.tagtype[tag] = 5
        tags[tag] = TiffImagePlugin.IFDRational(5, 2)
    return b"Exif\x00\x00II*\x00\x08\x00\x00\x00" + tags.tobytes(8)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_spoil_good_pixels(photo: np.ndarray) -> None:
    assert decode(encode(photo, exif=ill_typed_exif())).pixels.shape == (320, 240, 3)
    cut = encode(photo, exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    assert decode(cut).pixels.shape == photo.shape


def test_decoding_in_threads_leaves_the_warning_filters_alone(jpeg: bytes) -> None:
    import warnings
    from concurrent.futures import ThreadPoolExecutor

    before = list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(decode, [jpeg] * 40))
    assert warnings.filters == before


def test_an_absurd_header_is_refused() -> None:
    with pytest.raises(ImageTooLargeError):
        decode(bomb(2**31 - 1, 2**31 - 1))


def bomb(width: int, height: int) -> bytes:
    """A PNG header that promises pixels which never come."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", len(header))
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
        + struct.pack(">I", 0)
        + b"IDAT"
        + struct.pack(">I", zlib.crc32(b"IDAT"))
    )


def test_too_many_bytes_are_refused_unread() -> None:
    with pytest.raises(ImageTooLargeError, match="at most 10 bytes, got 11"):
        decode(bytes(11), DecodeLimits(max_bytes=10))


def test_limits_must_be_positive() -> None:
    with pytest.raises(ConfigError, match="max_pixels"):
        DecodeLimits(max_pixels=0)
    with pytest.raises(ConfigError, match="at most 89478485"):
        DecodeLimits(max_pixels=10**9)


def test_scaled_decoding_never_goes_below_what_was_asked() -> None:
    data = encode_jpeg(draw(1600, 1200), 90)
    image = decode(data, scale_to=256)
    assert image.pixels.shape[:2] == (300, 400)
    assert (image.width, image.height) == (1600, 1200)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_files_decode_or_raise_ours(data: st.DataObject) -> None:
    format = data.draw(st.sampled_from(["JPEG", "PNG", "WEBP"]))
    whole = bytearray(_SMALL[format])
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    try:
        image = decode(
            bytes(whole[:cut] if cut % 3 == 0 else whole), DecodeLimits(max_pixels=10**6)
        )
    except ImageError:
        return
    assert image.pixels.ndim == 3


_SMALL = {name: encode(draw(48, 40), name) for name in ("JPEG", "PNG", "WEBP")}


def test_encoding_is_repeatable_and_validated(photo: np.ndarray) -> None:
    assert encode_jpeg(photo, 30) == encode_jpeg(photo.copy(), 30)
    with pytest.raises(ValueError, match=r"1\.\.100, got 0"):
        encode_jpeg(photo, 0)
    with pytest.raises(ValueError, match="HWC uint8"):
        encode_jpeg(photo.astype(np.float32), 50)  # type: ignore[arg-type]
