"""Image utility gating: how likely is it that a machine decides correctly on this image?

Importing this package, its client or its predictor never imports torch.
"""

__version__ = "0.1.0"
