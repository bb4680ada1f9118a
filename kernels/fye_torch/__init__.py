"""The torch backend: the networks in PyTorch, with Triton kernels where there is a GPU."""
