"""Training recipes: networks, stages, batches and losses."""

from dataclasses import dataclass, replace
from typing import Literal

from fye_export import random_checkpoint
from fye_export.config import CLIPConfig, GuiderConfig, ModelConfig, UNetConfig, VAEConfig

Learns = Literal["vae", "decoder", "image", "motion"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage of training.

    Attributes:
        learns: vae: the autoencoder; decoder: only its decoder, so that latents stay the same; image: the networks
            that animate single frames; motion: the motion modules.
        start: stages whose averaged weights the stage starts from; later ones override earlier ones, and weights
            that none of them has start untrained.
        size: side of the square frames, in pixels; a multiple of 8.
        seed: added to the run's seed, so that the stage sees other characters than earlier stages.
        steps: optimizer steps.
        portraits: portraits in a batch.
        targets: frames of each portrait in a batch; in the motion stage consecutive frames of a clip.
        learning_rate: AdamW's learning rate between warm-up and cool-down (`pace`).
        warm_up: steps over which the learning rate rises from 0.
        cool_down: share of the steps, at the end, in which the learning rate falls.
        ema: decay of the averaged weights, which are the released ones.
        facial: weights of the error inside the expression mask and inside the face mask (`losses.emphasis`).
        late_facial: replaces `facial` while the learning rate falls and detail is learnt; None: no change.
        dropped: share of the portraits that are hidden from the denoiser, for guidance.
        crop: side of the square pieces, in pixels, that a VAE stage sees until the learning rate falls; it sees whole
            frames afterwards. 0: whole frames throughout.
        strides: possible distances between the frames of a clip in the motion stage, as between key frames of long
            clips; empty if targets are single pictures.
        shared_noise: in the motion stage, whether the frames of a clip share a random part of their noise
            (`fye_rt.options.Options.shared_noise`).
    """

    learns: Learns
    start: tuple[str, ...] = ()
    size: int
    seed: int = 0
    steps: int
    portraits: int
    targets: int
    learning_rate: float
    warm_up: int = 200
    cool_down: float = 0.2
    ema: float = 0.999
    facial: tuple[float, float] = (0.0, 0.0)
    late_facial: tuple[float, float] | None = None
    dropped: float = 0.0
    crop: int = 0
    strides: tuple[int, ...] = ()
    shared_noise: bool = False

    def pace(self, step: int) -> float:
        """Learning rate relative to its maximum: it rises, stays constant, and falls to 0 at the end.

        Raising the number of steps before the cool-down has the same effect as starting with that number.
        """
        return min(1.0, (step + 1) / self.warm_up, (self.steps - step) / (self.cool_down * self.steps))

    def cooling(self, step: int) -> bool:
        """Whether the learning rate falls at a step."""
        return step > (1 - self.cool_down) * self.steps

    def facial_at(self, step: int) -> tuple[float, float]:
        """Weights of the facial loss at a step."""
        return self.late_facial if self.late_facial and self.cooling(step) else self.facial


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A training recipe.

    Attributes:
        model: sizes of the networks; the VAE's scaling factor is measured after its stage.
        stages: stages by name, in training order; the first one trains the VAE.
        chunk: identities that are drawn together.
        frames: frames drawn of each identity, the first one with a neutral face.
        window: number of chunks that batches are sampled from; a new chunk replaces the oldest.
        reuse: average number of times that a frame is a target before its chunk is replaced.
        kl: weight of the VAE's KL divergence, nats per latent value, against an error in units of [-1, 1].
    """

    model: ModelConfig
    stages: dict[str, Stage]
    chunk: int = 64
    frames: int = 9
    window: int = 24
    reuse: float = 4.0
    kl: float = 1e-4

    @property
    def size(self) -> int:
        """Side of the frames that the finished model is meant for, in pixels."""
        return max(stage.size for stage in self.stages.values())

    def trained(self, *learns: Learns, before: str | None = None) -> str:
        """Name of the last stage (before the stage `before`, if given) that learns one of `learns`."""
        names = list(self.stages)
        earlier = names if before is None else names[: names.index(before)]
        return [name for name in earlier if self.stages[name].learns in learns][-1]


def _mini(stages: dict[str, Stage]) -> Preset:
    return Preset(
        # Widths are multiples of 32 (the motion modules' norm groups). Most of a frame's detail is in the first level,
        # and four levels of 64 channels would not fit into 20 MB of float16.
        model=ModelConfig(
            unet=UNetConfig(
                block_out_channels=(64, 64, 64, 32), heads=4, norm_num_groups=16, cross_attention_dim=32, clip_dim=64
            ),
            lmk_guider=GuiderConfig(block_out_channels=(16, 32, 48, 64), out_channels=64),
            vae=VAEConfig(block_out_channels=(16, 32, 64, 64), layers_per_block=1, norm_num_groups=8),
            image_encoder=CLIPConfig(
                hidden_size=64,
                intermediate_size=128,
                num_hidden_layers=2,
                num_attention_heads=4,
                patch_size=16,
                image_size=64,
                projection_dim=32,
            ),
        ),
        stages=stages,
    )


# for a CPU: four targets per portrait, because with two the reference network takes a quarter of a step
_MINI_STAGES = {
    "vae": Stage(
        learns="vae",
        size=128,
        steps=13_000,
        portraits=64,
        targets=1,
        learning_rate=1e-3,
        ema=0.998,
        facial=(4.0, 1.0),
        crop=64,
    ),
    "image": Stage(
        learns="image",
        size=128,
        steps=12_500,
        portraits=6,
        targets=4,
        learning_rate=6e-4,
        facial=(2.0, 0.5),
        late_facial=(6.0, 1.5),
        dropped=0.125,
    ),
    "motion": Stage(
        learns="motion",
        start=("image",),
        size=128,
        steps=1_500,
        portraits=2,
        targets=16,
        learning_rate=5e-4,
        facial=(2.0, 0.5),
        dropped=0.125,
        strides=(1, 1, 2, 4, 8, 16, 24),
        shared_noise=True,
    ),
    # The same networks in larger frames, where a person's eye is two latent pixels wide and the squares of
    # the irises don't cover its lids. The earlier weights already do much of this.
    "image_192": Stage(
        learns="image",
        start=("image",),
        size=192,
        seed=192,
        steps=2_450,
        portraits=6,
        targets=4,
        learning_rate=5e-4,
        warm_up=50,
        cool_down=0.6,
        ema=0.998,
        facial=(6.0, 1.5),
        dropped=0.125,
    ),
    "motion_192": Stage(
        learns="motion",
        start=("motion", "image_192"),
        size=192,
        seed=192,
        steps=200,
        portraits=2,
        targets=16,
        learning_rate=4e-4,
        warm_up=20,
        cool_down=0.6,
        ema=0.99,
        facial=(6.0, 1.5),
        dropped=0.125,
        strides=(1, 1, 2, 4, 8, 16, 24),
        shared_noise=True,
    ),
    "decoder_192": Stage(
        learns="decoder",
        start=("vae",),
        size=192,
        seed=192,
        steps=400,
        portraits=24,
        targets=1,
        learning_rate=5e-4,
        warm_up=50,
        cool_down=0.6,
        ema=0.99,
        facial=(6.0, 1.5),
        crop=96,
    ),
}

PRESETS = {
    "mini": _mini(_MINI_STAGES),
    # for a GPU: four times the pixels, and batches that fill the GPU
    "mini-256": _mini(
        {
            "vae": replace(_MINI_STAGES["vae"], size=256, steps=6_000, portraits=128, crop=128),
            "image": replace(
                _MINI_STAGES["image"], size=256, steps=15_000, portraits=64, targets=2, learning_rate=8e-4
            ),
            "motion": replace(_MINI_STAGES["motion"], size=256, steps=3_000, portraits=8),
        }
    ),
    # for tests and dry runs: a minute of training that learns next to nothing
    "tiny": Preset(
        model=random_checkpoint.PRESETS["tiny"],
        stages={
            "vae": Stage(
                learns="vae", size=64, steps=40, portraits=4, targets=2, learning_rate=3e-3, warm_up=5, ema=0.9
            ),
            "image": Stage(
                learns="image",
                size=64,
                steps=40,
                portraits=4,
                targets=2,
                learning_rate=3e-3,
                warm_up=5,
                ema=0.9,
                dropped=0.25,
            ),
            "motion": Stage(
                learns="motion",
                start=("image",),
                size=64,
                steps=10,
                portraits=1,
                targets=4,
                learning_rate=3e-3,
                warm_up=5,
                ema=0.9,
                strides=(1, 4),
                shared_noise=True,
            ),
            "image_96": Stage(
                learns="image",
                start=("image",),
                size=96,
                seed=96,
                steps=10,
                portraits=4,
                targets=2,
                learning_rate=1e-3,
                warm_up=5,
                ema=0.9,
                dropped=0.25,
            ),
            "motion_96": Stage(
                learns="motion",
                start=("motion", "image_96"),
                size=96,
                seed=96,
                steps=5,
                portraits=1,
                targets=4,
                learning_rate=1e-3,
                warm_up=5,
                ema=0.9,
                strides=(1, 4),
                shared_noise=True,
            ),
            "decoder_96": Stage(
                learns="decoder",
                start=("vae",),
                size=96,
                seed=96,
                steps=10,
                portraits=4,
                targets=1,
                learning_rate=1e-3,
                warm_up=5,
                ema=0.9,
                crop=64,
            ),
        },
        chunk=8,
        frames=5,
        window=3,
    ),
}
