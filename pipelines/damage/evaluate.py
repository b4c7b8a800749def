"""How good the damage pipeline's networks are, on photographs that they were not trained on."""

from __future__ import annotations

from pathlib import Path

from pipelines.damage.data import classifier_job
from pipelines.damage.pipeline import DamagePipeline
from pipelines.embedded import CLASSIFIER, DETECTOR
from pipelines.evaluate import evaluate as evaluate_heads
from pipelines.evaluate_boxes import evaluate_from_file
from pipelines.results import write_results
from pipelines.tables import head_table, multi_label_tables


def evaluate(config: Path, data: Path, model: str, out: Path) -> str:
    """Measure a pipeline's networks on the test side into `out/classifier` and `out/detector`;
    returns the tables.

    Raises:
        ConfigError, TableError: if the file or the images cannot be used.
        CheckpointError: if `model` holds no usable pipeline.
    """
    pipeline = DamagePipeline.load(model)
    job = classifier_job(config, data, out / CLASSIFIER)
    measured = evaluate_heads(pipeline.classifier, job.side("train"), job.side("test"), views=True)
    write_results(measured.heads, job.out, *multi_label_tables(measured.multi_label))
    boxes = evaluate_from_file(pipeline.detector, config, data, out / DETECTOR)
    return f"{head_table(measured.heads)}\n{boxes}"
