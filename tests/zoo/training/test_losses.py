"""Losses and features of the training against closed forms."""

import math

import pytest
import torch
from ctinv.adapters.errors import ModelError
from ctinv.zoo.training import FilterBankFeatures, Vgg19Features, critic_loss
from torch import nn


def test_critic_loss_of_a_linear_critic():
    weight = torch.tensor([3.0, 4.0], dtype=torch.float64)
    real = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    fake = torch.tensor([[2.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    # mean fake 3, mean real 3.5, penalty (5 - 1)^2
    assert critic_loss(lambda x: x @ weight, real, fake, 10.0).item() == pytest.approx(3.0 - 3.5 + 160.0)


class TestFilterBank:
    features = FilterBankFeatures(scales=2, cell=4)

    def details(self, x):
        """Only the strengths of detail at the finest scale, (N, 4, cells)."""
        cells = (x.shape[-1] // 4) ** 2
        return self.features(x)[:, : 4 * cells].reshape(len(x), 4, cells)

    def test_nothing_is_learned(self):
        assert not list(self.features.parameters())
        assert not self.features.state_dict()

    def test_flat_images_have_no_detail(self):
        x = torch.full((1, 1, 32, 32), 0.7)
        inner = self.details(x).reshape(1, 4, 8, 8)[..., 1:-1, 1:-1]
        torch.testing.assert_close(inner, torch.full_like(inner, self.features.floor))

    @pytest.mark.parametrize("direction", range(4))
    def test_each_direction_answers_to_its_own_wave(self, direction):
        angle = math.pi * direction / 4
        rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
        phase = 2 * math.pi / 3 * (math.cos(angle) * columns + math.sin(angle) * rows)
        strength = self.details(torch.sin(phase)[None, None]).mean((0, 2))
        assert strength.argmax().item() == direction

    def test_strength_grows_with_noise_and_hardly_with_its_seed(self):
        torch.manual_seed(0)
        noise = torch.randn(2, 1, 64, 64)
        one, two = self.details(noise)
        weak = self.details(0.5 * noise)[0]
        assert (weak.mean() / one.mean()).item() == pytest.approx(0.5, rel=0.01)
        assert (two.mean() / one.mean()).item() == pytest.approx(1.0, rel=0.05)

    def test_gradients_are_finite_where_the_image_is_flat(self):
        x = torch.zeros(1, 1, 32, 32, requires_grad=True)
        self.features(x).square().sum().backward()
        assert torch.isfinite(x.grad).all()


def vgg_state():
    """A random state dict in torchvision's layout, classifier included, few bytes per weight."""
    plan = [64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512, 512, 512, 512]
    state, index, channels = {}, 0, 3
    generator = torch.Generator().manual_seed(0)
    for width in plan:
        if width:
            scale = math.sqrt(2 / (9 * channels))
            state[f"features.{index}.weight"] = scale * torch.randn(
                width, channels, 3, 3, generator=generator
            )
            state[f"features.{index}.bias"] = torch.zeros(width)
            channels = width
        index += 2 if width else 1
    state["classifier.6.bias"] = torch.zeros(1000)
    return state


@pytest.fixture(scope="module")
def state():
    return vgg_state()


@pytest.fixture(scope="module")
def files(state, tmp_path_factory):
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("vgg")
    torch.save(state, folder / "vgg19.pth")
    save_file(state, folder / "vgg19.safetensors")
    return folder


class TestVgg19:
    def test_indices_are_torchvisions(self, state):
        # torchvision's vgg19: the 16th convolution is features.34.
        assert max(int(k.split(".")[1]) for k in state if k.startswith("features")) == 34

    @pytest.mark.parametrize("name", ["vgg19.pth", "vgg19.safetensors"])
    def test_features_by_hand(self, files, state, name):
        features = Vgg19Features(files / name, low=-10.0, high=10.0)
        assert not any(p.requires_grad for p in features.parameters())
        x = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(1))
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        h = (((x + 10) / 20).repeat(1, 3, 1, 1) - mean[:, None, None]) / std[:, None, None]
        pools = {4, 9, 18, 27}
        for index in range(36):
            if f"features.{index}.weight" in state:
                h = nn.functional.conv2d(
                    h, state[f"features.{index}.weight"], state[f"features.{index}.bias"], padding=1
                ).relu()
            elif index in pools:
                h = nn.functional.max_pool2d(h, 2)
        y = features(x)
        assert y.shape == (1, 512, 2, 2)
        torch.testing.assert_close(y, h)

    def test_other_files_are_refused(self, tmp_path):
        torch.save({"features.0.weight": torch.zeros(64, 1, 3, 3)}, tmp_path / "other.pth")
        with pytest.raises(ModelError, match=r"features\.0\.weight is missing or misshaped"):
            Vgg19Features(tmp_path / "other.pth")
        torch.save([1, 2], tmp_path / "list.pth")
        with pytest.raises(ModelError, match="holds list"):
            Vgg19Features(tmp_path / "list.pth")
        (tmp_path / "text.safetensors").write_text("hello")
        with pytest.raises(ModelError, match="cannot be read as weights"):
            Vgg19Features(tmp_path / "text.safetensors")
        with pytest.raises(ModelError, match="cannot be read as weights"):
            Vgg19Features(tmp_path / "missing.pth")

    def test_pickled_code_is_not_run(self, tmp_path):
        class Trap:
            def __reduce__(self):
                return (open, (str(tmp_path / "sprung"), "w"))

        torch.save({"features.0.weight": Trap()}, tmp_path / "trap.pth")
        with pytest.raises(ModelError, match="cannot be read as weights"):
            Vgg19Features(tmp_path / "trap.pth")
        assert not (tmp_path / "sprung").exists()
