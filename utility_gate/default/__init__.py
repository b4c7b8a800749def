"""The predictor that ships with the package: `model.onnx` and its `card.json`."""
