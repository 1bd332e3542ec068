"""Entries of weight files: what may be there beside the weights, what may be missing, and what may not."""

import numpy as np
import pytest
import torch
from ctinv import adapters
from ctinv.adapters.errors import ModelError
from ctinv.adapters.pytorch.weights import fill
from torch import nn


class Net(nn.Module):
    """With every kind of state: weights, statistics, tables, and a buffer that files need not hold."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.conv1, self.bn, self.conv2 = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 3)
        self.register_buffer("attn_mask", torch.zeros(2, 4, 4))
        self.register_buffer("relative_position_index", torch.arange(16).view(4, 4))
        self.register_buffer("kernel", torch.ones(1, 1, 3, 3), persistent=False)


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3)
        self.b.weight = self.a.weight


def state(**changes):
    return {**Net(7).state_dict(), **changes}


def without(*ends):
    return {key: value for key, value in state().items() if not key.endswith(ends)}


def filled(tmp_path, content, module=None):
    path = tmp_path / "w.pth"
    torch.save(content, path)
    module = module or Net()
    return module, fill(module, path)[0]


def counted(*keys):
    return {key: torch.zeros(1, dtype=torch.float64) for key in keys}


BESIDE = {
    "profiler": counted("total_ops", "total_params", "conv1.total_ops", "conv1.total_params"),
    "mask": {"layers.0.attn_mask": torch.zeros(4, 3, 3)},
    "places": {"relative_position_index_SA": torch.zeros(4, 3, dtype=torch.long)},
    "counter": {"norm.num_batches_tracked": torch.tensor(3)},
    "intensities": {"mean": torch.zeros(1, 3, 1, 1), "std": torch.ones(1)},
    "state of its own": {"conv1._extra_state": torch.zeros(3)},
}


@pytest.mark.parametrize("kind", BESIDE)
@pytest.mark.parametrize("prefix", ["", "model."])
def test_what_is_no_weight_is_left_aside_and_told_once(tmp_path, kind, prefix):
    content = {prefix + key: value for key, value in state(**BESIDE[kind]).items()}
    module, notes = filled(tmp_path, content)
    assert torch.equal(module.conv1.weight, state()["conv1.weight"])
    told = [note for note in notes if "left aside" in note]
    assert len(told) == 1
    assert f"{len(BESIDE[kind])} entries" in told[0]
    assert all(key.rpartition(".")[2] in told[0] for key in BESIDE[kind])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("conv3.weight", torch.zeros(3)),
        ("temperature", torch.ones(2)),
        ("conv1.lora_A", torch.zeros(3)),
        ("norm.mean", torch.zeros(64)),
        ("conv3.weight", torch.zeros(3, dtype=torch.int8)),
        ("norm.running_mean", torch.zeros(4)),
    ],
)
def test_weights_of_another_network_are_refused_by_name(tmp_path, key, value):
    with pytest.raises(ModelError, match=rf"1 unknown \({key}\)"):
        filled(tmp_path, state(**{key: value}))


def test_tables_that_a_network_computes_may_be_missing(tmp_path):
    module, notes = filled(tmp_path, without("attn_mask", "relative_position_index"))
    assert torch.equal(module.conv1.weight, state()["conv1.weight"])
    assert [n for n in notes if "attn_mask, relative_position_index that fits" in n and "computed" in n]


def test_tables_for_another_size_of_image_are_left(tmp_path):
    module, notes = filled(tmp_path, state(attn_mask=torch.ones(9, 4, 4)))
    assert module.attn_mask.shape == (2, 4, 4)
    assert [note for note in notes if "attn_mask" in note]


@pytest.mark.parametrize("key", ["bn.running_mean", "bn.running_var", "conv1.bias", "conv2.weight"])
def test_what_training_sets_may_not_be_missing(tmp_path, key):
    with pytest.raises(ModelError, match=rf"1 missing \({key}\)"):
        filled(tmp_path, without(key))


def test_a_buffer_that_older_files_hold_is_read(tmp_path):
    module, _ = filled(tmp_path, state(kernel=torch.full((1, 1, 3, 3), 5.0)))
    assert bool((module.kernel == 5.0).all())
    with pytest.raises(ModelError, match=r"kernel is \(1,\) in the file"):
        filled(tmp_path, state(kernel=torch.zeros(1)))


def test_shared_weights_need_be_there_once(tmp_path):
    weights = Shared().state_dict()
    module, _ = filled(tmp_path, {key: v for key, v in weights.items() if key != "a.weight"}, Shared())
    assert torch.equal(module.a.weight, weights["b.weight"])
    assert module.a.weight is module.b.weight
    filled(tmp_path, weights, Shared())
    with pytest.raises(ModelError, match=r"a\.weight and b\.weight are two tensors in the file"):
        filled(tmp_path, {**weights, "b.weight": weights["b.weight"] + 1}, Shared())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("key", ["conv1.weight", "conv2.bias", "bn.running_var"])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, key, bad):
    value = state()[key].clone()
    value.flatten()[0] = bad
    with pytest.raises(ModelError, match=rf"1 of {value.numel()} values of {key} are NaN or infinite"):
        filled(tmp_path, state(**{key: value}))


def test_masks_may_be_infinite_but_not_nan(tmp_path):
    filled(tmp_path, state(attn_mask=torch.full((2, 4, 4), -torch.inf)))
    with pytest.raises(ModelError, match="attn_mask are NaN"):
        filled(tmp_path, state(attn_mask=torch.full((2, 4, 4), torch.nan)))


def test_weights_too_large_for_half_precision_are_refused(tmp_path):
    with pytest.raises(ModelError, match=r"conv1\.weight is too large for the network's torch\.float16"):
        filled(tmp_path, state(**{"conv1.weight": torch.full((4, 1, 3, 3), 1e6)}), Net().half())


ODD = {
    "int8": lambda w: w.to(torch.int8),
    "bool": lambda w: w > 0,
    "complex": lambda w: w * 1j,
    "quantised": lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8),
    "sparse": lambda w: w.to_sparse(),
    "without values": lambda w: w.to("meta"),
    "nothing": lambda _: None,
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ODD)
def test_weights_of_a_kind_that_does_not_fit_are_refused(tmp_path, kind):
    with pytest.raises(ModelError, match=r"does not fit Net: conv1\.weight is"):
        filled(tmp_path, state(**{"conv1.weight": ODD[kind](state()["conv1.weight"])}))


def test_lazy_modules_are_filled(tmp_path):
    weights = nn.Sequential(nn.Conv2d(1, 1, 3)).state_dict()
    module, _ = filled(tmp_path, weights, nn.Sequential(nn.LazyConv2d(1, 3)))
    assert torch.equal(module[0].weight, weights["0.weight"])


class Picky(Net):
    def set_extra_state(self, _state):
        raise RuntimeError("a state from another time")

    def get_extra_state(self):
        return {}


def test_a_module_that_refuses_by_itself_is_told(tmp_path):
    with pytest.raises(ModelError, match=r"cannot be filled into Picky .*another time"):
        filled(tmp_path, {**state(), "_extra_state": {}}, Picky())


@pytest.mark.parametrize(
    "ask", [lambda d, x: d.denoise(x), lambda d, x: d.features(x, "0"), lambda d, _x: d.layers]
)
def test_modules_with_weights_that_are_not_finite_are_refused(ask):
    module = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 1, 3, padding=1))
    with torch.no_grad():
        module[0].weight[0] = -torch.inf  # the activation would hide it
    denoiser = adapters.wrap(module, intensity="hu", output="image")
    with pytest.raises(ModelError, match=r"values of 0\.weight are NaN or infinite"):
        ask(denoiser, np.zeros((1, 1, 32, 32), np.float32))


def test_one_image_too_is_not_read_by_a_random_network():
    module = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), Noise(), nn.Conv2d(2, 1, 3, padding=1))
    denoiser = adapters.wrap(module, intensity="hu", output="image")
    with pytest.raises(ModelError, match="two runs"):
        denoiser.denoise(np.zeros((1, 1, 32, 32), np.float32))


class Noise(nn.Module):
    def forward(self, h):
        return h + torch.randn_like(h)
