"""How good a predictor is, beside the gates that need none: no torch."""
