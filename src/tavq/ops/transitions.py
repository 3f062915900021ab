"""Mask-and-replace noise of discrete diffusion on tokens and its exact inverse, in log space.

In each step a token is kept, or replaced by one sampled uniformly from the tokens allowed at its position, or masked; a
mask stays a mask. Several steps together are one transition of the same kind, so three probabilities (kept, replaced,
masked; their sum is 1) describe any of them. The mask is token v, after all others.

Source: Gu et al., Vector quantized diffusion model for text-to-image synthesis (arXiv 2111.14822), section 4.1.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

LOG_ZERO = -1e4
"""Used as the logarithm of 0: its exponential is 0 in every float, and no difference or gradient becomes NaN."""


def make_schedule(steps: int, kept: tuple[float, float], masked: tuple[float, float]) -> Float[Tensor, "t 3"]:
    """The transition probabilities from the clean token to each of the steps 0 to `steps`, in float64.

    The probabilities of kept (ᾱ) and of masked (γ̄) run linearly from their first value, at step 1, to their last.
    """
    # not torch.linspace: loading a model, transformers replaces it by a version that ignores the default device
    fraction = torch.arange(steps, dtype=torch.float64) / max(steps - 1, 1)
    p_kept, p_masked = (first * (1 - fraction) + last * fraction for first, last in (kept, masked))
    later = torch.stack([p_kept, 1 - p_kept - p_masked, p_masked], dim=1)
    return torch.cat([torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64), later])


def transition_between(before: Float[Tensor, "b 3"], after: Float[Tensor, "b 3"]) -> Float[Tensor, "b 3"]:
    """The transition that leads from the step of `before` to that of `after`, both given from the clean token.

    From (ᾱ β̄ γ̄) of `before` and (ᾱ' β̄' γ̄') of `after`: kept ᾱ' / ᾱ, masked 1 - (1 - γ̄') / (1 - γ̄), replaced the rest.
    """
    kept, replaced, masked = before.unbind(1)
    kept_after, replaced_after, masked_after = after.unbind(1)
    unmasked = kept + replaced  # 1 - γ̄; the lines below take no difference of numbers near 1
    # clamped: where no token is replaced, rounding can leave a number below 0, whose logarithm is NaN
    step_replaced = ((replaced_after * kept - replaced * kept_after) / (kept * unmasked)).clamp(min=0)
    return torch.stack([kept_after / kept, step_replaced, (masked_after - masked) / unmasked], dim=1)


def add_noise(
    tokens: Int[Tensor, "b n"], transition: Float[Tensor, "b 3"], allowed: Bool[Tensor, "n v"]
) -> Int[Tensor, "b n"]:
    """Sample tokens after a transition by torch's global generator; tokens `allowed` at a position are adjacent."""
    event, which = torch.rand(2, *tokens.shape, dtype=torch.float64, device=tokens.device)
    others = allowed.int().argmax(1) + (which * allowed.sum(1)).long()
    replaced = torch.where(event < transition[:, 1:2] + transition[:, 2:], others, tokens)
    return torch.where(event < transition[:, 2:], allowed.shape[1], replaced)


def log_uniform(allowed: Bool[Tensor, "n v"], dtype: torch.dtype) -> Float[Tensor, "n v"]:
    """The log probabilities of the uniform distribution over the tokens allowed at each position."""
    log_p = -allowed.sum(1, keepdim=True).to(dtype).log()
    return log_p.masked_fill(~allowed, LOG_ZERO)


def log_posterior(
    log_start: Float[Tensor, "b n v"],
    noisy: Int[Tensor, "b n"],
    before: Float[Tensor, "b 3"],
    now: Float[Tensor, "b 3"],
    uniform: Float[Tensor, "n v"],
) -> Float[Tensor, "b n w"]:
    """log p(x_s | x_t) = log Σ q(x_s | x_t, x_0) p(x_0) over clean tokens x_0; for all tokens and the mask.

    Args:
        log_start: log p(x_0), normalised; LOG_ZERO for tokens that are not allowed.
        noisy: x_t.
        before: the transition from 0 to s < t; that of step 0 gives p(x_0) back.
        now: the transition from 0 to t.
        uniform: from `log_uniform`.

    Source: VQ-Diffusion, eq. 5, 10 and 11; for s < t - 1 the fast sampling of section 4.3.
    """
    masked = (noisy == uniform.shape[1])[..., None]
    here = noisy.clamp(max=uniform.shape[1] - 1)
    same = torch.arange(uniform.shape[1], device=noisy.device) == here[..., None]
    uniform_here = uniform.expand(len(noisy), -1, -1).gather(2, here[..., None])
    ratio = log_start - _log_likelihood(now, masked, same, uniform_here)  # p(x_0) / q(x_t | x_0)
    total = ratio.logsumexp(2, keepdim=True)
    log_kept, log_replaced, log_masked = _log_transition(before, ratio)
    tokens = torch.logaddexp(log_kept + ratio, log_replaced + uniform + total)
    tokens = tokens + _log_likelihood(transition_between(before, now), masked, same, uniform_here)
    mask = torch.where(masked, log_masked + total, LOG_ZERO)
    return torch.cat([tokens, mask], dim=2)


def _log_likelihood(
    transition: Float[Tensor, "b 3"],
    masked: Bool[Tensor, "b n 1"],
    same: Bool[Tensor, "b n v"],
    uniform_here: Float[Tensor, "b n 1"],
) -> Float[Tensor, "b n v"]:
    """The log probability that a transition from each token ends in the observed one.

    Args:
        transition: its three probabilities.
        masked: whether the observed token is the mask.
        same: whether each token is the observed one.
        uniform_here: log probability of the observed token under `log_uniform`.
    """
    log_kept, log_replaced, log_masked = _log_transition(transition, uniform_here)
    from_other = torch.where(masked, log_masked, log_replaced + uniform_here)
    from_same = torch.where(masked, log_masked, torch.logaddexp(log_kept, log_replaced + uniform_here))
    return torch.where(same, from_same, from_other)


def _log_transition(transition: Float[Tensor, "b 3"], like: Tensor) -> list[Float[Tensor, "b 1 1"]]:
    """The logarithms of the three probabilities, in the dtype of `like`."""
    logs = transition.log().clamp(min=LOG_ZERO).to(like.dtype)
    return [column[:, None, None] for column in logs.unbind(1)]


def kl_divergence(true: Float[Tensor, "b n w"], model: Float[Tensor, "b n w"]) -> Float[Tensor, " b"]:
    """KL(true ‖ model) of log probabilities, in nats, summed over positions."""
    return (true.exp() * (true - model)).sum((1, 2))


def log_one_hot(tokens: Int[Tensor, "b n"], uniform: Float[Tensor, "n v"]) -> Float[Tensor, "b n v"]:
    """The log probabilities of the distribution that puts all weight on `tokens`; `uniform` gives v and the dtype."""
    same = torch.arange(uniform.shape[1], device=tokens.device) == tokens[..., None]
    return torch.where(same, 0.0, LOG_ZERO).to(uniform.dtype)
