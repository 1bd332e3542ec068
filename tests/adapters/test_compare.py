"""Two models that claim to be the same network."""

import copy

import numpy as np
import pytest
import torch
from ctinv import adapters
from ctinv.adapters.compare import compare

from .laws import image
from .toys import make


@pytest.mark.parametrize("name", ["Plain", "RedCnn", "Twins", "TupleInside", "Valid"])
def test_model_equals_itself_at_every_layer(name):
    module = make(name)
    a, b = (adapters.wrap(copy.deepcopy(module), intensity="unit:-160:240") for _ in range(2))
    rows = compare(a, b, image())
    assert [row.layer for row in rows] == [layer.name for layer in a.layers if layer.tappable] + ["@output"]
    assert all((row.largest, row.mean, row.note) == (0.0, 0.0, "") for row in rows)


def test_one_wrong_bias_shows_from_its_layer_on():
    module = make("Plain")
    other = copy.deepcopy(module)
    with torch.no_grad():
        other.conv3.bias += 0.5
    a, b = (adapters.wrap(m, intensity="unit:-160:240") for m in (module, other))
    rows = {row.layer: row for row in compare(a, b, image())}
    assert rows["conv1"].largest == rows["relu2"].largest == 0.0
    assert rows["conv3"].largest == pytest.approx(0.5, abs=1e-4)
    assert rows["conv3"].mean == pytest.approx(0.5, abs=1e-4)
    assert rows["@output"].mean == pytest.approx(200.0, abs=0.1)  # half a unit of 400 HU
    z = a.features(image(), "conv3")
    assert rows["conv3"].scale == pytest.approx(float(np.sqrt((z**2).mean())), rel=1e-5)


def test_layers_that_one_lacks_are_told_and_not_guessed():
    a, b = (adapters.wrap(make(name), intensity="hu") for name in ("Plain", "Functional"))
    rows = compare(a, b, image())
    assert [row.other for row in rows] == ["", "", "", "@output"]
    assert "has no layer 'conv1'" in rows[0].note
    assert np.isnan(rows[0].largest)


def test_other_shapes_are_told():
    a, b = (adapters.wrap(make(name), intensity="hu") for name in ("Plain", "Plain"))
    b._module.conv1 = torch.nn.Conv2d(1, 6, 3, padding=1)
    b._module.conv3 = torch.nn.Conv2d(6, 1, 3, padding=1)
    assert "shapes differ: (3, 4, 16, 24) and (3, 6, 16, 24)" in compare(a, b, image())[0].note
