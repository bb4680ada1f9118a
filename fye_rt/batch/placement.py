"""Chooses the workers: this process, other processes of this machine, or a Ray cluster."""

from collections.abc import Callable

from fye_rt import machine
from fye_rt.backends import gpu
from fye_rt.batch.ray import Cluster
from fye_rt.batch.workers import Alone, Make, Processes, WorkerPool, devices, threads_each
from fye_rt.errors import OptionError


def open_workers(make: Callable[[int], Make], threads: int, workers: int | None, ray: str | None) -> WorkerPool:
    """Open the requested workers.

    Args:
        make: takes a number of threads and returns the function that makes a worker.
        threads: threads of each worker; 0: its share of the cores.
        workers: number of workers; None: one, or on a cluster as many as it has room for.
        ray: address of a cluster, "local" to start one here, or None.

    Raises:
        FyeError: the machine or cluster lacks room for the workers, or the cluster is not reached.
    """
    if ray is not None:
        return Cluster(make, ray, workers or 0, threads)
    if workers in (None, 1):
        return Alone(make(threads))
    gpus = devices(len(gpu.gpus().gpus))
    if gpus and workers > len(gpus):
        raise OptionError(f"{workers} workers share {len(gpus)} GPUs; pass workers={len(gpus)} or less")
    return Processes(make(threads_each(threads, workers, machine.cores())), workers, gpus)
