import pytest
import torch

from fye_rt.schedule import SchedulerConfig, schedule
from fye_training import losses
from fye_training.losses import facial_loss, kl_divergence, reconstruction_loss, v_target


def test_the_facial_loss_has_its_closed_form() -> None:
    # error 2 everywhere; a quarter of the pixels is expression, half of them face
    prediction, target = torch.full((1, 4, 2, 4), 3.0), torch.ones(1, 4, 2, 4)
    expression = torch.tensor([[[1.0, 1, 0, 0], [0, 0, 0, 0]]])
    face = torch.tensor([[[1.0, 1, 1, 1], [0, 0, 0, 0]]])
    loss = facial_loss(prediction, target, expression, face, (3.0, 0.5))
    assert loss.item() == pytest.approx(4 * (1 + 3.0 / 4 + 0.5 / 2))


def test_the_facial_loss_weighs_errors_by_the_masks_around_them() -> None:
    target, mask = torch.zeros(2, 4, 1, 2), torch.tensor([[[1.0, 0]]]).expand(2, 1, 2)
    values = []
    for pixel in (0, 1):
        prediction = target.clone()
        prediction[..., pixel] = 1
        values.append(facial_loss(prediction, target, mask, mask, (2.0, 0.5)).item())
    assert values == pytest.approx([3.5 / 2, 1 / 2])


def test_half_a_latent_pixel_in_the_mask_counts_half() -> None:
    prediction, target = torch.ones(1, 4, 1, 1), torch.zeros(1, 4, 1, 1)
    half, none = torch.full((1, 1, 1), 0.5), torch.zeros(1, 1, 1)
    assert facial_loss(prediction, target, half, none, (2.0, 9.0)).item() == pytest.approx(2.0)


def test_without_weights_the_facial_loss_is_the_mean_squared_error() -> None:
    torch.manual_seed(0)
    prediction, target = torch.randn(3, 2, 4, 5, 6), torch.randn(3, 2, 4, 5, 6)
    masks = torch.rand(3, 2, 5, 6)
    loss = facial_loss(prediction, target, masks, masks, (0, 0))
    torch.testing.assert_close(loss, torch.nn.functional.mse_loss(prediction, target))


def test_a_ddim_step_with_the_true_v_leads_towards_the_clean_latents() -> None:
    torch.manual_seed(0)
    clean, noise = torch.randn(4, 3, 3, dtype=torch.float64), torch.randn(4, 3, 3, dtype=torch.float64)
    steps = schedule(10, SchedulerConfig())
    for power, previous in zip(steps.alpha_bar_t, steps.alpha_bar_prev, strict=True):
        power = torch.tensor(power)
        noisy, v = v_target(clean, noise, power)
        x0, epsilon = power.sqrt() * noisy - (1 - power).sqrt() * v, power.sqrt() * v + (1 - power).sqrt() * noisy
        torch.testing.assert_close(x0, clean)
        moved = previous**0.5 * x0 + (1 - previous) ** 0.5 * epsilon
        torch.testing.assert_close(moved, v_target(clean, noise, torch.tensor(previous))[0])


def test_the_noisiest_training_step_holds_nothing_of_the_picture() -> None:
    powers = losses.alpha_bars()
    assert powers.shape == (1000,) and powers[-1] == 0
    clean, noise = torch.ones(4, 1, 1), torch.zeros(4, 1, 1)
    noisy, v = v_target(clean, noise, powers[-1])
    assert not noisy.any() and torch.equal(v, -clean)


def test_the_reconstruction_loss_sees_blur_and_colour() -> None:
    stripes = torch.tensor([1.0, -1] * 4).expand(1, 3, 8, 8)
    grey, weight = torch.zeros_like(stripes), torch.ones(1, 1, 1)
    # 1 off everywhere, with the right mean; between columns the difference of 2 is gone, between rows there is none
    assert reconstruction_loss(grey, stripes, weight).item() == pytest.approx(1 + 0 + 2)
    # 1 off everywhere and in the mean, edges as they are
    assert reconstruction_loss(stripes + 1, stripes, weight).item() == pytest.approx(1 + 1 + 0)


def test_the_reconstruction_loss_counts_a_face_more() -> None:
    target = torch.zeros(1, 3, 8, 24)
    weight = losses.emphasis(torch.tensor([[[1.0, 0, 0]]]), torch.tensor([[[1.0, 0.5, 0]]]), (4.0, 2.0))
    assert weight.tolist() == [[[7, 2, 1]]]
    values = []
    for block in range(3):
        wrong = target.clone()
        wrong[..., 8 * block + 2 : 8 * block + 6] = 1  # inside the block, so that its edges are too
        values.append(reconstruction_loss(wrong, target, weight).item())
    assert values == pytest.approx([7 * values[2], 2 * values[2], values[2]])


def test_the_divergence_from_the_standard_normal_has_its_closed_form() -> None:
    mean, log_variance = torch.tensor([1.0, -1]), torch.log(torch.tensor([1.0, 4.0]))
    expected = (0.5 * 1 + 0.5 * (1 + 4 - 1 - 1.3862944)) / 2
    assert kl_divergence(mean, log_variance).item() == pytest.approx(expected)
    assert kl_divergence(torch.zeros(3), torch.zeros(3)).item() == 0


def test_frames_share_a_part_of_their_noise_that_is_drawn_for_each_clip() -> None:
    noise = losses.shared_noise((300, 4, 4, 8, 8), torch.Generator().manual_seed(0))
    assert noise.std().item() == pytest.approx(1, abs=0.01)
    shares = (noise[:, 0] * noise[:, 1]).mean(dim=(1, 2, 3))  # each from 256 products: within 0.1 of what was drawn
    assert shares.mean().item() == pytest.approx(0.5, abs=0.06)
    assert (shares < 0.2).sum() > 30 and (shares > 0.8).sum() > 30
    assert (shares - (noise[:, 2] * noise[:, 3]).mean(dim=(1, 2, 3))).abs().mean() < 0.1
