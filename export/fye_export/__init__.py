"""Exports a released PyTorch checkpoint to a bundle: checkpoint loader, networks, graph cutting, ONNX export."""
