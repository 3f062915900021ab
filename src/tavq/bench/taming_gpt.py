"""The transformer of taming-transformers in plain PyTorch: a reference for sampling."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EVERY = 16
"""`sample` computes every 16th token only."""

Past = tuple[Tensor, Tensor]


class Block(nn.Module):
    """Three projections, the full matrix of weights, a mask, GELU."""

    mask: Tensor

    def __init__(self, width: int, heads: int, positions: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.key, self.query, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.register_buffer("mask", torch.ones(positions, positions).tril())

    def forward(self, x: Tensor, past: Past | None = None) -> tuple[Tensor, Past]:
        """Hidden states, and keys and values of all positions until now; with a past, `x` is the newest position."""
        b, n, c = x.shape
        normed = self.norms[0](x)
        query, key, value = (
            part(normed).view(b, n, self.heads, -1).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        if past is not None:
            key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
        scores = query @ key.transpose(2, 3) * (c // self.heads) ** -0.5
        if past is None:
            scores = scores.masked_fill(self.mask[:n, :n] == 0, -torch.inf)
        x = x + self.out((scores.softmax(3) @ value).transpose(1, 2).reshape(b, n, c))
        return x + self.fc2(F.gelu(self.fc1(self.norms[1](x)))), (key, value)


class TamingGPT(nn.Module):
    """A GPT over the tokens of an image."""

    def __init__(self, layers: int, width: int, heads: int, positions: int, vocabulary: int) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.zeros(positions, width))
        self.blocks = nn.ModuleList(Block(width, heads, positions) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

    def _sample_next(self, x: Tensor) -> Tensor:
        return torch.multinomial(self.head(self.norm(x))[:, -1].softmax(1), 1)

    @torch.no_grad()
    def sample(self, count: int) -> None:
        """Without a cache: all tokens are encoded again for each new one. Every 16th token only."""
        n = len(self.positions)
        tokens = torch.zeros(count, n, dtype=torch.int64, device=self.positions.device)
        for index in range(EVERY // 2, n, EVERY):
            x = self.token_embedding(tokens[:, :index]) + self.positions[:index]
            for block in self.blocks:
                x, _ = block(x)
            tokens[:, index] = self._sample_next(x)[:, 0]

    @torch.no_grad()
    def sample_with_past(self, count: int) -> Tensor:
        """With keys and values kept, which are copied at each token."""
        token = torch.zeros(count, 1, dtype=torch.int64, device=self.positions.device)
        past: list[Past | None] = [None] * len(self.blocks)
        tokens = []
        for position in self.positions:
            x = self.token_embedding(token) + position
            for i, block in enumerate(self.blocks):
                x, past[i] = block(x, past[i])
            token = self._sample_next(x)
            tokens.append(token)
        return torch.cat(tokens, 1)
