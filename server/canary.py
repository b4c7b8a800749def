"""A second predictor looks at a share of the images; only the metrics hear of it."""

from __future__ import annotations

import logging
import zlib
from dataclasses import dataclass

from server.metrics import GateMetrics
from utility_gate.images import DecodeLimits
from utility_gate.predictor import UtilityPredictor
from utility_gate.types import Verdict

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Canary:
    """`predictor` judges about `share` (0 to 1) of the images, chosen by their bytes, so that the
    same image is always or never among them."""

    predictor: UtilityPredictor
    share: float

    def wants(self, data: bytes) -> bool:
        """Whether this image is among them."""
        return zlib.crc32(data) < self.share * 2**32

    def compare(
        self, data: bytes, verdict: Verdict, limits: DecodeLimits, metrics: GateMetrics
    ) -> None:
        """Judge the image too, and count how far the verdicts lie apart. Never raises."""
        info = self.predictor.card.info
        try:
            image = self.predictor.decode(data, limits)
            utility = self.predictor.judge(image, self.predictor.crop(image))
        except Exception:  # a canary that dies is news, not trouble
            metrics.canary_failures.labels(verdict.task, info.version).inc()
            log.warning("the canary of %s failed", verdict.task, exc_info=True)
            return
        judgement = self.predictor.card.thresholds.decide(utility)
        metrics.canary_verdicts.labels(
            verdict.task, info.version, verdict.judgement, judgement
        ).inc()
        metrics.canary_difference.labels(verdict.task, info.version).observe(
            abs(utility - (verdict.utility or 0.0))
        )
