"""Networks that compute different numbers have different fingerprints, wherever the difference is kept."""

import argparse
import collections
import copy
import dataclasses
import fractions
import functools
import operator
import pickle
import threading
import types
from enum import Enum

import numpy as np
import pytest
import torch
from ctinv import adapters
from torch import nn

from ..toys import TOYS, make


def fingerprint(module, **options):
    return adapters.wrap(module, intensity="unit:-160:240", **options).fingerprint


class Base(nn.Module):
    def __init__(self, k):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 1, 3, padding=1)
        self.put(k)

    def forward(self, x):
        return x - float(self.get()) * self.conv(x)


class Slots:
    __slots__ = ("k",)


class Callable:
    def __init__(self, k):
        self.k = k

    def __call__(self):
        return self.k


class Choice(Enum):
    A = 1.0
    B = 2.0


class Packed(nn.Module):
    def __init__(self, k):
        super().__init__()
        self.linear = nn.Linear(4, 4, bias=False)
        nn.init.constant_(self.linear.weight, k)


@dataclasses.dataclass
class Settings:
    k: float


def slots(k):
    held = Slots()
    held.k = k
    return held


def ring(k):
    """A list that holds itself."""
    held = [k]
    held.append(held)
    return held


def quantised(k):
    torch.manual_seed(0)
    return torch.ao.quantization.quantize_dynamic(Packed(k), {nn.Linear}, dtype=torch.qint8)


class Listing(list):
    pass


class Mapping(dict):
    pass


class Number(float):
    pass


class Array(np.ndarray):
    pass


def beside(value, k):
    """A value with an attribute of its own."""
    value.k = k
    return value


HOLDERS = {
    "list with an attribute": lambda k: beside(Listing(), k),
    "mapping with an attribute": lambda k: beside(Mapping(), k),
    "number with an attribute": lambda k: beside(Number(1.0), k),
    "array with an attribute": lambda k: beside(np.zeros(1).view(Array), k),
    "tensor with an attribute": lambda k: beside(torch.zeros(1), k),
    "parameter with an attribute": lambda k: beside(nn.Parameter(torch.zeros(1)), k),
    "default of a mapping": lambda k: collections.defaultdict(lambda: k),
    "method in C of a tensor": lambda k: torch.tensor(k).mul,
    "method in C of an object": lambda k: Settings(k).__getattribute__,
    "list with a method": lambda k: type("Steps", (list,), {"k": k})(),
    "named tuple": lambda k: collections.namedtuple("Pair", "a b")(1.0, k),
    "float": lambda k: k,
    "private": lambda k: k,
    "namespace": lambda k: argparse.Namespace(k=k),
    "simple namespace": lambda k: types.SimpleNamespace(k=k),
    "nested": lambda k: {"a": [argparse.Namespace(b=({"c": k},))]},
    "list of tensors": lambda k: [torch.tensor(k)],
    "deque": lambda k: collections.deque([k]),
    "set": lambda k: {k},
    "array": lambda k: np.array([k], np.float32),
    "array of objects": lambda k: np.array([k, None], object),
    "scalar": np.float32,
    "fraction": fractions.Fraction,
    "dataclass": Settings,
    "slots": slots,
    "enum": lambda k: Choice.A if k < 1.5 else Choice.B,
    "ring": ring,
    "closure": lambda k: lambda: k,
    "default": lambda k: lambda value=k: value,
    "partial": lambda k: functools.partial(max, k),
    "method": lambda k: Callable(k).__call__,
    "callable object": Callable,
    "in C": lambda k: operator.itemgetter(int(k)),
    "sparse": lambda k: torch.tensor([[0.0, k]]).to_sparse(),
    "quantised tensor": lambda k: torch.quantize_per_tensor(torch.ones(2), 0.1 * k, 0, torch.qint8),
    "dtype": lambda k: torch.float32 if k < 1.5 else torch.float64,
    "module in a list": lambda k: [Packed(k)],
}


def holding(kind, k):
    module = make("Plain")
    setattr(module, "_held" if kind == "private" else "held", HOLDERS[kind](k))
    return module


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
@pytest.mark.parametrize("kind", HOLDERS)
def test_what_a_module_holds_decides_the_fingerprint(kind):
    first = fingerprint(holding(kind, 1.0))
    assert fingerprint(holding(kind, 1.0)) == first
    assert fingerprint(holding(kind, 2.0)) != first


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_packed_weights_of_quantised_layers_decide_it():
    assert fingerprint(quantised(1.0)) == fingerprint(quantised(1.0))
    assert fingerprint(quantised(1.0)) != fingerprint(quantised(2.0))


def module_of(code):
    """The class Net of code written into a module of its own."""
    made = types.ModuleType("made")
    exec(f"import torch\nfrom torch import nn\n{code}", vars(made))
    torch.manual_seed(0)
    return made.Net()


FORWARD = "class Net(nn.Module):\n    {own}\n    def forward(self, x):\n        return {value}"
CODES = {
    "forward": FORWARD.format(own="k = 0", value="x * {k}"),
    "class attribute": FORWARD.format(own="k = {k}", value="x * self.k"),
    "other method": FORWARD.format(own="def g(self): return {k}\n", value="x * self.g()"),
    "property": FORWARD.format(own="g = property(lambda self: {k})\n", value="x * self.g"),
    "static method": FORWARD.format(own="g = staticmethod(lambda: {k})\n", value="x * self.g()"),
    "base class": "class Base(nn.Module):\n    k = {k}\n"
    "class Net(Base):\n    def forward(self, x): return x * self.k",
    "global": "K = {k}\n" + FORWARD.format(own="k = 0", value="x * K"),
    "global settings": "K = dict(k={k})\n" + FORWARD.format(own="k = 0", value="x * K['k']"),
    "function": "def f(x): return x * {k}\n" + FORWARD.format(own="k = 0", value="f(x)"),
    "function of a function": "def g(x): return x * {k}\ndef f(x): return g(x)\n"
    + FORWARD.format(own="k = 0", value="f(x)"),
    "inner function": FORWARD.format(own="k = 0", value="(lambda: x * {k})()"),
}


@pytest.mark.parametrize("kind", CODES)
def test_code_decides_the_fingerprint(kind):
    first = fingerprint(module_of(CODES[kind].format(k=3)))
    assert fingerprint(module_of(CODES[kind].format(k=3))) == first
    assert fingerprint(module_of(CODES[kind].format(k=4))) != first


def test_patched_forwards_and_hooks_decide_it():
    module, plain = make("Plain"), fingerprint(make("Plain"))
    original = module.conv3.forward
    module.conv3.forward = lambda x: original(x) * 0.5
    assert fingerprint(module) != plain
    module = make("Plain")
    module.conv3.register_forward_hook(lambda _m, _a, y: y * 0.5)
    assert fingerprint(module) != plain


def test_bound_inputs_decide_it():
    class Scaled(nn.Module):
        def forward(self, x, k=1.0):
            return x * k

    kinds = [fingerprint(Scaled(), feed=feed) for feed in (None, {"k": 1.0}, {"k": 2.0})]
    assert len(set(kinds)) == 3


@pytest.mark.parametrize("name", sorted(TOYS))
def test_a_copy_has_the_same_fingerprint_and_running_leaves_it(name):
    module = make(name)
    denoiser = adapters.wrap(module, intensity="unit:-160:240")
    first = denoiser.fingerprint
    assert adapters.wrap(copy.deepcopy(module), intensity="hu").fingerprint == first or name == "WeightNorm"
    denoiser.denoise(np.zeros((2, 1, 16, 24), np.float32))
    assert denoiser.fingerprint == first
    assert denoiser.cacheable


def test_what_is_gathered_while_running_does_not_count():
    module, kept = make("Plain"), []
    module.conv1.register_forward_hook(lambda *_: kept.append(1))
    denoiser = adapters.wrap(module, intensity="unit:-160:240")
    first = denoiser.fingerprint
    denoiser.denoise(np.zeros((1, 1, 16, 24), np.float32))
    assert kept
    assert denoiser.fingerprint == first


class Hidden(nn.Module):
    """Keeps a number where no one can look."""

    def __init__(self, k):
        super().__init__()
        self.held = threading.local()
        self.held.k = k

    def forward(self, x):
        return x * self.held.k


def test_a_hidden_number_is_seen_in_the_output():
    first, second = (adapters.wrap(Hidden(k), intensity="hu") for k in (1.0, 2.0))
    assert first.fingerprint != second.fingerprint
    assert first.fingerprint == adapters.wrap(Hidden(1.0), intensity="hu").fingerprint
    assert first.cacheable


def test_places_and_flags_do_not_count():
    module = make("Plain")
    first = fingerprint(module)
    assert fingerprint(module.train()) == fingerprint(module.eval()) == first
    assert fingerprint(pickle.loads(pickle.dumps(module))) == first
    module.requires_grad_(False)
    assert fingerprint(module) == first
