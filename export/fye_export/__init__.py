"""From a released PyTorch checkpoint to a bundle: networks, checkpoint loader, graph cutting, ONNX export."""
