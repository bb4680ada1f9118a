"""Triton kernels of what is this model's own, each beside the plain PyTorch that it replaces.

`reference` in a module is that PyTorch; the function named as the module launches the kernel on the tensors' GPU, or in
Triton's interpreter (TRITON_INTERPRET=1, set before Triton is imported).
"""
