"""Triton kernels for this model's own operations, each beside the plain PyTorch that it replaces.

In each module `reference` is that PyTorch. The function named like the module launches the kernel, on the tensors' GPU
or in Triton's interpreter (TRITON_INTERPRET=1, set before Triton is imported).
"""
