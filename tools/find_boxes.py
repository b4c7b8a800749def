"""Boxes for photographs that have none: what a labelling network is sure of.

    python tools/find_boxes.py --networks NETWORKS.toml --network NAME --categories car truck \
        --label car --images DIR --folders FOLDER [FOLDER ...] --out DIR/boxes.json

Writes COCO's JSON with one category, `--label`, of the photographs in FOLDERS below DIR. A
detection counts from the score `--sure` on; photographs with one that is less sure, down to
`--unsure`, are left out, since nobody can say whether there is one or not; so are those in the
folders of `--shows` on which nothing was found, since all of those show one, or a part of it. Of
two boxes that overlap by IoU 0.6, a car that is also taken for a truck, the surer stays.
"""

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from labelers.detectors import place
from labelers.images import ImageBatch
from labelers.networks import Detector, open_network
from pipelines.boxes import suppress
from utility_gate.errors import ImageError
from utility_gate.files import read_source
from utility_gate.images import decode

OVERLAP = 0.6

Box = tuple[float, float, float, float]


def find(
    path: Path, network: Detector, numbers: list[int], sure: float, unsure: float
) -> tuple[tuple[int, int], list[Box]] | None:
    """Width and height of a photograph, and what is surely on it, xyxy in its pixels; None if the
    network is in doubt, or it is no photograph."""
    try:
        image = decode(read_source(path))
    except ImageError:
        return None
    batch = ImageBatch([image.pixels])
    height, width = image.pixels.shape[:2]
    found = place(network.forward(network.prepare(batch))[0], (0, 0, width, height))
    wanted = np.isin(found.classes, numbers) & (found.scores >= unsure)
    boxes, scores = found.boxes[wanted], found.scores[wanted]
    kept = suppress(boxes, scores, np.zeros(len(boxes), int), OVERLAP, len(boxes))
    if (scores[kept] < sure).any():
        return None
    limits = np.array([width, height] * 2, np.float32)
    clipped = np.clip(boxes[kept], 0, limits).tolist()
    return (width, height), [(box[0], box[1], box[2], box[3]) for box in clipped]


def main() -> None:
    """Find, and write them down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=Path, required=True)
    parser.add_argument("--network", required=True)
    parser.add_argument("--categories", nargs="+", required=True)
    parser.add_argument("--label", required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--folders", nargs="+", required=True)
    parser.add_argument("--shows", nargs="*", default=[])
    parser.add_argument("--sure", type=float, default=0.4)
    parser.add_argument("--unsure", type=float, default=0.25)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    network = open_network(args.network, args.networks, "detection")
    if not isinstance(network, Detector):
        raise SystemExit(f"{args.network} is no detector")
    numbers = [key for key, name in network.categories.items() if name in args.categories]
    if len(numbers) != len(args.categories):
        raise SystemExit(f"{args.network} does not know all of {args.categories}")
    paths = sorted(
        path
        for folder in args.folders
        for path in (args.images / folder).rglob("*")
        if path.suffix.lower() in (".jpg", ".jpeg", ".png")
    )

    def one(path: Path) -> tuple[tuple[int, int], list[Box]] | None:
        return find(path, network, numbers, args.sure, args.unsure)

    with ThreadPoolExecutor() as pool:
        results = list(pool.map(one, paths))
    images, annotations = [], []
    for number, (path, result) in enumerate(zip(paths, results, strict=True)):
        if result is None:
            continue
        (width, height), boxes = result
        name = path.relative_to(args.images).as_posix()
        if not boxes and name.startswith(tuple(f"{folder}/" for folder in args.shows)):
            continue
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        for left, top, right, bottom in boxes:
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": number,
                    "category_id": 1,
                    "bbox": [round(v, 1) for v in (left, top, right - left, bottom - top)],
                }
            )
    table = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": args.label}],
    }
    args.out.write_text(json.dumps(table))
    doubt = len(paths) - len(images)
    print(f"{len(images)} photographs, {len(annotations)} boxes; {doubt} left out, in doubt")


if __name__ == "__main__":
    main()
