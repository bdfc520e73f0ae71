"""Returns of imagined and real trajectories, with continuation."""

from __future__ import annotations

import torch
from torch import Tensor


def discounted_return(reward: Tensor, cont: Tensor, discount: float = 1.0) -> Tensor:
    """Sum rewards of the states reached, each weighted by the chance to get there.

    sum over h of discount^(h-1) * prod_{k<h} cont_k * reward_h: a state's own
    continuation never erases the reward of reaching it.

    Args:
        reward: [B, H], of the state reached by each action.
        cont: [B, H], probability that this state is not terminal.
        discount: per step, in [0, 1].

    Returns:
        [B].

    Example:
        >>> import torch
        >>> discounted_return(torch.tensor([[1.0, 1.0, 1.0]]), torch.tensor([[1.0, 0.0, 1.0]]))
        tensor([2.])
    """
    alive = torch.cumprod(torch.cat([torch.ones_like(cont[:, :1]), cont[:, :-1] * discount], 1), 1)
    return (alive * reward).sum(1)


def lambda_return(reward: Tensor, cont: Tensor, value: Tensor, discount: float, lam: float | Tensor) -> Tensor:
    """Compute TD(lambda) returns by the backward recursion.

    R_t = r_{t+1} + discount * c_{t+1} * ((1 - lam_{t+1}) * v_{t+1} + lam_{t+1} * R_{t+1}), and
    R_H = v_H; index t + 1 is the state reached by the t-th action.

    Args:
        reward: [B, H], r_1 .. r_H.
        cont: [B, H], c_1 .. c_H.
        value: [B, H], v_1 .. v_H.
        discount: per step, in [0, 1].
        lam: in [0, 1]; 0 is one-step TD, 1 is Monte Carlo with a final bootstrap. Or [B, H]: 0 where the rows that
            follow belong to another episode.

    Returns:
        [B, H], R_0 .. R_{H-1}.

    Reference:
        Sutton and Barto, Reinforcement Learning, 2018, eq. 12.20, with continuation.
    """
    # all but the recursion itself is done for all steps at once
    known = reward + discount * cont * (1 - lam) * value
    factor = discount * cont * lam
    carry = value[:, -1]
    out = []
    for now, share in zip(known.unbind(1)[::-1], factor.unbind(1)[::-1], strict=True):
        carry = torch.addcmul(now, share, carry)
        out.append(carry)
    return torch.stack(out[::-1], 1)
