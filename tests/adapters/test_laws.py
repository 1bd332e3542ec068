"""The one law of adapters, for every kind of adapter, every model and every layer that it lists:
what is read is true, and nothing is left behind.
"""

import copy

import pytest
import torch
from ctinv import adapters

from .laws import assert_reads_truly, captured, image, state_of
from .peers import FIXED, PEERS, bound, peer
from .toys import TOYS, make

KINDS = ("module", "legacy", "dynamo")
UNITS = "unit:-160:240"
# What an exporter cannot write: its own refusals; and branches, which no one graph holds. Exporting
# EditsWeights ends the process in torch 2.13.
NOT = {
    "module": set(),
    "legacy": {"WeightNorm", "Half"},
    "dynamo": {"Branching", "EditsWeights", "Half"},
}


def cases():
    """Every kind with every model; what takes long, or has nothing of its own, in the long form only."""
    for kind in KINDS:
        for name in [*sorted(TOYS), *PEERS]:
            about = PEERS.get(name)
            long = kind == "dynamo" or (about and (about.heavy or (kind == "legacy" and about.like)))
            if name not in NOT[kind]:
                yield pytest.param(kind, name, marks=pytest.mark.slow if long else ())


@pytest.mark.parametrize(("kind", "name"), list(cases()))
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_law_every_listed_layer_reads_true_and_nothing_is_left_behind(kind, name, exported, open_onnx, some):
    about = PEERS.get(name)
    size = about.size if about else (16, 24)
    x = image((1 if about.heavy else 2) if about else 3, *size)
    if kind == "module":
        module, feed = (peer(name), about.feed) if about else (make(name), {})
        before = state_of(module)
        denoiser = adapters.wrap(module, intensity=UNITS, feed=feed or None)
    else:
        module, feed = bound(name) if about else make(name).eval(), {}
        free = not about or not (about.heavy or (name, kind) in FIXED)
        path = exported(module, name, kind, (1 if about else 2, 1, *size), free)
        before = path.read_bytes()
        denoiser = open_onnx(path, intensity=UNITS)
    dtype = next((p.dtype for p in module.parameters()), torch.float32)
    tolerance = 2e-5 if dtype == torch.float32 else 2e-2
    u = denoiser.intensity.to_model(torch.from_numpy(x)).to(dtype)
    expected = captured(module, u, **feed)
    assert assert_reads_truly(denoiser, lambda _: expected, x, tolerance, some if about else list) >= 1
    if kind == "module":
        listed = {layer.name for layer in denoiser.layers if layer.tappable}
        assert listed == set(expected) if about else listed <= set(expected)
        assert denoiser.fingerprint == denoiser.fingerprint
    with torch.no_grad():
        y = denoiser.intensity.to_hu(copy.deepcopy(module).eval()(u, **feed).float()).numpy()
    assert abs(denoiser.denoise(x) - y).max() <= tolerance * max(abs(y).max(), 400.0)
    assert (state_of(module) if kind == "module" else path.read_bytes()) == before
