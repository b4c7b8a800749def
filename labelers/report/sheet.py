"""The contact sheet: sources that flip, each with its copies, made again and checked by digest."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from labelers.report.data import Death
from labelers.report.read import Run
from labelers.rules import NON_USEFUL, UNDECIDED, USEFUL
from utility_gate.degrade import decode_copy
from utility_gate.images import Pixels
from utility_gate.remake import load_source, remake_copy
from utility_gate.tables import LABEL_SCHEMA
from utility_gate.types import Label

THUMB = 84
"""Side of a thumbnail in pixels: eleven stand side by side in a page."""

REDUCTION = 2
"""Pixels of the image to one of the thumbnail, along each side. More would smooth the artefacts
away; less would show a patch that nobody recognises."""

WEBP_QUALITY = 93
_METHOD = 4
_MARKS = {USEFUL: ("useful", "U"), NON_USEFUL: ("non-useful", "N"), UNDECIDED: ("undecided", "?")}


@dataclass(frozen=True, slots=True)
class Thumb:
    """One framed image: a data URI, what it shows, its label in words and as one letter ("" for
    the source itself), and whether the source dies here."""

    uri: str
    caption: str
    outcome: str
    letter: str
    dies: bool


@dataclass(frozen=True, slots=True)
class SheetRow:
    """One source: its path, the label of the degradation that kills it, and its thumbnails: the
    whole source, its centre, and the centre of each copy."""

    source: str
    dies_at: str
    thumbs: tuple[Thumb, ...]


def make_sheet(run: Run, deaths: Sequence[Death], images: Path) -> list[SheetRow]:
    """One row per death.

    Raises:
        TableError: if a source is missing or another file than the labelled one, or a copy cannot
            be made again with the same bytes.
    """
    return [_make_row(run, death, images) for death in deaths]


def _make_row(run: Run, death: Death, images: Path) -> SheetRow:
    rows = run.labels.select(LABEL_SCHEMA.names).take(list(death.rows)).to_pylist()
    labels = [Label(**row) for row in rows]
    pixels = load_source(images, labels[0].source, labels[0].source_digest)
    share = min(1.0, THUMB * REDUCTION / min(pixels.shape[:2]))
    thumbs = [
        Thumb(_uri(_whole(pixels)), "whole source", "source", "", dies=False),
        Thumb(_uri(_centre(pixels, share)), "pristine", "source", "", dies=False),
    ]
    for row, label in zip(death.rows, labels, strict=True):
        step = int(run.step[row])
        outcome, letter = _MARKS[int(run.label[row])]
        copy = decode_copy(remake_copy(pixels, label))
        caption = run.steps[step].short
        dies = step == death.step
        thumbs.append(Thumb(_uri(_centre(copy, share)), caption, outcome, letter, dies))
    return SheetRow(labels[0].source, run.steps[death.step].label, tuple(thumbs))


def _centre(pixels: Pixels, share: float) -> Image.Image:
    """The central square whose side is `share` of the image's shorter side, at `THUMB` pixels."""
    height, width = pixels.shape[:2]
    side = max(1, round(share * min(height, width)))
    top, left = (height - side) // 2, (width - side) // 2
    square = np.ascontiguousarray(pixels[top : top + side, left : left + side])
    filter_ = Image.Resampling.BOX if side >= THUMB else Image.Resampling.NEAREST
    return Image.fromarray(square).resize((THUMB, THUMB), filter_)


def _whole(pixels: Pixels) -> Image.Image:
    """All of the image, its longer side `THUMB` pixels."""
    image = Image.fromarray(pixels)
    image.thumbnail((THUMB, THUMB))
    return image


def _uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=WEBP_QUALITY, method=_METHOD)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
