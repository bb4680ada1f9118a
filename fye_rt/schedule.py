"""DDIM coefficients in float64.

The formulas are those of diffusers' DDIMScheduler (eta 0), which evaluates them in float32: its alpha_bar differs
from the values here by up to 5e-7, about as much as between two versions of diffusers. Over 30 steps of a smooth
denoiser that moves the latents by less than diffusers' own float32 arithmetic does, so its rounding is not imitated.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fye_rt.errors import BundleError, OptionError

MAX_TRAIN_TIMESTEPS = 10_000  # ten times that of any model of this family; limits what a bundle can make us allocate

_ONLY: dict[str, object] = {
    "beta_schedule": "scaled_linear",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "prediction_type": "v_prediction",
    "set_alpha_to_one": True,
    "clip_sample": False,
}
_INERT = {"steps_offset"}  # in released configs; trailing spacing does not use it


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerConfig:
    """The noise schedule that the model was trained with, in diffusers' names.

    Attributes:
        num_train_timesteps: timesteps of training, 2 to 10,000.
        beta_start: first beta of the scaled-linear schedule, above 0.
        beta_end: last beta, at least `beta_start` and below 1.

    Each other field has one supported value; it is there so that a bundle says what it means.

    Raises:
        BundleError: a value that is not supported.
    """

    num_train_timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: str = "scaled_linear"
    rescale_betas_zero_snr: bool = True
    timestep_spacing: str = "trailing"
    prediction_type: str = "v_prediction"
    set_alpha_to_one: bool = True
    clip_sample: bool = False

    def __post_init__(self) -> None:
        for name, supported in _ONLY.items():
            if getattr(self, name) != supported:
                raise BundleError(f"scheduler: {name}={getattr(self, name)!r} is not supported, only {supported!r} is")
        count = self.num_train_timesteps
        if type(count) is not int or not 2 <= count <= MAX_TRAIN_TIMESTEPS:
            raise BundleError(
                f"scheduler: num_train_timesteps={count!r} is not a whole number from 2 to {MAX_TRAIN_TIMESTEPS}"
            )
        betas = (self.beta_start, self.beta_end)
        if not all(type(beta) in (int, float) for beta in betas) or not 0 < betas[0] <= betas[1] < 1:
            raise BundleError(f"scheduler: beta_start, beta_end = {betas} are not numbers with 0 < start <= end < 1")

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Read the configuration from a bundle's JSON; absent values are the released model's.

        Raises:
            BundleError: an unknown name or a value that is not supported.
        """
        unknown = sorted(set(data) - {field.name for field in fields(cls)} - _INERT)
        if unknown:
            raise BundleError(f"scheduler: unknown settings {', '.join(unknown)}; this bundle needs another version")
        return cls(**{name: value for name, value in data.items() if name not in _INERT})

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for a bundle's JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """The steps of one clip, in order. All arrays have shape (steps,) and are read-only.

    Attributes:
        timesteps: int64, training timesteps at which the network is evaluated; strictly decreasing.
        prev_timesteps: int64, timesteps that the steps lead to; below 0 means the clean latents.
        alpha_bar_t: float64, cumulative signal power at `timesteps`; exactly 0 at the first.
        alpha_bar_prev: float64, the same at `prev_timesteps`; 1 below timestep 0.
    """

    timesteps: NDArray[np.int64]
    prev_timesteps: NDArray[np.int64]
    alpha_bar_t: NDArray[np.float64]
    alpha_bar_prev: NDArray[np.float64]

    def __post_init__(self) -> None:
        for field in fields(self):
            getattr(self, field.name).flags.writeable = False

    def __len__(self) -> int:
        return len(self.timesteps)


def alpha_bar(config: SchedulerConfig) -> NDArray[np.float64]:
    """Return the cumulative signal power at every training timestep, float64 (num_train_timesteps,), ending in 0.

    Betas are scaled-linear; sqrt(alpha_bar) is then shifted and scaled to end at exactly 0 and start where it did
    (Lin et al. 2023, "Common Diffusion Noise Schedules and Sample Steps are Flawed", algorithm 1).
    """
    betas = np.linspace(config.beta_start**0.5, config.beta_end**0.5, config.num_train_timesteps) ** 2
    root = np.sqrt(np.cumprod(1 - betas))
    return np.asarray(((root - root[-1]) * (root[0] / (root[0] - root[-1]))) ** 2, dtype=np.float64)


def schedule(steps: int, config: SchedulerConfig) -> Schedule:
    """Build 1 to config.num_train_timesteps DDIM steps with trailing spacing.

    The previous timestep is t - num_train_timesteps // steps, which is diffusers' rule and not always the next
    timestep: 30 steps go from 966 to 933 and then evaluate at 932; 6 steps end at timestep 0, just short of clean.

    Raises:
        OptionError: `steps` out of range.
    """
    total = config.num_train_timesteps
    if not 1 <= steps <= total:
        raise OptionError(f"steps={steps} is not valid; allowed: 1 to {total}, the training timesteps of this model")
    # arange rounds halves as diffusers does; for some counts (61 is the first) the same rounding appends a surplus
    # timestep of -1, where diffusers would evaluate the network outside its training range
    timesteps = np.round(np.arange(total, 0, -total / steps)).astype(np.int64)[:steps] - 1
    previous = timesteps - total // steps
    power = alpha_bar(config)
    return Schedule(timesteps, previous, power[timesteps], np.where(previous >= 0, power[previous], 1.0))
