"""The audit's sentence: the right one of few, for every kind of finding."""

import pytest
from ctinv.invariance.audit.verdict import Facts, hides, verdict


def facts(std=50.0, leakage=0.01, rho=0.03, noise=20.0, **more):
    return Facts("conv7", std, leakage, rho, noise, **more)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (facts(), "another pattern move it 100 times or more as much: it has lost just these"),
        (facts(), "conv7 hides 50.0 HU or more: changes of 50.0 HU RMS move it by less than 3 %"),
        (facts(std=2.0, upper=7.0), "conv7 hides between 2.0 and 7.0 HU: changes of 2.0 HU RMS"),
        (facts(std=2.0, noise_hidden=3.0, upper=7.0), "between 3.0 and 7.0 HU (anatomy 2.0, noise 3.0): "),
        (facts(std=2.0, upper=1.5), "conv7 hides 2.0 HU or more: changes"),
        (facts(std=0.2, noise_hidden=3.0), "conv7 hides 3.0 HU or more (anatomy 0.2, noise 3.0)"),
        (facts(converged=False), "The search had not ended: more may be hidden"),
        (
            facts(std=0.7, upper=2.5),
            "can be read back from it to within 2.5 HU; on average no more is hidden. There",
        ),
        (facts(std=5.0, leakage=0.4), "another pattern move it 2.5 times as much"),
        (facts(std=5.0, leakage=1.0), "hidden from it as well: it is blind to this texture."),
        (facts(std=0.7), "conv7 hides nothing that was found"),
        (facts(std=4.0, noise=100.0), "no more than if it forgot nothing"),
        (facts(std=3.0, rho=1.0, noise=2.0), "no more than if it forgot nothing"),
        (facts(std=0.9, noise=5.0), "which is next to nothing"),
        (facts(rho=None), "This map can be read: conv7 sees 1 % of what a random change"),
        (facts(rho=None, leakage=0.3), "Read this map with care: conv7 still sees 30 %"),
        (facts(rho=None, leakage=0.9), "Do not read this map as invariances of conv7"),
        (facts(failed=("it is wrong",)), "Do not read this map: it is wrong (controls that failed)."),
        (facts(std=0.1, rho=None, failed=("A", "B")), "Do not read this map: A and B (controls"),
        (facts(rho=None, leakage=0.0, ignored=True), "the map is the data's own spread"),
        (facts(rho=None, std=0.5), "hides nothing that was found: there is no map to read"),
        (facts(rho=None, why="the model has no gradients"), "not refined (the model has no gradients). This"),
    ],
)
def test_every_finding_has_its_sentence(given, said):
    assert said in verdict(given)


def test_a_finding_exceeds_what_the_noise_ratio_alone_allows():
    # An identity layer lets rho x noise through: 3 % of 100 HU.
    assert not hides(facts(std=3.0, noise=100.0))
    assert hides(facts(std=5.0, noise=100.0))
    # Where noise is low, below 1 HU is nothing.
    assert not hides(facts(std=0.9, noise=1.0))
    assert hides(facts(std=1.1, noise=1.0))
