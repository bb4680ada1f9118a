"""TensorRT plans kept on disk.

A plan is a program: it is opened only if nobody but this user can have put it there or changed it, its bytes have the
hash that was noted, and it was made for this graph, these weights, this GPU, TensorRT and driver. POSIX alone.

    root/DIGEST/plan.trt    the plan; DIGEST is that of its key
    root/DIGEST/plan.json   what it is; its modification time is when the plan was last opened
    root/timing.SM.TENSORRT TensorRT's timing cache behind its SHA-256
    root/kernels.SM         kernels of our own, as `fye_kernels.aot` compiles them
    root/.locks/            one file per plan that somebody built or removed, and one for the folder itself
"""

from fye_rt.plans.cache import Entry, PlanCache
from fye_rt.plans.folder import Plan
from fye_rt.plans.key import PlanKey, Profile, profile

__all__ = ["Entry", "Plan", "PlanCache", "PlanKey", "Profile", "profile"]
