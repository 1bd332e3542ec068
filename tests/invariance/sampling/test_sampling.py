"""Laws of sampling: what a sample is depends on seed, tile and number alone, and memory is bounded."""

import dataclasses
import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from ctinv import adapters
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.data import phantom
from ctinv.invariance.data.tiling import STEP, grid
from ctinv.invariance.explaining.explainer import Explainer
from ctinv.invariance.infra.memory import Budget, available_memory, memory_size, ran_out
from ctinv.invariance.networks.fit_record import FitRecord
from ctinv.invariance.networks.fitted import build_networks
from ctinv.invariance.networks.flow import ConditionalFlow
from ctinv.invariance.networks.pretrained import shipped_vae
from ctinv.invariance.networks.vae import VAE
from ctinv.invariance.presets import preset
from ctinv.invariance.representation.geometry import probe_geometry
from ctinv.invariance.representation.reader import represent
from ctinv.invariance.sampling import slices as sampling
from ctinv.invariance.sampling.decoder import prepared_decoder
from ctinv.invariance.sampling.inverse import FlowInverse
from ctinv.invariance.sampling.moments import BINS, Histogram, Moments
from ctinv.invariance.sampling.sampler import Sampler, decoding_type, invariance_noise
from ctinv.invariance.sampling.winograd import MinimalConv, MinimalUpConv
from torch import nn
from torch.nn import functional as F

SMALL = {
    "vae.channels": 4,
    "vae.patch": 32,
    "vae.code_channels": 32,
    "vae.mapping": (16,),
    "vae.encoder": "resnet18",
}
NARROW = {"flow.width": 16, "flow.context": 8, "flow.embed_width": 8}
FLOWS = {
    "map": ("tiny", {}),
    "map-spline": ("tiny", {"flow.coupling": "spline"}),
    "vector": ("paper2024", {**SMALL, **NARROW}),
    "vector-spline": ("paper2024", {**SMALL, **NARROW, "flow.blocks": 3, "flow.coupling": "spline"}),
    "vector-odd": ("paper", {**NARROW, "vae.code_channels": 33, "flow.depth": 1}),
}


def stir(module, scale):
    """Random weights where a fresh network would be the identity."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return module.eval()


def make_flow(name):
    chosen = preset(*FLOWS[name])
    flow = ConditionalFlow(chosen.vae.code_shape, chosen.flow, torch.Generator().manual_seed(0))
    flow.mean.normal_()
    flow.std.uniform_(0.5, 2)
    context = torch.randn(1, chosen.flow.context, chosen.vae.code_size, chosen.vae.code_size)
    return stir(flow, 0.1), context


def make_explainer(name="tiny", overrides=None):
    torch.manual_seed(3)
    chosen = preset(name, overrides)
    denoiser = adapters.wrap(nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 1, 1)), intensity="hu")
    layer = denoiser.layers[0].name
    image = np.zeros((64, 64), np.float32)
    geometry = probe_geometry(represent(denoiser, layer, image[None, None]), (64, 64), chosen.vae.patch)
    flow, embedder = build_networks(chosen, geometry, 0, torch.Generator().manual_seed(0))
    vae = shipped_vae(chosen.vae)
    if vae is None:
        vae = stir(VAE(chosen.vae), 0.05).ready()
    return Explainer(denoiser, layer, chosen, vae, stir(flow, 0.05), embedder.eval(), geometry)


@pytest.fixture(scope="module")
def explainer():
    return make_explainer()


@pytest.fixture(scope="module")
def image():
    rows, columns = np.mgrid[:56, :80]
    noise = np.random.default_rng(0).normal(0, 20, (56, 80))
    return (100 * np.sin(rows / 9) * np.cos(columns / 7) + noise).astype(np.float32)


def with_batch(explainer, batch):
    tile = dataclasses.replace(explainer.preset.tile, batch=batch)
    return dataclasses.replace(explainer, preset=dataclasses.replace(explainer.preset, tile=tile))


def same(a, b):
    return all(
        np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(sampling.Drawn)
    )


# -- noise and flow


def test_noise_is_a_function_of_seed_tile_and_sample():
    whole = invariance_noise(5, 2, 0, 40, 33)
    for start, stop in ((0, 5), (7, 8), (13, 40)):
        assert torch.equal(invariance_noise(5, 2, start, stop, 33), whole[start:stop])
    assert len({row.numpy().tobytes() for row in whole}) == 40
    assert not torch.equal(invariance_noise(5, 3, 0, 40, 33), whole)
    assert not torch.equal(invariance_noise(6, 2, 0, 40, 33), whole)


def test_noise_is_standard_normal():
    v = torch.cat([invariance_noise(0, tile, 0, 100, 64) for tile in range(10)])
    assert v.mean().item() == pytest.approx(0, abs=0.02)
    assert v.std().item() == pytest.approx(1, abs=0.02)
    neighbours = torch.corrcoef(torch.stack([v[:-1].flatten(), v[1:].flatten()]))[0, 1]
    assert abs(neighbours.item()) < 0.02


@pytest.mark.parametrize("name", FLOWS)
def test_prepared_inverse_is_the_flows(name):
    flow, context = make_flow(name)
    v = torch.randn(23, flow.features)
    before = v.clone()
    code = FlowInverse(flow).bind(context)(v)
    assert torch.equal(v, before)
    with torch.no_grad():
        wanted = flow.inverse(v, context)
        back, _ = flow(code.clone(), context)
    torch.testing.assert_close(code.clone(), wanted, rtol=1e-4, atol=2e-4)
    torch.testing.assert_close(back, v, rtol=1e-3, atol=1e-3)


DECODERS = {
    "plain": ("tiny", {}),
    "vector": ("paper", SMALL),
    "conditional": ("paper2024", SMALL),
    "map": ("paper", {**SMALL, "vae.patch": 64, "vae.code_size": 2, "vae.code_channels": 4}),
}


@pytest.mark.parametrize("size", [(4, 4), (2, 6), (8, 2), (5, 9)], ids=str)
@pytest.mark.parametrize("rows", [2, 512])
def test_convolutions_by_fewer_products_are_the_same(size, rows, monkeypatch):
    monkeypatch.setattr("ctinv.invariance.sampling.winograd._ROWS", rows)
    monkeypatch.setattr("ctinv.invariance.sampling.winograd._PIXELS", rows)
    x, bias = torch.randn(3, 5, *size), torch.randn(7)
    weight = torch.randn(7, 5, 3, 3)
    last = x.permute(0, 2, 3, 1).contiguous()
    found = MinimalConv(weight, bias)(last).permute(0, 3, 1, 2)
    torch.testing.assert_close(found, F.conv2d(x, weight, bias, padding=1), rtol=1e-4, atol=1e-4)
    bare = MinimalConv(weight, None)(last).permute(0, 3, 1, 2)
    torch.testing.assert_close(bare, F.conv2d(x, weight, padding=1), rtol=1e-4, atol=1e-4)
    found = MinimalUpConv(weight, bias)(last).permute(0, 3, 1, 2)
    wanted = F.conv2d(F.interpolate(x, scale_factor=2), weight, bias, padding=1)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("many", "dtype", "tolerance"),
    [(1, torch.float32, 1e-5), (768, torch.float32, 1e-5), (1, torch.bfloat16, 2e-2)],
    ids=["fewer", "plain", "bfloat16"],
)
@pytest.mark.parametrize("name", DECODERS)
def test_prepared_decoder_is_the_autoencoders(name, many, dtype, tolerance, monkeypatch):
    monkeypatch.setattr("ctinv.invariance.sampling.decoder.MANY", many)
    monkeypatch.setattr("ctinv.invariance.sampling.decoder.MANY_UP", many)
    config = preset(*DECODERS[name]).vae
    vae = stir(VAE(config), 0.05)
    for module in vae.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 2)
    vae.ready()
    code = torch.randn(3, config.code_dim)
    guide = torch.randn(1, 1, config.patch, config.patch) * 200 if config.conditional else None
    with torch.no_grad():
        wanted = vae.decode(code, guide)
    before = code.clone()
    with torch.inference_mode():
        found = prepared_decoder(vae, dtype)(code, guide)
    assert torch.equal(code, before)
    assert found.dtype == torch.float32
    assert ((found - wanted).norm() / wanted.norm()).item() < tolerance


# -- whole slices


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("batch", [1, 7, 64])
def test_the_batch_changes_no_bit(explainer, image, batch, precision):
    tile = dataclasses.replace(explainer.preset.tile, precision=precision)
    explainer = dataclasses.replace(explainer, preset=dataclasses.replace(explainer.preset, tile=tile))
    wanted = sampling.sample_slice(explainer, image, 23, 0, 3, quantiles=(0.5,))
    drawn = sampling.sample_slice(with_batch(explainer, batch), image, 23, 0, 3, quantiles=(0.5,))
    assert same(wanted, drawn)


def test_the_number_of_threads_changes_little(explainer, image):
    drawn = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            drawn.append(sampling.sample_slice(explainer, image, 12, 0, 2))
            with ThreadPoolExecutor(1) as later:
                assert torch.get_num_threads() == later.submit(torch.get_num_threads).result() == threads
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(drawn[0].std, drawn[1].std, rtol=1e-4, atol=1e-3)


def test_bfloat16_changes_little(explainer, image):
    drawn = {}
    for precision in ("float32", "bfloat16"):
        tile = dataclasses.replace(explainer.preset.tile, precision=precision)
        preset = dataclasses.replace(explainer.preset, tile=tile)
        drawn[precision] = sampling.sample_slice(
            dataclasses.replace(explainer, preset=preset), image, 20, 0, 2
        )
    error = drawn["bfloat16"].samples - drawn["float32"].samples
    assert 0 < np.sqrt(np.square(error).mean()) < 0.02 * drawn["float32"].samples.std()
    np.testing.assert_allclose(drawn["bfloat16"].std.mean(), drawn["float32"].std.mean(), rtol=0.02)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_bfloat16_is_chosen_only_where_it_is_native(device, monkeypatch):
    for native in (True, False):
        monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda native=native: native)
        monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda native=native, **_: native)
        wanted = torch.bfloat16 if native else torch.float32
        assert decoding_type("auto", torch.device(device)) is wanted
        assert decoding_type("float32", torch.device(device)) is torch.float32
        assert decoding_type("bfloat16", torch.device(device)) is torch.bfloat16


def test_more_samples_start_with_the_same(explainer):
    sampler = Sampler(explainer.vae, explainer.flow)
    chosen = explainer.preset
    context = torch.zeros(1, chosen.flow.context, chosen.vae.code_size, chosen.vae.code_size)
    few, many = (torch.cat(list(sampler.draw(0, 4, n, context))) for n in (5, 63))
    assert few.shape == (5, 32, 32)
    assert many.shape == (63, 32, 32)
    assert torch.equal(many[:5], few)


def test_statistics_are_those_of_the_samples(explainer, image):
    small = image[:32, :32]  # a single tile
    drawn = sampling.sample_slice(explainer, small, 60, 1, 60, quantiles=(0.05, 0.5, 0.95))
    np.testing.assert_allclose(drawn.mean, drawn.samples.mean(0), rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(drawn.std, drawn.samples.std(0), rtol=1e-4)
    exact = np.quantile(drawn.samples, (0.05, 0.5, 0.95), axis=0, method="hazen")
    gap = np.sort(drawn.samples, 0)
    spacing = np.abs(np.diff(gap, axis=0)).max(0) + drawn.std / 8
    assert (np.abs(drawn.quantiles - exact) <= spacing).all()


class Normal:
    """Stands for the sampler: every pixel normal, 3 HU about 40 HU."""

    def __init__(self, *_):
        pass

    def draw(self, seed, tile, count, context, guide=None):
        generator = torch.Generator().manual_seed(1000 * seed + tile)
        yield from (40 + 3 * torch.randn(count, 32, 32, generator=generator)).split(700)


def test_quantiles_of_a_normal_law_reach_the_user(explainer, image, monkeypatch):
    """Over tiles that overlap, and cut to the image's own size."""
    monkeypatch.setattr(sampling, "Sampler", Normal)
    image = image[:45, :53]
    found = explainer.explain(image, samples=4000, refine=0, quantiles=(0.05, 0.5, 0.95), cache=False)
    assert found.quantiles.shape == (3, 45, 53)
    wanted = 40 + 3 * np.array([-1.645, 0, 1.645])
    np.testing.assert_allclose(found.quantiles.mean((1, 2)), wanted, atol=0.02)
    np.testing.assert_allclose(found.quantiles, np.ones((45, 53)) * wanted[:, None, None], atol=0.6)
    assert found.meta["quantiles"] == [0.05, 0.5, 0.95]


def test_quantiles_are_of_the_samples_as_the_flow_draws_them(explainer, image):
    small = image[:32, :32]
    shares = (0.95, 0.05)  # in the order asked for
    flow = explainer.explain(small, samples=40, keep=40, refine=0, quantiles=shares)
    exact = np.quantile(flow.samples, shares, axis=0, method="hazen")
    gap = np.abs(np.diff(np.sort(flow.samples, 0), axis=0)).max(0) + flow.std / 8
    assert (np.abs(flow.quantiles - exact) <= gap).all()
    refined = explainer.explain(small, samples=40, refine=2, quantiles=shares)
    np.testing.assert_array_equal(refined.quantiles, flow.quantiles)
    plain = explainer.explain(small, samples=40, refine=0)
    assert plain.quantiles is None
    assert "quantiles" not in plain.meta
    np.testing.assert_array_equal(plain.std, flow.std)


@pytest.mark.parametrize("shares", [(0.0, 0.5), (0.5, 1.0), (5, 95), (float("nan"),)])
def test_quantiles_that_are_no_shares_are_refused(explainer, image, shares):
    with pytest.raises(CtinvError, match="between 0 and 1"):
        explainer.explain(image, samples=4, quantiles=shares)


def test_a_stored_answer_has_the_quantiles_asked_for(explainer, image):
    explainer = dataclasses.replace(explainer, info=FitRecord(key="with-quantiles"))
    first, again = (explainer.explain(image, samples=4, refine=0, quantiles=(0.1,)) for _ in range(2))
    np.testing.assert_array_equal(first.quantiles, again.quantiles)
    assert again.meta["quantiles"] == [0.1]
    other = explainer.explain(image, samples=4, refine=0, quantiles=(0.9,))
    assert (other.quantiles > first.quantiles).any()
    assert explainer.explain(image, samples=4, refine=0).quantiles is None


@pytest.mark.parametrize("samples", [4, 60])
def test_memory_does_not_grow_with_the_samples(explainer, image, samples, monkeypatch):
    portions, most = [], 0

    class Watched(Moments):
        def add(self, portion):
            nonlocal most
            portions.append(weakref.ref(portion))
            gc.collect()
            most = max(most, sum(len(p) for p in (r() for r in portions) if p is not None))
            super().add(portion)

    monkeypatch.setattr(sampling, "Moments", Watched)
    sampling.sample_slice(explainer, image[:32, :32], samples, 0, 2)
    assert most <= 20


@pytest.mark.parametrize("name", ["paper", "paper2024"])
def test_vector_codes_and_conditional_decoders(name, image):
    small = SMALL | NARROW | {"flow.blocks": 1}
    explainer = make_explainer(name, {k: str(v) for k, v in small.items()})
    drawn = sampling.sample_slice(explainer, image[:, :56], 4, 0, 1)
    assert drawn.mean.shape == (56, 56)
    assert np.isfinite(drawn.samples).all()
    assert drawn.std.min() > 0


def test_no_seam_shows_in_the_spread():
    """Gradients of the std map at tile borders are like those elsewhere on the code's lattice."""
    explainer = make_explainer("small", {"fit.steps": "1"})
    x = phantom(np.random.default_rng(0), 208).hu
    overlap, p = explainer.preset.tile.overlap, explainer.preset.vae.patch
    tiles = grid(x.shape, p, overlap)
    log = np.log(sampling.sample_slice(explainer, x, 10, 0, 0).std.astype(np.float64) + 1)
    starts = sorted({column for _, column in tiles.corners})
    borders = {a - 1 for a in starts[1:]} | {a + p - 1 for a in starts[:-1]}
    for axis in (0, 1):
        gradient = np.abs(np.diff(log, axis=axis)).mean(1 - axis)
        at = np.array(sorted(borders))
        # The decoder has a lattice of 8 pixels of its own, and tiles begin on it.
        inside = np.setdiff1d(np.arange(7, len(gradient), STEP), at)
        assert 0.8 < gradient[at].mean() / gradient[inside].mean() < 1.2


# -- statistics


@pytest.mark.parametrize("portions", [[40], [1] * 40, [7, 13, 20]], ids=str)
def test_moments_in_portions(portions):
    x = 1e4 + np.random.default_rng(0).normal(0, 0.01, (40, 3, 5))
    moments = Moments()
    for part in np.split(x, np.cumsum(portions)[:-1]):
        moments.add(torch.from_numpy(part))
    np.testing.assert_allclose(moments.mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.square - moments.mean**2, x.var(0), rtol=1e-3)


@pytest.mark.parametrize("count", [3, 50, 400])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_a_quantile_is_off_by_one_bin_at_most(count, share):
    x = np.random.default_rng(1).normal(0, 1, (count, 8, 8)) * np.geomspace(0.01, 100, 8) + 50
    histogram = Histogram()
    for part in np.array_split(x, 9):
        histogram.add(torch.from_numpy(part))
    bins = histogram.bins
    low, high = (np.quantile(x, share, axis=0, method=m) for m in ("lower", "higher"))
    assert bins.below.shape == (BINS + 1, 8, 8)
    # The exact quantile lies between two samples; one bin away the shares must enclose the one asked for.
    assert (bins.share(low - bins.step) <= share + 1 / count).all()
    assert (bins.share(high + bins.step) >= share - 1 / count).all()
    assert np.median(bins.step / x.std(0)) == pytest.approx(1 / 16, rel=0.5)


def test_a_pixel_that_never_changes_has_its_value_as_quantile():
    histogram = Histogram()
    histogram.add(torch.full((60, 2, 2), -1000.0))
    bins = histogram.bins
    assert bins.share(np.full((2, 2), -1000.1)).max() == 0
    assert bins.share(np.full((2, 2), -999.9)).min() == 1


# -- budget


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."), True),
        (RuntimeError("HIP out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("shapes do not fit"), False),
        (ValueError("out of memory"), False),
    ],
    ids=str,
)
def test_lack_of_memory_is_told_from_other_errors(error, counts):
    assert ran_out(error) is counts


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
@pytest.mark.parametrize("room", [1, 3, 8])
def test_lack_of_memory_halves_the_batch_and_goes_on(explainer, image, monkeypatch, error, room):
    wanted = sampling.sample_slice(explainer, image, 13, 0, 2)
    decode, sizes = prepared_decoder(explainer.vae), []

    def narrow(code, denoised=None):
        if len(code) > room:
            raise error("out of memory")
        sizes.append(len(code))
        return decode(code, denoised)

    monkeypatch.setattr("ctinv.invariance.sampling.sampler.prepared_decoder", lambda *_: narrow)
    monkeypatch.setattr("ctinv.invariance.sampling.sampler._bytes_each", lambda _: 1)
    drawn = sampling.sample_slice(explainer, image, 13, 0, 2)
    assert max(sizes) <= room
    assert max(sizes) * 2 > min(room, 10) // 2
    np.testing.assert_allclose(drawn.mean, wanted.mean, atol=0.02)
    np.testing.assert_allclose(drawn.std, wanted.std, atol=0.02)


def test_no_memory_at_all_is_said(explainer, image, monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("ctinv.invariance.sampling.sampler._bytes_each", lambda _: 1)
    monkeypatch.setattr("ctinv.invariance.sampling.sampler.prepared_decoder", lambda *_: fail)
    with pytest.raises(CtinvError, match="single sample"):
        sampling.sample_slice(explainer, image, 13, 0, 2)


def test_other_errors_pass(explainer):
    with pytest.raises(RuntimeError, match="broken"):
        Budget(4).run(lambda _: (_ for _ in ()).throw(RuntimeError("broken")))


@pytest.mark.parametrize(("memory", "batch"), [(10_000, 10), (500, 5), (99, 1), (1, 1)])
def test_memory_bounds_the_batch(memory, batch):
    budget = Budget(10, memory)
    budget.fit(100, torch.device("cpu"))
    assert budget.batch == batch


@pytest.mark.parametrize("text", ["", "much", "0GB", "-1GB", "1.5XB"])
def test_amounts_of_memory_that_make_no_sense(text):
    with pytest.raises(CtinvError, match="no amount of memory"):
        memory_size(text)


def test_some_memory_is_free():
    assert available_memory(torch.device("cpu")) > 10**7


# -- series


def test_an_interrupted_series_goes_on_where_it_stopped(explainer, image, monkeypatch):
    from ctinv.invariance.explaining import analysis

    series = [image + 10 * k for k in range(4)]
    explainer = dataclasses.replace(explainer, info=FitRecord(key="interrupted-series"))
    drawn, sample = [], sampling.sample_slice

    def interrupted(explainer, x, *args, **options):
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(x)
        return sample(explainer, x, *args, **options)

    monkeypatch.setattr(analysis, "sample_slice", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _ = [explainer.explain(one, samples=3, refine=0) for one in series]
    assert len(drawn) == 2
    drawn.clear()
    monkeypatch.setattr(
        analysis, "sample_slice", lambda e, x, *a, **o: (drawn.append(x), sample(e, x, *a, **o))[1]
    )
    again = [explainer.explain(one, samples=3, refine=0) for one in series]
    assert len(drawn) == 2
    whole = [explainer.explain(one, samples=3, refine=0, cache=False) for one in series]
    for a, b in zip(again, whole, strict=True):
        np.testing.assert_array_equal(a.std, b.std)
        np.testing.assert_array_equal(a.samples, b.samples)


def test_the_memory_that_the_user_grants_bounds_the_batch(explainer, image, monkeypatch):
    sizes, prepare = [], prepared_decoder

    def watched(*about):
        decode = prepare(*about)
        return lambda code, denoised=None: (sizes.append(len(code)), decode(code, denoised))[1]

    monkeypatch.setattr("ctinv.invariance.sampling.sampler.prepared_decoder", watched)
    monkeypatch.setattr("ctinv.invariance.sampling.sampler._bytes_each", lambda _: 1000)
    memory = 4000 * torch.get_num_threads()  # each of them draws
    sampling.sample_slice(dataclasses.replace(explainer, memory=memory), image[:32, :32], 9, 0, 1)
    assert set(sizes) == {4}
