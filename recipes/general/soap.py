"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner.

Source: Vyas et al., arXiv:2409.11321, algorithm 3; power iteration and a QR decomposition refresh the basis.
Teaching one stage to give a teacher's map is a badly conditioned regression without noise: SOAP got several
times as far as Adam in as many steps.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

SIDES = (("left", 0), ("right", 1))


class SOAP(torch.optim.Optimizer):
    """Optimizer for networks of small matrices; a convolution's weight counts as (out, all the rest).

    Args:
        groups: Parameter groups; each may have a weight_decay of its own.
        lr: Learning rate.
        betas: Decay of the mean and of the mean square of the gradient.
        basis_beta: Decay of the covariances that the basis is of.
        eps: Keeps the step finite.
        refresh_steps: Steps from one refreshed basis to the next.
        max_side: A side longer than this keeps its own basis, as in Adam.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.99),
        basis_beta: float = 0.98,
        eps: float = 1e-8,
        refresh_steps: int = 20,
        max_side: int = 520,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "basis_beta": basis_beta,
            "eps": eps,
            "refresh_steps": refresh_steps,
            "max_side": max_side,
            "weight_decay": 0.0,
        }
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Takes one step. The first step of a parameter only measures."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, self.state[parameter], group)

    def _update(self, parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        gradient = parameter.grad.flatten(1) if parameter.ndim > 1 else parameter.grad
        if not state:
            state |= {"n": 0, "m": torch.zeros_like(gradient), "v": torch.zeros_like(gradient)}
            for side, axis in SIDES if parameter.ndim > 1 else ():
                if 1 < gradient.shape[axis] <= group["max_side"]:
                    state[side] = torch.zeros(gradient.shape[axis], gradient.shape[axis])
        for side, axis in SIDES:
            if side in state:
                covariance = gradient @ gradient.T if axis == 0 else gradient.T @ gradient
                state[side].lerp_(covariance, 1 - group["basis_beta"])
        state["n"] += 1
        if state["n"] == 1 and parameter.ndim > 1:
            _first_basis(state)
            return
        count = state["n"] - (parameter.ndim > 1)
        beta1, beta2 = group["betas"]
        turned = _into_basis(gradient, state)
        state["m"].lerp_(gradient, 1 - beta1)
        state["v"].mul_(beta2).addcmul_(turned, turned, value=1 - beta2)
        mean = _into_basis(state["m"], state) / (1 - beta1**count)
        direction = mean / ((state["v"] / (1 - beta2**count)).sqrt() + group["eps"])
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(_out_of_basis(direction, state).reshape(parameter.shape), alpha=-group["lr"])
        if state["n"] % group["refresh_steps"] == 0:
            _refresh_basis(state)


def _first_basis(state: dict[str, Any]) -> None:
    for side, _ in SIDES:
        if side in state:
            state[f"{side}_basis"] = torch.linalg.eigh(state[side])[1].flip(1).contiguous()


def _refresh_basis(state: dict[str, Any]) -> None:
    for side, axis in SIDES:
        if side in state:
            basis, covariance = state[f"{side}_basis"], state[side]
            order = torch.einsum("ij,ij->j", basis, covariance @ basis).argsort(descending=True)
            state["v"] = state["v"].index_select(axis, order)
            state[f"{side}_basis"] = torch.linalg.qr(covariance @ basis[:, order])[0]


def _into_basis(values: Tensor, state: dict[str, Any]) -> Tensor:
    if "left_basis" in state:
        values = state["left_basis"].T @ values
    return values @ state["right_basis"] if "right_basis" in state else values


def _out_of_basis(values: Tensor, state: dict[str, Any]) -> Tensor:
    if "left_basis" in state:
        values = state["left_basis"] @ values
    return values @ state["right_basis"].T if "right_basis" in state else values
