"""A finished model, used: probabilities, heat maps, reconstructions, ONNX."""
