"""What happens to an image on its way: compression, motion, focus, light, cropping.

Labelling makes degraded copies with this package and training makes them again, so that no
copy has to be stored; the SHA-256 in the label table proves that both made the same bytes.
"""

from utility_gate.degrade.base import Degradation, View
from utility_gate.degrade.blur import DefocusBlur, MotionBlur
from utility_gate.degrade.chain import Chain
from utility_gate.degrade.codecs import OWN_COPIES, decode_copy
from utility_gate.degrade.crop import Crop
from utility_gate.degrade.jpeg import DEFAULT_QUALITIES, Jpeg, JpegTwice, ladder
from utility_gate.degrade.light import LowLight, SensorNoise
from utility_gate.degrade.messenger import Messenger
from utility_gate.degrade.registry import (
    REGISTRY,
    describe,
    from_config,
    from_json,
    from_parameters,
    to_json,
)
from utility_gate.degrade.screenshot import Screenshot
from utility_gate.degrade.webp import Webp

PRISTINE = "none"
"""Name in tables of the copy that is the source itself."""

__all__ = [
    "DEFAULT_QUALITIES",
    "OWN_COPIES",
    "PRISTINE",
    "REGISTRY",
    "Chain",
    "Crop",
    "DefocusBlur",
    "Degradation",
    "Jpeg",
    "JpegTwice",
    "LowLight",
    "Messenger",
    "MotionBlur",
    "Screenshot",
    "SensorNoise",
    "View",
    "Webp",
    "decode_copy",
    "describe",
    "from_config",
    "from_json",
    "from_parameters",
    "ladder",
    "to_json",
]
