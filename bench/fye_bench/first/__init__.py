"""The first minutes on a GPU: everything that no other machine can show, in one run (`bench/gpu.sh first`).

A stage is a module with `run`, and a process of its own (`__main__`); what it learns is written at once (`record`).
"""
