"""The prepared inverse of a flow is the flow's own."""

import pytest
import torch
from ctinv.invariance.networks.flow import Mixing
from ctinv.invariance.sampling.inverse import FlowInverse

from .toys import FLOWS, make_flow


@pytest.mark.parametrize("reads", [False, True])
@pytest.mark.parametrize("name", FLOWS)
def test_prepared_inverse_is_the_flows(name, reads):
    flow, context = make_flow(name, reads)
    if reads:
        mixing = next(step for step in flow.transform.transforms if isinstance(step, Mixing))
        mixing.initialise(
            torch.randn(4 * flow.features, flow.features) * torch.linspace(0.3, 2, flow.features)
        )
    v = torch.randn(23, flow.features)
    before = v.clone()
    code = FlowInverse(flow).bind(context)(v)
    assert torch.equal(v, before)
    with torch.no_grad():
        wanted = flow.inverse(v, context)
        back, _ = flow(code.clone(), context)
    torch.testing.assert_close(code.clone(), wanted, rtol=1e-4, atol=2e-4)
    torch.testing.assert_close(back, v, rtol=1e-3, atol=1e-3)
