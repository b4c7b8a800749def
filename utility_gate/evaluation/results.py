"""What an evaluation found: frozen values, ready for tables, JSON and pictures."""

from __future__ import annotations

from dataclasses import dataclass

from utility_gate.evaluation.scores import Bin
from utility_gate.statistics import Interval


@dataclass(frozen=True, slots=True)
class SetResult:
    """One gate on one source set."""

    useful: int
    non_useful: int
    balanced_accuracy: float
    auroc: float


@dataclass(frozen=True, slots=True)
class KindResult:
    """One gate on the copies of one kind of degradation. `useful_recall` is the share of useful
    copies that it calls useful, `non_useful_recall` that of the others it does not; None where the
    class is missing, and then there is neither balanced accuracy nor AUROC."""

    useful: int
    non_useful: int
    useful_recall: float | None
    non_useful_recall: float | None
    balanced_accuracy: float | None
    auroc: float | None


@dataclass(frozen=True, slots=True)
class GateResult:
    """One gate on the test side; `threshold` is on its own score, useful at or above. `by_set`
    has the folders of the sources (the first part of their paths) that hold both classes,
    `by_kind` the kinds of degradation."""

    name: str
    threshold: float
    balanced_accuracy: Interval
    auroc: Interval
    resaved_balanced_accuracy: float | None
    by_set: dict[str, SetResult]
    by_kind: dict[str, KindResult]


@dataclass(frozen=True, slots=True)
class Against:
    """The predictor's error (1 - balanced accuracy) over that of the trivial gate with the best
    balanced accuracy on these copies; below 1 the predictor errs less."""

    gate: str
    error_ratio: Interval


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All gates on the same decided copies, the predictor first; ECE is the predictor's, `balanced`
    weighs the classes equally, as does `reliability`. `undecided` held-out copies have no label and
    are not judged. `tables` holds the SHA-256 of what was measured on."""

    gates: tuple[GateResult, ...]
    against: Against
    ece: float
    ece_balanced: float
    reliability: tuple[Bin, ...]
    sources: int
    useful: int
    non_useful: int
    undecided: int
    tables: dict[str, str]


@dataclass(frozen=True, slots=True)
class Curve:
    """A gate's line in a picture; points (x, y)."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of Table I (task "classification") or II ("detection"): a predictor on the held-out
    side of the table that it was trained for; `networks` voted there."""

    predictor: str
    trained_on: str
    task: str
    networks: tuple[str, ...]
    evaluation: Evaluation
    roc: tuple[Curve, ...]


@dataclass(frozen=True, slots=True)
class Crossing:
    """A predictor on a table: its balanced accuracy, and how much lower that is than the accuracy
    of `trained`, the predictor that was trained for the table (paired). `loss` is None on the own
    table."""

    predictor: str
    table: str
    task: str
    trained: str
    balanced_accuracy: Interval
    loss: Interval | None


@dataclass(frozen=True, slots=True)
class Encodings:
    """Predictors and trivial gates by kind of degradation, on the held-out side of one table.
    `thresholds_of` is the table on whose training side the trivial gates' thresholds are best."""

    table: str
    task: str
    sources: int
    thresholds_of: str
    gates: dict[str, dict[str, KindResult]]


@dataclass(frozen=True, slots=True)
class Rival:
    """A trivial gate that lets as many copies pass as the predictor: the number on these, and the
    predictor's minus it (paired)."""

    gate: str
    value: Interval
    ahead: Interval


@dataclass(frozen=True, slots=True)
class Passed:
    """A classifier behind one predictor at one threshold on utility: which `share` passes, the
    top-1 accuracy on that, and by how much it exceeds the accuracy on all copies."""

    predictor: str
    trained_on: str
    threshold: float
    share: Interval
    top1: Interval
    rise: Interval
    rivals: tuple[Rival, ...]


@dataclass(frozen=True, slots=True)
class Area:
    """The partial area under a gate's error-versus-discard curve, and where it lies between random
    (0) and an oracle (1)."""

    gate: str
    area: Interval
    gain: Interval


@dataclass(frozen=True, slots=True)
class ClassifierResult:
    """An unseen classifier (Fig. 2a, Table III): top-1 accuracy on all copies, on what passes, and
    on what is left by share discarded. `by_training` is the accuracy behind the first
    classification-trained predictor minus that behind the first detection-trained one, both at 1/2;
    None without the two. `voted`: it has a vote in a label table of the study and is not unseen."""

    network: str
    voted: bool
    copies: int
    sources: int
    top1: Interval
    passed: tuple[Passed, ...]
    by_training: Interval | None
    areas: tuple[Area, ...]
    curves: tuple[Curve, ...]


@dataclass(frozen=True, slots=True)
class Replaced:
    """A detector where copies of a utility below 1/2 are replaced by their pristine images: which
    `share` is, mAP (IoU 0.5 to 0.95) and AP50 afterwards, and the rise in mAP. The rivals' values
    are mAP too."""

    predictor: str
    trained_on: str
    share: Interval
    map: Interval
    ap50: Interval
    rise: Interval
    rivals: tuple[Rival, ...]


@dataclass(frozen=True, slots=True)
class DetectorResult:
    """An unseen detector (Fig. 2b, Table IV): mAP and AP50 on all copies, on the pristine images
    (`pristine_map`), and after replacement. `by_training` as in `ClassifierResult`, in mAP, the
    detection-trained predictor first."""

    network: str
    voted: bool
    copies: int
    sources: int
    map: Interval
    ap50: Interval
    pristine_map: float
    replaced: tuple[Replaced, ...]
    by_training: Interval | None


@dataclass(frozen=True, slots=True)
class Unseen:
    """One table of observations by networks without a vote. `left_out` sources are on the
    predictors' training side."""

    name: str
    task: str
    left_out: int
    classifiers: tuple[ClassifierResult, ...] = ()
    detectors: tuple[DetectorResult, ...] = ()


@dataclass(frozen=True, slots=True)
class PredictorFacts:
    """Which predictor a name stands for; `sha256` is its weights'."""

    name: str
    card: str
    sha256: str
    trained_on: str
    useful_from: float


@dataclass(frozen=True, slots=True)
class Results:
    """A whole study. `inputs` holds the SHA-256 of every table."""

    version: str
    inputs: dict[str, str]
    predictors: tuple[PredictorFacts, ...]
    rows: tuple[Row, ...]
    crossings: tuple[Crossing, ...]
    encodings: tuple[Encodings, ...]
    unseen: tuple[Unseen, ...]
