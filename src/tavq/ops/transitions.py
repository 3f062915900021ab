"""Mask-and-replace: the noise of discrete diffusion on tokens and its exact inverse, in logarithms.

At each step a token is kept, or replaced by one drawn evenly from those that may stand at its place, or masked; a
masked one stays masked. Several steps together are one transition of the same kind, so three shares (kept, replaced,
masked; together 1) describe any of them. A mask is the token v, after all others.

Source: Gu et al., Vector quantized diffusion model for text-to-image synthesis (arXiv 2111.14822), section 4.1.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

LOG_ZERO = -1e4
"""Stands for the logarithm of 0: its exponential is 0 in every float, and no difference or gradient becomes NaN."""


def make_schedule(steps: int, kept: tuple[float, float], masked: tuple[float, float]) -> Float[Tensor, "t 3"]:
    """The shares of the transition from the clean token to each of 0 to `steps`, float64.

    The shares kept (ᾱ) and masked (γ̄) run linearly from their first value at step 1 to their last one.
    """
    # not torch.linspace: after loading a model, transformers leaves its own in the place, deaf to the default device
    shares = torch.arange(steps, dtype=torch.float64) / max(steps - 1, 1)
    stays, hides = (first * (1 - shares) + last * shares for first, last in (kept, masked))
    later = torch.stack([stays, 1 - stays - hides, hides], dim=1)
    return torch.cat([torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64), later])


def transition_between(before: Float[Tensor, "b 3"], after: Float[Tensor, "b 3"]) -> Float[Tensor, "b 3"]:
    """The shares of the transition that leads from the step of `before` to that of `after`, both seen from the clean.

    From (ᾱ β̄ γ̄) of `before` and (ᾱ' β̄' γ̄') of `after`: kept ᾱ' / ᾱ, masked 1 - (1 - γ̄') / (1 - γ̄), replaced the rest.
    """
    stays, moves, hides = before.unbind(1)
    stays_after, moves_after, hides_after = after.unbind(1)
    seen = stays + moves  # 1 - γ̄; the rest below is written without a difference of numbers near 1
    # clamped: where nothing is replaced, rounding may leave a number below 0, whose logarithm is NaN
    moved = ((moves_after * stays - moves * stays_after) / (stays * seen)).clamp(min=0)
    return torch.stack([stays_after / stays, moved, (hides_after - hides) / seen], dim=1)


def add_noise(
    tokens: Int[Tensor, "b n"], shares: Float[Tensor, "b 3"], allowed: Bool[Tensor, "n v"]
) -> Int[Tensor, "b n"]:
    """Tokens after a transition, drawn from torch's global generator; `allowed` are one run of tokens a place."""
    chance, place = torch.rand(2, *tokens.shape, dtype=torch.float64, device=tokens.device)
    others = allowed.int().argmax(1) + (place * allowed.sum(1)).long()
    moved = torch.where(chance < shares[:, 1:2] + shares[:, 2:], others, tokens)
    return torch.where(chance < shares[:, 2:], allowed.shape[1], moved)


def log_uniform(allowed: Bool[Tensor, "n v"], dtype: torch.dtype) -> Float[Tensor, "n v"]:
    """The logarithm of the even distribution over the tokens that may stand at each place."""
    each = -allowed.sum(1, keepdim=True).to(dtype).log()
    return each.masked_fill(~allowed, LOG_ZERO)


def log_posterior(
    log_start: Float[Tensor, "b n v"],
    noisy: Int[Tensor, "b n"],
    before: Float[Tensor, "b 3"],
    now: Float[Tensor, "b 3"],
    even: Float[Tensor, "n v"],
) -> Float[Tensor, "b n w"]:
    """log p(x_s | x_t) = log Σ q(x_s | x_t, x_0) p(x_0), the sum over clean tokens x_0; of all tokens and the mask.

    Args:
        log_start: log p(x_0), normalised; LOG_ZERO where a token may not stand.
        noisy: x_t.
        before: shares of the transition from 0 to s < t; those of step 0 give p(x_0) back.
        now: shares of the transition from 0 to t.
        even: of `log_uniform`.

    Source: VQ-Diffusion, eq. 5, 10 and 11; for s < t - 1 the fast sampling of section 4.3.
    """
    hidden = (noisy == even.shape[1])[..., None]
    here = noisy.clamp(max=even.shape[1] - 1)
    same = torch.arange(even.shape[1], device=noisy.device) == here[..., None]
    even_here = even.expand(len(noisy), -1, -1).gather(2, here[..., None])
    ratio = log_start - _reaching(now, hidden, same, even_here)  # p(x_0) / q(x_t | x_0)
    whole = ratio.logsumexp(2, keepdim=True)
    stays, moves, hides = _logs(before, ratio)
    tokens = torch.logaddexp(stays + ratio, moves + even + whole)
    tokens = tokens + _reaching(transition_between(before, now), hidden, same, even_here)
    mask = torch.where(hidden, hides + whole, LOG_ZERO)
    return torch.cat([tokens, mask], dim=2)


def _reaching(
    shares: Float[Tensor, "b 3"],
    hidden: Bool[Tensor, "b n 1"],
    same: Bool[Tensor, "b n v"],
    even_here: Float[Tensor, "b n 1"],
) -> Float[Tensor, "b n v"]:
    """The logarithm of the chance that a transition from each token ends in the one at hand."""
    stays, moves, hides = _logs(shares, even_here)
    moved = torch.where(hidden, hides, moves + even_here)
    stayed = torch.where(hidden, hides, torch.logaddexp(stays, moves + even_here))
    return torch.where(same, stayed, moved)


def _logs(shares: Float[Tensor, "b 3"], like: Tensor) -> list[Float[Tensor, "b 1 1"]]:
    """The logarithms of the three shares."""
    logs = shares.log().clamp(min=LOG_ZERO).to(like.dtype)
    return [column[:, None, None] for column in logs.unbind(1)]


def kl_divergence(true: Float[Tensor, "b n w"], model: Float[Tensor, "b n w"]) -> Float[Tensor, " b"]:
    """KL(true ‖ model) of distributions given by their logarithms, in nats, summed over the places."""
    return (true.exp() * (true - model)).sum((1, 2))


def log_one_hot(tokens: Int[Tensor, "b n"], even: Float[Tensor, "n v"]) -> Float[Tensor, "b n v"]:
    """The logarithm of the distribution that is all at `tokens`."""
    same = torch.arange(even.shape[1], device=tokens.device) == tokens[..., None]
    return torch.where(same, 0.0, LOG_ZERO).to(even.dtype)
