"""Swapping: a layer that forgets the left half, fitted for a moment."""

import numpy as np
import pytest
from ctinv.adapters.errors import CtinvError, ImageError
from ctinv.invariance.refinement.refine import RHO

from ..comparing.toys import SIDE, denoiser, fitted, phantoms


@pytest.fixture(scope="module")
def explainer(session_cache):
    return fitted(denoiser("left"), phantoms(6)[1:])


def rms(image):
    return float(np.sqrt(np.mean(np.square(image, dtype=np.float64))))


def test_an_image_with_its_own_invariances_is_its_reconstruction(explainer):
    image = phantoms(1)[0]
    found = explainer.swap(image, image)
    np.testing.assert_allclose(found.swapped, found.reconstruction, atol=1.0)
    assert rms(found.refined - image) < 1
    assert found.ratio <= 1.02 * RHO


def test_what_the_layer_sees_stays_and_the_rest_changes(explainer, tmp_path):
    first, second = phantoms(2)
    found = explainer.swap(first, second)
    seen, blind = np.s_[:, SIDE // 2 :], np.s_[:, : SIDE // 2]
    change = found.refined - first
    assert rms(change[blind]) > 10
    assert rms(change[seen]) < 0.1 * rms(change[blind])
    assert found.ratio <= 1.02 * RHO
    assert 0 < found.kept <= 1.001
    np.testing.assert_array_equal(found.other, second)
    files = found.save(tmp_path / "out")
    with np.load(files["images.npz"]) as images:
        assert set(images) == {"x", "other", "swapped", "reconstruction", "other_reconstruction", "refined"}
    assert "Taking the invariances of the other slice" in files["report.html"].read_text()


def test_bad_swaps_are_refused(explainer):
    image = phantoms(1)[0]
    with pytest.raises(ImageError, match="one shape"):
        explainer.swap(image, image[:-8])
    with pytest.raises(CtinvError, match="not positive"):
        explainer.swap(image, image, rho=0)


def test_the_fit_asks_as_the_functions_do(explainer):
    """With the statistics of the fit; the answers speak of its layer."""
    image = phantoms(1)[0]
    spectrum = explainer.spectrum(image, count=1, steps=6)
    assert spectrum.about.layer == "layer"
    assert rms(spectrum.hidden[0].change[:, SIDE // 2 :]) < 1e-2
    assert explainer.attack(image, layers=[]).ratios.keys() == {"@output"}
    region = np.zeros(image.shape, bool)
    region[40:50, 20:30] = True
    found = explainer.hide(image + 50 * region, region=region, realisations=0)
    assert found.share > 0.95
