"""Using a finished model: probabilities, heat maps, reconstructions, ONNX."""
