"""What is trained, on what, for how long."""

from dataclasses import dataclass
from typing import Literal

from fye_export import random_checkpoint
from fye_export.config import CLIPConfig, GuiderConfig, ModelConfig, UNetConfig, VAEConfig

Learns = Literal["vae", "decoder", "image", "motion"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage of training.

    Attributes:
        learns: vae: the autoencoder; decoder: its second half alone, while latents stay what they are; image: what
            animates single frames; motion: the motion modules.
        start: stages whose averaged weights it begins with, those of later ones in place of earlier ones'; what is
            in none of them knows nothing yet.
        size: side of the square frames, in pixels; a multiple of 8.
        seed: added to the run's, so that a stage sees other characters than the ones before it.
        steps: optimizer steps.
        portraits: portraits in a batch.
        targets: frames of each portrait in a batch; in the motion stage consecutive frames of a clip.
        learning_rate: AdamW's, between warm-up and cool-down (`pace`).
        warm_up: steps over which the learning rate rises from 0.
        cool_down: share of the steps, the last ones, in which the learning rate falls.
        ema: decay of the averaged weights, which are the ones that are released.
        facial: weights of the error inside the expression mask and inside the face mask (`losses.emphasis`).
        late_facial: in their place while the learning rate falls and detail is learnt; None: the same ones.
        dropped: share of the portraits that are hidden from the denoiser, for guidance.
        crop: in the VAE's stage, side of the square pieces of frames that it sees until the learning rate falls, in
            pixels, and whole frames from there on; 0: whole frames all the time.
        strides: in the motion stage, the frames of a clip lie this far apart, as key frames of long clips do; none
            where targets are pictures of their own.
        shared_noise: in the motion stage, the frames of a clip share a part of their noise, from none of it to all
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
        """The learning rate's share of its highest value: it rises, stays, and falls to nothing at the end.

        A stage whose number of steps is raised before it cools down goes on as if it had been so from the start.
        """
        return min(1.0, (step + 1) / self.warm_up, (self.steps - step) / (self.cool_down * self.steps))

    def cooling(self, step: int) -> bool:
        """Whether the learning rate falls."""
        return step > (1 - self.cool_down) * self.steps

    def facial_at(self, step: int) -> tuple[float, float]:
        """Weights of the facial loss."""
        return self.late_facial if self.late_facial and self.cooling(step) else self.facial


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One recipe.

    Attributes:
        model: sizes of the networks; the VAE's scaling factor is measured after its stage.
        stages: by name, in the order they are trained; the first one learns the VAE.
        chunk: identities that are drawn together.
        frames: frames drawn of each of them, the first one with a neutral face.
        window: chunks that batches are taken from; the oldest one gives way to a new one.
        reuse: how often a frame is a target, on average, before it is gone.
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
        """The last stage that learns one of these: of all, or of those before the one called `before`."""
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


PRESETS = {
    # for a CPU: four targets a portrait, since with two its reference network takes a quarter of a step
    "mini": _mini(
        {
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
            # The same networks in larger frames, where a person's eye is as wide as two latent pixels and the squares
            # of the irises don't cover its lids. It knows much of this before it begins.
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
        },
    ),
    # for a GPU: four times the pixels, batches that fill it
    "mini-256": _mini(
        {
            "vae": Stage(
                learns="vae",
                size=256,
                steps=6_000,
                portraits=128,
                targets=1,
                learning_rate=1e-3,
                ema=0.998,
                facial=(4.0, 1.0),
                crop=128,
            ),
            "image": Stage(
                learns="image",
                size=256,
                steps=15_000,
                portraits=64,
                targets=2,
                learning_rate=8e-4,
                facial=(2.0, 0.5),
                late_facial=(6.0, 1.5),
                dropped=0.125,
            ),
            "motion": Stage(
                learns="motion",
                start=("image",),
                size=256,
                steps=3_000,
                portraits=8,
                targets=16,
                learning_rate=5e-4,
                facial=(2.0, 0.5),
                dropped=0.125,
                strides=(1, 1, 2, 4, 8, 16, 24),
                shared_noise=True,
            ),
        },
    ),
    # learns next to nothing in a minute: for tests, and to see everything run
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
