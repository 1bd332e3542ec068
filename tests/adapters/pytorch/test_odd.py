"""Networks that do what few do: write into their image, cut gradients, compile parts, count runs."""

import numpy as np
import pytest
import torch
from ctinv import adapters
from ctinv.adapters.errors import ModelError, UnsupportedModelError
from torch import nn

from ..laws import image, state_of

UNITS = "unit:-160:240"


def conv(into, out):
    return nn.Conv2d(into, out, 3, padding=1)


def opened(module, **options):
    return adapters.wrap(module.eval(), intensity=UNITS, output="image", **options)


class Net(nn.Module):
    """A convolution, ``between``, and a convolution."""

    def __init__(self, between=lambda self, h: h):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.between = conv(1, 4), conv(4, 1), between

    def forward(self, x):
        return x - self.last(self.between(self, self.first(x)))


class WritesIntoItsImage(Net):
    def forward(self, x):
        x.mul_(0.5)
        return super().forward(x)


def test_a_network_may_write_into_its_image():
    x, tensor = image(3, 24, 24), torch.from_numpy(image(3, 24, 24))
    denoiser = opened(WritesIntoItsImage())
    with torch.no_grad():
        u = denoiser.intensity.to_model(tensor)
        want = denoiser.module(u.clone())
    np.testing.assert_allclose(
        denoiser.denoise(x), denoiser.intensity.to_hu(want).numpy(), rtol=1e-5, atol=1e-3
    )
    assert torch.equal(denoiser.features(tensor, "first")[:1], denoiser.features(tensor[:1], "first"))
    np.testing.assert_array_equal(tensor.numpy(), x)


@pytest.mark.parametrize("give", [lambda y: y, lambda y: {"image": y}, lambda y: (y, y.real)])
def test_complex_images_are_refused(give):
    class Complex(Net):
        def forward(self, x):
            return give(torch.complex(super().forward(x), x))

    asked = {"output_tensor": "[0]"} if isinstance(give(torch.zeros(1)), tuple) else {}
    with pytest.raises(UnsupportedModelError, match=r"'Complex' returns complex values; .* \.real or"):
        opened(Complex(), **asked).denoise(image())


def test_the_real_image_beside_a_complex_spectrum_is_taken():
    class Both(Net):
        def forward(self, x):
            return {"image": super().forward(x), "spectrum": torch.fft.fft2(x)}

    assert opened(Both(), output_tensor="image").denoise(image(1)).shape[1] == 1


def test_a_part_may_be_called_like_a_wrapper():
    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.module, self.inner = conv(1, 4), nn.Module()
            self.inner.module, self.inner.last = conv(4, 4), conv(4, 1)

        def forward(self, x):
            return x - self.inner.last(self.inner.module(self.module(x)))

    denoiser = opened(Holder())
    assert [layer.name for layer in denoiser.layers][:2] == ["module", "inner.module"]
    for layer in filter(lambda layer: layer.tappable, denoiser.layers):
        assert denoiser.resolve(layer.name).name == layer.name
    wrapped = opened(nn.DataParallel(Net()))
    assert wrapped.resolve("module.first").name == "first"


class NoGrad(Net):
    @torch.no_grad()
    def forward(self, x):
        return super().forward(x)


class Inference(Net):
    def forward(self, x):
        with torch.inference_mode():
            return super().forward(x)


class Detached(Net):
    def forward(self, x):
        return super().forward(x.detach())


@pytest.mark.parametrize("kind", [NoGrad, Inference, Detached])
@pytest.mark.parametrize("layer", ["first", "last", "@output"])
def test_gradients_that_a_network_cuts_are_refused_and_not_zero(kind, layer):
    denoiser = opened(kind())
    y = torch.from_numpy(image(2)).requires_grad_()
    with pytest.raises(UnsupportedModelError, match=r"no gradient by the image.*no_grad.*--refine 0"):
        denoiser.features(y, layer, grad=True)
    assert np.isfinite(denoiser.features(image(2), layer)).all()


def test_a_part_that_is_cut_is_refused_where_it_is_read_alone():
    class Gated(Net):
        def __init__(self):
            super().__init__()
            self.gate = conv(4, 4)

        def forward(self, x):
            h = self.first(x)
            return x - self.last(h * torch.sigmoid(self.gate(h.detach())))

    y = torch.from_numpy(image(2)).requires_grad_()
    assert opened(Gated()).features(y, "last", grad=True).requires_grad
    with pytest.raises(UnsupportedModelError, match="'gate' of 'Gated' has no gradient"):
        opened(Gated()).features(y, "gate", grad=True)


def test_a_layer_that_knows_nothing_of_the_image_has_zero_gradients():
    class Prompted(Net):
        def __init__(self):
            super().__init__()
            self.prompt = nn.Linear(3, 4)

        def forward(self, x):
            scale = self.prompt(x.new_ones(len(x), 3))[..., None, None]
            return x - self.last(self.first(x) * scale)

    y = torch.from_numpy(image(2)).requires_grad_()
    z = opened(Prompted()).features(y, "prompt", grad=True)
    assert torch.autograd.grad(z.sum(), y, allow_unused=True)[0] is None


@pytest.fixture
def _distributions_as_before():
    """PyTorch's compiler switches their checks off when it is first imported."""
    before = torch.distributions.Distribution._validate_args
    yield
    torch.distributions.Distribution._validate_args = before


@pytest.mark.usefixtures("_distributions_as_before")
@pytest.mark.parametrize("read", ["features", "layers first"])
def test_layers_inside_compiled_functions_are_read(read):
    class Compiled(Net):
        def __init__(self):
            super().__init__()
            self.inner = torch.compile(lambda h: torch.relu(self.first(h)), backend="eager")

        def forward(self, x):
            return x - self.last(self.inner(x))

    module, x = Compiled().eval(), image(3)
    with torch.no_grad():
        module(torch.zeros(1, 1, 24, 20))
    denoiser = opened(module)
    if read == "layers first":
        assert [layer.name for layer in denoiser.layers if layer.tappable] == ["first", "last"]
    with torch.no_grad():
        want = module.first(denoiser.intensity.to_model(torch.from_numpy(x)))
    np.testing.assert_allclose(denoiser.features(x, "first"), want.numpy(), rtol=1e-5, atol=1e-5)
    assert not any("one by one" in notice for notice in denoiser.notices)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_observers_of_quantisation_are_left_as_they_were():
    """They change their buffers in place and count no new version."""
    module = nn.Sequential(conv(1, 4), nn.ReLU(), conv(4, 1)).train()
    module.qconfig = torch.ao.quantization.get_default_qat_qconfig("x86")
    torch.ao.quantization.prepare_qat(module, inplace=True)
    module(torch.rand(2, 1, 24, 20))
    before = state_of(module)
    denoiser = adapters.wrap(module, intensity=UNITS, output="image")
    first = denoiser.denoise(image(2))
    np.testing.assert_array_equal(denoiser.denoise(image(2)), first)
    assert state_of(module) == before


@pytest.mark.parametrize(
    "between",
    [lambda _, h: torch.sqrt(h - 1e9), lambda _, h: h / 0.0, lambda _, h: (1e6 * h).half().float()],
    ids=["nan", "infinite", "too large for half precision"],
)
def test_an_image_that_is_not_finite_is_refused(between):
    denoiser = opened(Net(between))
    with pytest.raises(ModelError, match=r"'Net' returns NaN or infinite values .*check intensity="):
        denoiser.denoise(image())
    assert np.isfinite(denoiser.features(image(), "first")).all()


def test_what_to_do_about_a_mode_of_its_own_is_told():
    class Own(Net):
        mode = "train"

        def train(self, mode=True):
            self.mode = "train" if mode else "eval"
            return super().train(mode)

        def forward(self, x):
            return super().forward(x + torch.rand_like(x) if self.mode == "train" else x)

    with pytest.raises(UnsupportedModelError, match=r"own train\(\) does more after its eval\(\)"):
        adapters.wrap(Own(), intensity=UNITS, output="image").denoise(image(1))
    assert opened(Own()).denoise(image(1)).shape == image(1).shape
