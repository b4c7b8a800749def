"""The predictors that ship with the package, a folder for each task: `card.json`, `model.onnx` and
`model.int8.onnx`."""
