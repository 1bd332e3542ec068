"""Table I of Eulig et al. 2022, and the critic of Yang et al. 2018."""

import pytest
import torch
from ctinv.zoo.networks import Chen, Critic, Yang
from torch import nn

# (kernel, filters) of every convolution, from the table.
TABLE = {
    Chen: [(9, 64), (3, 32), (3, 1)],
    Yang: [(3, 32)] * 7 + [(3, 1)],
}
PARAMETERS = {
    Chen: (81 * 64 + 64) + (9 * 64 * 32 + 32) + (9 * 32 + 1),
    Yang: (9 * 32 + 32) + 6 * (9 * 32 * 32 + 32) + (9 * 32 + 1),
}


@pytest.mark.parametrize("cls", TABLE)
def test_layers_are_those_of_the_table(cls):
    children = dict(cls().named_children())
    count = 2 * len(TABLE[cls]) - 1
    assert list(children) == [f"{'conv' if i % 2 else 'relu'}{i}" for i in range(1, count + 1)]
    for index, (kernel, filters) in enumerate(TABLE[cls]):
        conv = children[f"conv{2 * index + 1}"]
        assert isinstance(conv, nn.Conv2d)
        assert (conv.kernel_size, conv.out_channels) == ((kernel, kernel), filters)
        assert (conv.stride, conv.dilation, conv.groups) == ((1, 1), (1, 1), 1)
    for index in range(2, count, 2):
        relu = children[f"relu{index}"]
        assert isinstance(relu, nn.ReLU)
        assert not relu.inplace, "in place, the layer before could not be observed"


@pytest.mark.parametrize("cls", TABLE)
def test_parameter_count(cls):
    assert sum(p.numel() for p in cls().parameters()) == PARAMETERS[cls]


@pytest.mark.parametrize("cls", TABLE)
@pytest.mark.parametrize("shape", [(1, 1, 33, 33), (2, 1, 17, 40)])
def test_size_is_kept_at_every_layer(cls, shape):
    x = torch.randn(shape)
    for module in cls().children():
        x = module(x)
        assert x.shape[-2:] == shape[-2:]
    assert x.shape == shape


@pytest.mark.parametrize("cls", TABLE)
def test_forward_is_its_children_in_order(cls):
    net, x = cls(), torch.randn(1, 1, 20, 20)
    by_hand = x
    for module in net.children():
        by_hand = module(by_hand)
    assert torch.equal(net(x), by_hand)


@pytest.mark.parametrize("cls", TABLE)
def test_receptive_field(cls):
    # A pixel of the output depends on a square of 1 + sum(k - 1) pixels and on nothing else.
    reach = sum(kernel - 1 for kernel, _ in TABLE[cls]) // 2
    torch.manual_seed(0)
    net = cls()
    for conv in (m for m in net if isinstance(m, nn.Conv2d)):
        nn.init.constant_(conv.weight, 0.01)
    x = torch.ones(1, 1, 41, 41, requires_grad=True)
    net(x)[0, 0, 20, 20].backward()
    seen = torch.zeros(41, 41, dtype=torch.bool)
    seen[20 - reach : 21 + reach, 20 - reach : 21 + reach] = True
    assert torch.equal(x.grad[0, 0] != 0, seen)


def test_critic_is_that_of_the_paper():
    critic = Critic()
    convs = [m for m in critic.modules() if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convs] == [64, 64, 128, 128, 256, 256]
    assert [c.stride[0] for c in convs] == [1, 2, 1, 2, 1, 2]
    assert all(c.kernel_size == (3, 3) for c in convs)
    assert [m.out_features for m in critic.modules() if isinstance(m, nn.Linear)] == [1024, 1]
    assert sum(isinstance(m, nn.LeakyReLU) for m in critic.modules()) == 7


@pytest.mark.parametrize(("patch", "batch"), [(8, 1), (32, 3), (64, 2)])
def test_critic_gives_one_score_per_patch(patch, batch):
    torch.manual_seed(0)
    critic = Critic(patch, width=4, hidden=8)
    x = torch.randn(batch, 1, patch, patch)
    scores = critic(x)
    assert scores.shape == (batch,)
    alone = torch.cat([critic(one[None]) for one in x])
    torch.testing.assert_close(scores, alone)


@pytest.mark.parametrize("patch", [0, 4, 33])
def test_critic_refuses_odd_patches(patch):
    with pytest.raises(ValueError, match="multiple of 8"):
        Critic(patch)
