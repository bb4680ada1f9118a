"""Plans of TensorRT and TensorRT-RTX kept on disk.

A plan is a program. It is opened only if no other user can have written it, its bytes match the recorded hash, and it
was built for this graph, these weights, this GPU, TensorRT and driver. POSIX only.

    root/DIGEST/plan.trt    the plan; DIGEST is the digest of its key
    root/DIGEST/plan.json   its manifest; its modification time is when the plan was last opened
    root/DIGEST/runtime.SM  kernels that TensorRT-RTX compiled for this GPU when it ran the plan, behind their SHA-256
    root/timing.SM.TENSORRT TensorRT's timing cache behind its SHA-256
    root/kernels.SM         kernels that `fye_kernels.aot` compiled
    root/.locks/            one file per plan that was ever built or removed, and one for the root itself
"""

from fye_rt.plans.cache import Entry, PlanCache
from fye_rt.plans.folder import Plan
from fye_rt.plans.key import PlanKey, Profile, profile

__all__ = ["Entry", "Plan", "PlanCache", "PlanKey", "Profile", "profile"]
