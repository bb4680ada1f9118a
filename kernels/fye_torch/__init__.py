"""The torch backend: runs the networks in PyTorch, with Triton kernels on a GPU."""
