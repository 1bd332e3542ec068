"""A flow's inverse, prepared for many draws."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from ctinv.invariance.networks.flow import (
    ActNorm,
    ConditionalFlow,
    Coupling,
    DenseCoupling,
    Entry,
    Mixing,
    Shuffle,
)
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["FlowInverse"]

Step = Callable[[Tensor], Tensor]
Bound = Callable[[Tensor], Step]

_FLOOR = math.log(1e-3)  # zuko's affine maps never shrink by more than this


def _soft_(x: Tensor, bound: float) -> Tensor:
    return x.div_(bound).tanh_().mul_(bound)


def _log_scale_(unbounded: Tensor) -> Tensor:
    """The logarithm of the scale that zuko's affine map makes of its parameter."""
    return unbounded.div_((unbounded / _FLOOR).abs_().add_(1))


class FlowInverse:
    """``code = t^-1(v | h)`` without what only the likelihood needs.

    The numbers of a vector code are kept in the order in which the couplings want them: masks and
    permutations become part of the weights, and a coupling changes its half in place. All affine
    maps that depend on no code are merged. Steps that are not known here are left to the flow.

    Arguments:
        flow: A fitted flow; its weights are read once.
    """

    @torch.inference_mode()
    def __init__(self, flow: ConditionalFlow) -> None:
        self.features, self._temperature = flow.features, flow.temperature.detach().clone()
        self._steps: list[Bound] = []
        # Column k of the state holds number order[k] of the code.
        order = torch.arange(flow.features, device=flow.mean.device)
        pending: tuple[Tensor, Tensor] | None = None  # an affine map that waits to be merged

        def flush() -> None:
            nonlocal pending
            if pending is not None:
                self._steps.append(_affine(*pending))
                pending = None

        def merge(factor: Tensor, offset: Tensor) -> None:
            nonlocal pending
            if pending is not None:
                factor, offset = factor * pending[0], factor * pending[1] + offset
            pending = factor, offset

        for step in reversed(list(flow.transform.transforms)):
            if isinstance(step, Shuffle):
                # v[k] = code[shuffle[k]]
                order = step.order[order]
            elif isinstance(step, ActNorm):
                factor = torch.exp(-_log_scale_(step.log_scale.detach().clone()))
                merge(factor[order], -(factor * step.shift.detach())[order])
            elif isinstance(step, DenseCoupling) and not step.bins:
                wanted = _halves(step.mask, order)
                if wanted is not None:
                    if pending is not None:
                        pending = pending[0][wanted], pending[1][wanted]
                        self._steps.append(_gather_affine(wanted, *pending))
                        pending = None
                    else:
                        self._steps.append(_gather(wanted))
                    order = order[wanted]
                flush()
                self._steps.append(_dense(step, order))
            else:
                flush()
                if bool((order != torch.arange(len(order), device=order.device)).any()):
                    self._steps.append(_gather(order.argsort()))
                    order = order.sort().values
                if isinstance(step, Coupling) and not step.bins:
                    self._steps.append(_convolutional(step))
                elif isinstance(step, Entry):
                    self._steps.append(_entry(step))
                elif isinstance(step, Mixing):
                    self._steps.append(_linear(step))
                else:
                    self._steps.append(_whole(step))
        merge(flow.std[order], flow.mean[order])
        flush()
        if bool((order != torch.arange(len(order), device=order.device)).any()):
            self._steps.append(_gather(order.argsort()))

    def bind(self, context: Tensor) -> Step:
        """The inverse at one context ``h`` (1, context, height, width).

        Returns:
            A function from invariance variables (N, features) to codes (N, features); it does not
            change what it is given.
        """
        with torch.inference_mode():
            steps = [bound(context) for bound in self._steps]

        def inverse(v: Tensor) -> Tensor:
            with torch.inference_mode():
                state = v * self._temperature
                for step in steps:
                    state = step(state)
                return state

        return inverse


def _halves(mask: Tensor, order: Tensor) -> Tensor | None:
    """The gather that brings one half of the code before the other; None where they lie so already."""
    ahead = mask[order]
    count, other = int(ahead.sum()), int((~ahead).sum())
    if bool(ahead[:count].all()) or not bool(ahead[:other].any()):
        return None
    return torch.cat([ahead.nonzero()[:, 0], (~ahead).nonzero()[:, 0]])


def _constant(step: Step) -> Bound:
    return lambda context: step


def _gather(index: Tensor) -> Bound:
    return _constant(lambda state: state.index_select(1, index))


def _affine(factor: Tensor, offset: Tensor) -> Bound:
    return _constant(lambda state: torch.addcmul(offset, state, factor))


def _gather_affine(index: Tensor, factor: Tensor, offset: Tensor) -> Bound:
    return _constant(lambda state: torch.addcmul(offset, state.index_select(1, index), factor))


def _whole(step: nn.Module) -> Bound:
    def bound(context: Tensor) -> Step:
        inverse: Step = step(context).inv
        return inverse

    return bound


def _linear(step: Mixing) -> Bound:
    eye = torch.eye(len(step.start), dtype=torch.float64, device=step.start.device)
    matrix = step.matrix().double()
    lower, upper = matrix.tril(), matrix.triu(1) + eye
    back = torch.linalg.solve_triangular(lower, eye, upper=False)
    back = torch.linalg.solve_triangular(upper, back, upper=True, unitriangular=True)
    weight = back.to(step.start.dtype)
    return _constant(lambda state: F.linear(state, weight))


def _entry(step: Entry) -> Bound:
    def bound(context: Tensor) -> Step:
        zero = context.new_zeros((1, step.shape[0] * step.shape[1] * step.shape[2]))
        transform = step(context)
        offset = transform.inv(zero)
        factor = transform.inv(zero + 1) - offset
        return lambda state: torch.addcmul(offset, state, factor)

    return bound


def _dense(step: DenseCoupling, order: Tensor) -> Bound:
    ahead = step.mask[order]
    count = int(ahead.sum())
    first = bool(ahead[:count].all())
    stays = slice(0, count) if first else slice(len(order) - count, None)
    moves = slice(count, None) if first else slice(0, len(order) - count)
    # Which input and output of the networks each column is.
    place = torch.empty_like(order)
    place[step.mask] = torch.arange(count, device=order.device)
    place[~step.mask] = torch.arange(len(order) - count, device=order.device)
    into, out = place[order[stays]], place[order[moves]]
    entry = step.code.weight.detach()[:, into].contiguous()
    bias = step.code.bias.detach()
    hidden = [
        (layer.get_parameter("bias").detach(), layer.get_parameter("weight").detach())
        for layer in step.hidden
    ]
    last = step.out.weight.detach()[:, :, out].contiguous(), step.out.bias.detach()[:, :, out].contiguous()
    groups = step.groups

    def bound(context: Tensor) -> Step:
        shared = step.context(context.flatten(1)) + bias

        def inverse(state: Tensor) -> Tensor:
            # tanh(x / 8) * 8 goes into a copy; the state itself stays.
            x = F.linear(_soft_(state[:, stays].clone(), 8.0), entry).add_(shared)
            x = F.silu(x, inplace=True).unflatten(1, (groups, -1)).transpose(0, 1)
            for shift, weight in hidden:
                x = F.silu(torch.baddbmm(shift, x, weight), inplace=True)
            moved, scaled = torch.baddbmm(last[1], x, last[0])
            target = state[:, moves]
            target.sub_(_soft_(moved, 4.0)).mul_(_log_scale_(_soft_(scaled, 1.5)).neg_().exp_())
            return state

        return inverse

    return bound


def _convolutional(step: Coupling) -> Bound:
    stay = step.mask.float()
    move = (1 - stay).expand(2, -1)

    def bound(context: Tensor) -> Step:
        shared = step.context(context.contiguous(memory_format=torch.channels_last))

        def inverse(state: Tensor) -> Tensor:
            code = _soft_(state * stay, 8.0).unflatten(1, step.shape)
            x = step.first(code, shared)
            x = step.out(F.silu(step.hidden(x), inplace=True)).flatten(1).unflatten(1, (2, -1))
            # Nothing is done to numbers that stay: their shift and log-scale are zero.
            shift, log_scale = x.mul_(move).unbind(1)
            return state.sub_(_soft_(shift, 4.0)).mul_(_log_scale_(_soft_(log_scale, 1.5)).neg_().exp_())

        return inverse

    return bound
