"""Workers as actors of a Ray cluster, or of a Ray that runs on this machine alone.

Ray places the actors, restarts an actor that died, and retries its task. Tasks read and write files, so all machines
must see these under the same names.
"""

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fye_rt.batch.workers import TRIES, Died, Make, Server, Task
from fye_rt.errors import BackendError, OptionError

LOCAL = "local"
PATIENCE = 10.0  # seconds for a cluster's head to answer


class Cluster:
    """Workers of a Ray cluster, each with a GPU, or with a share of the cores if the cluster has no GPU.

    Args:
        make: takes a number of threads and returns the function that makes a worker.
        address: address of a running cluster, such as "ray://head:10001" or "auto"; "local" starts Ray on this machine.
        size: number of workers; 0: one per GPU, or without GPUs as many as there is room for.
        threads: cores of each worker; 0 without GPUs: those of the largest machine, or with a `size` a share of all.

    Raises:
        BackendError: Ray is not installed, or the cluster is not reached.
        OptionError: the cluster lacks room for the workers.
    """

    def __init__(self, make: Callable[[int], Make], address: str, size: int = 0, threads: int = 0) -> None:
        try:
            import ray
        except ImportError as error:
            raise BackendError(f"Ray cannot be imported ({error}); run: pip install 'fye-rt[cluster]'") from error
        self._ray = ray
        self._connect(address)
        try:
            self.size, resources = _shares(self._ray.nodes(), size, threads)
        except BaseException:
            self._ray.shutdown()
            raise
        actor = self._ray.remote(Server).options(max_restarts=-1, max_task_retries=TRIES - 1, **resources)
        threads = threads if "num_gpus" in resources else int(resources["num_cpus"])
        self._actors = [actor.remote(make(threads)) for _ in range(self.size)]
        self._running: dict[Any, int] = {}

    def give(self, worker: int, task: Task) -> None:
        """Send a task to the worker's actor."""
        self._running[self._actors[worker].do.remote(task)] = worker

    def take(self) -> Sequence[tuple[int, Any]]:
        """Wait for a worker, and return the number and result of each that is done."""
        ready, _ = self._ray.wait(list(self._running), num_returns=1)
        return [(self._running.pop(reference), self._result(reference)) for reference in ready]

    def close(self) -> None:
        """End the actors and leave the cluster."""
        for actor in self._actors:
            self._ray.kill(actor)
        self._ray.shutdown()

    def _connect(self, address: str) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no telemetry
        settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if address == LOCAL:
            settings["include_dashboard"] = False
        try:
            _knock(address)  # Ray itself would retry for minutes
            self._ray.init(address=address, **settings)
        except Exception as error:  # Ray raises ConnectionError, RuntimeError, ValueError and its own
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise BackendError(f"no Ray cluster at {address!r} ({reason}); start one, or pass ray='local'") from error

    def _result(self, reference: Any) -> Any:
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            reason = next(iter(str(error).splitlines()), "no reason given")
            return Died(f"{TRIES} workers died at this task ({type(error).__name__}: {reason})")


def _knock(address: str) -> None:
    """Raise OSError if an address has a host and a port, and nothing listens there."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()


def _shares(nodes: Sequence[Mapping[str, Any]], size: int, threads: int) -> tuple[int, dict[str, float]]:
    """Return the number of workers and the resources of each, from the answer of `ray.nodes()`; see `Cluster`."""
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    gpus = sum(int(node.get("GPU", 0)) for node in alive)
    cores = [int(node.get("CPU", 0)) for node in alive]
    if gpus:
        if size > gpus:
            raise OptionError(f"{size} workers share {gpus} GPUs; pass workers={gpus} or less")
        return size or gpus, {"num_gpus": 1, "num_cpus": 1}
    most = max(cores, default=0)
    each = threads or (max(1, sum(cores) // size) if size else most)
    room = sum(count // each for count in cores) if 0 < each <= most else 0
    if not 0 < (size or 1) <= room:
        raise OptionError(f"the cluster has room for {room} workers of {each} cores; pass fewer workers or threads")
    return size or room, {"num_cpus": each}
