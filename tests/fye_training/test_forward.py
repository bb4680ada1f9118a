import pytest
import torch
from torch import Tensor

from fye_export.graphs import Denoiser, ImageEncoder, Reference
from fye_export.random_checkpoint import PRESETS
from fye_training.forward import Animation, fresh

TINY = PRESETS["tiny"]
PORTRAITS, TARGETS = 3, 2


@pytest.fixture(scope="module")
def animation() -> Animation:
    model = Animation(TINY, motion=True)
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.copy_(
            torch.randn_like(parameter) * (0.5 if parameter.ndim > 1 else 0.2) / max(1, parameter[0].numel()) ** 0.5
        )
    return model


@pytest.fixture(scope="module")
def inputs() -> tuple[Tensor, ...]:
    torch.manual_seed(1)
    return (
        torch.randn(PORTRAITS, TARGETS, 4, 4, 4),
        torch.tensor([[999] * TARGETS, [3] * TARGETS, [500] * TARGETS]),
        torch.rand(PORTRAITS, TARGETS, 3, 32, 32),
        torch.randn(PORTRAITS, 4, 4, 4),
        torch.randn(PORTRAITS, 3, 56, 56),
    )


@torch.no_grad()
def test_training_computes_what_the_exported_graphs_compute(animation: Animation, inputs: tuple[Tensor, ...]) -> None:
    noisy, timesteps, landmarks, portraits, clip_pixels = inputs
    tokens = ImageEncoder(animation.image_encoder)
    reference = Reference(animation.referencenet, animation.unet)
    denoiser = Denoiser(animation.unet)
    hidden = animation(*inputs, dropped=PORTRAITS)
    seen = animation(*inputs, dropped=0)
    for i in range(PORTRAITS):
        state = reference(portraits[i : i + 1], tokens(clip_pixels[i : i + 1]))
        features = animation.lmk_guider(landmarks[i])
        halves = denoiser(noisy[i].transpose(0, 1)[None], timesteps[i, :1], features, *state)
        for half, trained in zip(halves, (hidden, seen), strict=True):
            torch.testing.assert_close(half[0].transpose(0, 1), trained[i], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_the_prediction_without_portrait_ignores_the_portrait(animation: Animation, inputs: tuple[Tensor, ...]) -> None:
    other = [x.clone() for x in inputs]
    other[3][0] += 1
    other[4][0] += 1
    for dropped, equal in ((1, True), (0, False)):
        before, after = animation(*inputs, dropped=dropped), animation(*other, dropped=dropped)
        assert torch.equal(before[0], after[0]) == equal
        torch.testing.assert_close(before[1:], after[1:])


@torch.no_grad()
def test_a_target_of_a_batch_sees_no_other_portrait(animation: Animation, inputs: tuple[Tensor, ...]) -> None:
    other = [x.clone() for x in inputs]
    other[3][1] += 1
    before, after = animation(*inputs, dropped=0), animation(*other, dropped=0)
    torch.testing.assert_close(before[[0, 2]], after[[0, 2]])
    assert not torch.allclose(before[1], after[1])


@torch.no_grad()
def test_only_motion_modules_make_frames_depend_on_each_other(animation: Animation, inputs: tuple[Tensor, ...]) -> None:
    pictures = Animation(TINY, motion=False)
    pictures.load_state_dict({k: v for k, v in animation.state_dict().items() if "motion_modules" not in k})
    other = [x.clone() for x in inputs]
    other[0][:, 1] += 1
    for model, independent in ((pictures, True), (animation, False)):
        before, after = model(*inputs, dropped=1)[:, 0], model(*other, dropped=1)[:, 0]
        assert torch.allclose(before, after, atol=1e-5) == independent


@torch.no_grad()
def test_a_fresh_model_predicts_zero_and_its_motion_modules_are_silent() -> None:
    model = fresh(TINY, motion=True, seed=0)
    x = torch.randn(4, 8, 4, 4)
    assert torch.equal(model.unet.down_blocks[0].motion_modules[0](x, 4), x)
    assert not model.unet.conv_out.weight.any()


@torch.no_grad()
def test_the_seed_alone_decides_fresh_weights() -> None:
    first, same, other = (fresh(TINY, motion=True, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[key], same[key]) for key in first)
    key = "unet.conv_in.weight"
    assert not torch.equal(first[key], other[key])
