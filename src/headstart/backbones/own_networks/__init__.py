"""Networks of the user's own: ONNX models with a description beside them."""
