"""Run the checks on a denoiser, and tell which hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from ctinv.adapters.base import Denoiser
from ctinv.adapters.loading import wrap

from .checks import CHECKS, Check
from .subject import InapplicableError, Reference, Subject, capture, state_of

__all__ = ["CheckError", "Result", "check_denoiser", "parametrize_checks"]


@dataclasses.dataclass(frozen=True)
class Result:
    """How one check went.

    Arguments:
        check: Its name.
        status: ``passed``, ``failed``, ``skipped``, or ``xfail`` for a failure that was expected.
        message: What was wrong, or why it was skipped or expected to fail.
    """

    check: str
    status: Literal["passed", "failed", "skipped", "xfail"]
    message: str = ""


class CheckError(AssertionError):
    """Checks that failed; ``results`` are those of all checks."""

    def __init__(self, name: str, results: Sequence[Result]) -> None:
        failed = [result for result in results if result.status == "failed"]
        lines = "".join(f"\n  {result.check}: {result.message}" for result in failed)
        super().__init__(f"{len(failed)} of {len(results)} checks of {name!r} fail:{lines}")
        self.results = tuple(results)


def check_denoiser(
    denoiser: Any,
    *,
    reference: Reference | None = None,
    images: np.ndarray | None = None,
    expected_failures: Mapping[str, str] | None = None,
    checks: Sequence[Check] = CHECKS,
    on_fail: Literal["raise"] | None = "raise",
) -> tuple[Result, ...]:
    """Check that a denoiser obeys the laws of adapters.

    Arguments:
        denoiser: A :class:`ctinv.adapters.Denoiser` whose units are known, or a ``torch.nn.Module``.
        reference: From images in model units (N, C, H, W) to every layer's output by name, ``@output``
            among them, made independently of the adapter. None for a capture on a copy where the
            denoiser is a module that takes the image alone.
        images: Images (N, 1, H, W), float32, HU, two or more; None for three of noise in soft tissue.
        expected_failures: Checks that are known to fail, with the reason. One that passes
            is a failure: its entry must go.
        checks: Which checks to run.
        on_fail: ``raise``, or None to return the results only.

    Returns:
        How every check went, in order.

    Raises:
        CheckError: Some check failed.
        ValueError: ``expected_failures`` names no check.
    """
    subject = _subject(denoiser, reference, images)
    expected = dict(expected_failures or {})
    unknown = sorted(set(expected) - {check.__name__ for check in CHECKS})
    if unknown:
        raise ValueError(
            f"no check is called {unknown[0]!r}; checks: {', '.join(c.__name__ for c in CHECKS)}"
        )
    results = tuple(_run(check, subject, expected.get(check.__name__)) for check in checks)
    if on_fail == "raise" and any(result.status == "failed" for result in results):
        raise CheckError(subject.denoiser.name, results)
    return results


def parametrize_checks(
    makers: Sequence[Callable[[], Any]], expected_failures: Mapping[str, str] | None = None
) -> Any:
    """A pytest decorator: one test for every denoiser and every check.

    The test gets ``denoiser``, what a maker returns, and ``check``, a function of it.

    Arguments:
        makers: Callables without arguments that return what :func:`check_denoiser` takes.
        expected_failures: As there; these tests are marked as expected to fail, strictly.
    """
    import pytest

    expected = dict(expected_failures or {})

    def case(maker: Callable[[], Any], check: Check) -> Any:
        def run(denoiser: Any) -> None:
            (result,) = check_denoiser(denoiser, checks=[check], on_fail=None)
            if result.status == "skipped":
                pytest.skip(result.message)
            assert result.status == "passed", result.message

        why = expected.get(check.__name__)
        marks = [pytest.mark.xfail(reason=why, strict=True)] if why else []
        name = getattr(maker, "__name__", type(maker).__name__)
        return pytest.param(maker, run, id=f"{name}-{check.__name__}", marks=marks)

    cases = [case(maker, check) for maker in makers for check in CHECKS]
    return pytest.mark.parametrize(("denoiser", "check"), cases, indirect=["denoiser"])


def _subject(denoiser: Any, reference: Reference | None, images: np.ndarray | None) -> Subject:
    if images is None:
        images = np.random.default_rng(5).normal(40.0, 60.0, (3, 1, 64, 64)).astype(np.float32)
    if isinstance(denoiser, Denoiser):
        module = getattr(denoiser, "module", None)
        plain = module is not None and denoiser.channels == 1 and not getattr(denoiser, "feed", None)
    else:
        module, plain = denoiser, True
        denoiser = wrap(module, intensity="unit:-1024:3072")
    if reference is None and plain:
        reference = capture(module)
    return Subject(denoiser, images, reference, module, state_of(module))


def _run(check: Check, subject: Subject, expected: str | None) -> Result:
    name = check.__name__
    try:
        check(subject)
    except InapplicableError as skipped:
        return Result(name, "skipped", str(skipped))
    except Exception as error:  # whatever it is, the law does not hold
        if expected is not None:
            return Result(name, "xfail", expected)
        text = str(error).strip().splitlines() or [""]
        kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
        return Result(name, "failed", kind + text[0])
    if expected is not None:
        return Result(name, "failed", f"it was expected to fail ({expected}), and passes")
    return Result(name, "passed")
