"""Laws of the published networks: exact rewritings for inference, sizes by construction, gradients."""

import dataclasses
import io

import pytest
import torch
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.networks.biggan import BigGANDecoder, SelfAttention
from ctinv.invariance.networks.blocks import UpConv, add_spectral_norm, bake_spectral_norm, fold_upsampling
from ctinv.invariance.networks.vae import VAE
from ctinv.invariance.presets import VAEConfig
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

VECTOR = VAEConfig(32, 12, 1, (), encoder="resnet18", decoder="biggan", channels=4, mapping=(10,))
GUIDED = dataclasses.replace(VECTOR, conditional=True)
MAP = VAEConfig(32, 3, 8, (8, 6), decoder="biggan", channels=4, conditional=True)
CONFIGS = {"vector": VECTOR, "guided": GUIDED, "map": MAP}


def stirred(module):
    """Statistics and gains away from where they start."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
        if isinstance(layer, SelfAttention):
            nn.init.constant_(layer.gain, 0.7)
    return module


def inputs(config, count=3, dtype=torch.float32):
    code = torch.randn(count, config.code_dim, dtype=dtype)
    side = config.patch
    return code, torch.randn(count, 1, side, side, dtype=dtype) if config.conditional else None


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS)
def config(request):
    torch.manual_seed(0)
    return request.param


def test_baking_changes_nothing(config):
    decoder = stirred(BigGANDecoder(config))
    decoder.normalise_spectrum()
    for _ in range(3):
        decoder(*inputs(config))
    decoder.eval()
    code, guide = inputs(config)
    before = decoder(code, guide)
    decoder.bake()
    assert not any(parametrize.is_parametrized(m) for m in decoder.modules())
    assert (decoder(code, guide) - before).abs().max() < 1e-5
    # The plain weights fit a decoder that was never parametrised.
    twin = BigGANDecoder(config).eval()
    twin.load_state_dict(decoder.state_dict())
    assert torch.equal(twin(code, guide), decoder(code, guide))


def test_baking_keeps_the_mode_and_the_power_iteration():
    layer = nn.Linear(5, 4)
    add_spectral_norm(layer)
    layer(torch.randn(2, 5))
    layer.eval()
    held = layer.weight.clone()
    layer.train()
    bake_spectral_norm(layer)
    assert layer.training
    torch.testing.assert_close(layer.weight, held)


def test_normalised_weights_have_unit_norm():
    torch.manual_seed(0)
    decoder = BigGANDecoder(VECTOR)
    decoder.normalise_spectrum()
    for layer in decoder.modules():
        if parametrize.is_parametrized(layer):
            for _ in range(80):
                _ = layer.weight  # each look turns the power iteration once
    decoder.bake()
    seen = 0
    for part in (decoder.stem, decoder.blocks, decoder.attention):
        for layer in part.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear | UpConv):
                seen += 1
                norm = torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item()
                assert norm == pytest.approx(1, abs=0.02)
    assert seen == 1 + 3 * 5 + 4


def test_folding_changes_nothing(config):
    decoder = stirred(BigGANDecoder(config)).double().eval()
    code, guide = inputs(config, dtype=torch.float64)
    before = decoder(code, guide)
    fold_upsampling(decoder)
    torch.testing.assert_close(decoder(code, guide), before, rtol=1e-12, atol=1e-12)


def test_folded_weights_are_forgotten_when_others_come():
    layer = UpConv(3, 2).eval()
    x = torch.randn(1, 3, 4, 4)
    layer.fold()
    before = layer(x)
    other = UpConv(3, 2).eval()
    layer.load_state_dict(other.state_dict())
    assert torch.equal(layer(x), other(x))
    assert not torch.equal(layer(x), before)
    layer.fold()
    layer.train()
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
    layer.eval()
    assert layer(x).abs().max() == 0


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (2, 3, 40, 40)], ids=["plain", "folded"])
def test_training_takes_the_same_convolution(shape):
    layer = UpConv(3, 2).double().train()
    x = torch.randn(shape, dtype=torch.float64)
    expected = F.conv2d(F.interpolate(x, scale_factor=2), layer.weight, layer.bias, padding=1)
    torch.testing.assert_close(layer(x), expected)


def test_blocks_are_normalisation_upsampling_and_convolution(config):
    """A block as the paper draws it: f(x) beside the features, one convolution over both."""
    decoder = stirred(BigGANDecoder(config)).double().eval()
    block = decoder.blocks[0]
    x = torch.randn(2, block.norm1.norm.num_features, 4, 4, dtype=torch.float64)
    condition = torch.randn(2, block.norm1.affine.in_features, dtype=torch.float64)
    guide = torch.randn(2, 1, 8, 8, dtype=torch.float64) if config.conditional else None
    norms = []
    for norm in (block.norm1, block.norm2):
        gain, bias = norm.affine(condition)[..., None, None].chunk(2, 1)
        norms.append(lambda v, n=norm, g=gain, b=bias: F.relu(n.norm(v) * (1 + g) + b))
    big = F.interpolate(norms[0](x), scale_factor=2)
    weight = block.conv1.weight
    if guide is not None:
        big, weight = torch.cat([big, guide], 1), torch.cat([weight, block.guide.weight], 1)
    hidden = norms[1](F.conv2d(big, weight, block.conv1.bias, padding=1))
    expected = block.conv2(hidden) + block.skip(F.interpolate(x, scale_factor=2))
    torch.testing.assert_close(block(x, condition, guide), expected)


def test_attention_is_a_weighted_mean_of_values():
    torch.manual_seed(0)
    layer = SelfAttention(16).double()
    x = torch.randn(2, 16, 6, 4, dtype=torch.float64)
    assert torch.equal(layer(x), x)
    nn.init.constant_(layer.gain, 0.7)
    query, key, value = (f(x) for f in (layer.query, layer.key, layer.value))
    key, value = (F.max_pool2d(part, 2).flatten(2) for part in (key, value))
    weights = torch.einsum("ncq,nck->nqk", query.flatten(2), key).softmax(-1)
    seen = torch.einsum("nqk,nck->ncq", weights, value).unflatten(2, (6, 4))
    torch.testing.assert_close(layer(x), x + 0.7 * layer.out(seen))


@pytest.mark.parametrize("patch", [8, 16, 32, 64, 128, 256])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_any_power_of_two_will_do(patch, size):
    config = VAEConfig(patch, 14, size, (), encoder="resnet18", decoder="biggan", channels=1)
    with torch.device("meta"):
        decoder = BigGANDecoder(config)
        assert decoder(torch.empty(2, config.code_dim)).shape == (2, 1, patch, patch)


@pytest.mark.parametrize("patch", [4, 24, 100])
def test_other_patches_are_refused(patch):
    with pytest.raises(CtinvError, match=f"4 times a power of two, not of {patch}"):
        BigGANDecoder(dataclasses.replace(VECTOR, patch=patch))


def test_the_published_split_of_the_code():
    config = VAEConfig(128, 256, 1, (), decoder="biggan", channels=1)
    decoder = BigGANDecoder(config)
    assert decoder.split == [156, 20, 20, 20, 20, 20]
    widths = [b.conv1.weight.shape[:2] for b in decoder.blocks]
    assert widths == [(16, 16), (8, 16), (4, 8), (2, 4), (1, 2)]


def test_one_denoised_patch_serves_many_codes():
    for config in (GUIDED, MAP):
        vae = VAE(config).ready()
        code, guide = torch.randn(4, config.code_dim), 300 * torch.randn(1, 1, 32, 32)
        many = vae.decode(code, guide.expand(4, -1, -1, -1))
        torch.testing.assert_close(vae.decode(code, guide), many, rtol=1e-4, atol=1e-2)


def test_every_scale_sees_the_denoised_patch():
    decoder = stirred(BigGANDecoder(GUIDED)).eval()
    code, guide = inputs(GUIDED, 1)
    guide.requires_grad_()
    for k in range(len(decoder.blocks) + 1):
        guides = [b.guide for b in decoder.blocks] + [decoder.guide]
        kept = [g.weight.data.clone() for g in guides]
        for j, layer in enumerate(guides):
            if j != k:
                layer.weight.data.zero_()
        (gradient,) = torch.autograd.grad(decoder(code, guide).square().sum(), guide)
        assert gradient.abs().max() > 0
        for layer, weight in zip(guides, kept, strict=True):
            layer.weight.data.copy_(weight)


def test_a_conditional_autoencoder_asks_for_the_denoised_patch():
    x = torch.zeros(1, 1, 32, 32)
    with pytest.raises(CtinvError, match="depends on the denoiser; give f"):
        VAE(GUIDED).eval().encode(x)
    with pytest.raises(CtinvError, match="does not depend on the denoiser"):
        VAE(VECTOR).eval().encode(x, x)
    with pytest.raises(CtinvError, match=r"set vae\.decoder=biggan"):
        VAE(VAEConfig(conditional=True))
    with pytest.raises(CtinvError, match=r"too small for codes of size 2; take a smaller vae\.code_size"):
        VAE(dataclasses.replace(VECTOR, code_size=2))


def test_every_parameter_receives_a_gradient(config):
    vae = VAE(config)
    vae.decoder.normalise_spectrum()
    nn.init.constant_(vae.decoder.attention.gain, 0.5)
    for name, parameter in vae.encoder.named_parameters():
        if "bn" in name and name.endswith("weight"):
            nn.init.ones_(parameter)  # the last of a residual block starts at zero
    if isinstance(vae.encoder, nn.Module) and hasattr(vae.encoder, "blocks"):
        for block in vae.encoder.blocks:
            nn.init.normal_(block.conv2.weight)
    x = 300 * torch.randn(4, 1, 32, 32)
    guide = x / 2 if config.conditional else None
    loss, _ = vae.loss(x, torch.randn(4, config.code_dim), guide)
    loss.backward()
    missing = [n for n, p in vae.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # A bias in front of a batch normalisation has no effect in training.
    assert [n for n in missing if not n.endswith("bias")] == []


# -- weights of photographs --------------------------------------------------------------------------


def photographs(encoder):
    """A state dict as torchvision's: three colours, a classifier, counters."""
    state = {k: torch.randn_like(v) if v.is_floating_point() else v for k, v in encoder.state_dict().items()}
    state = {k: v for k, v in state.items() if not k.startswith("head.")}
    state["conv1.weight"] = torch.randn(64, 3, 7, 7)
    return state | {"fc.weight": torch.randn(10, 512), "fc.bias": torch.randn(10)}


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("config", [VECTOR, GUIDED], ids=["grey", "guided"])
def test_weights_of_photographs_are_taken(tmp_path, suffix, config):
    encoder = VAE(config).encoder
    state = photographs(encoder)
    path = tmp_path / f"resnet18.{suffix}"
    if suffix == "pth":
        torch.save(state, path)
    else:
        save_file(state, path)
        assert load_file(path).keys() == state.keys()
    encoder.load_photographs(path)
    assert torch.equal(encoder.layer3[1].conv2.weight, state["layer3.1.conv2.weight"])
    # A grey image in all inputs is seen as the grey photograph was in all colours.
    x = torch.randn(1, 1, 16, 16)
    ours = F.conv2d(x.expand(-1, encoder.conv1.in_channels, -1, -1), encoder.conv1.weight)
    torch.testing.assert_close(
        ours, F.conv2d(x.expand(-1, 3, -1, -1), state["conv1.weight"]), atol=1e-3, rtol=0
    )


def test_other_weights_are_refused(tmp_path):
    encoder = VAE(VECTOR).encoder
    state = photographs(encoder)
    del state["layer2.0.bn1.bias"]
    save_file(state, tmp_path / "cut.safetensors")
    with pytest.raises(CtinvError, match=r"layer2\.0\.bn1\.bias is missing or misshaped"):
        encoder.load_photographs(tmp_path / "cut.safetensors")
    for name, content in (("a.pth", b"junk"), ("a.safetensors", b""), ("list.pth", None)):
        if content is None:
            buffer = io.BytesIO()
            torch.save([torch.ones(1)], buffer)
            content = buffer.getvalue()
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CtinvError, match="cannot be read as weights"):
            encoder.load_photographs(tmp_path / name)
    with pytest.raises(CtinvError, match="cannot be read as weights"):
        encoder.load_photographs(tmp_path / "missing.safetensors")
