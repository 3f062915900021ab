"""The codebook made of words: what is taken from a text store, what moves in training, and what is refused."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from text_sources import NoText, WordGraphSource

from tavq.codebooks.transferred import TransferredCodebook, principal_components
from tavq.core.config import build
from tavq.core.errors import UsageError
from tavq.interfaces import split_parts
from tavq.nets.graph import normalized_adjacency, sparse_matmul
from tavq.tokenizer import Tokenizer, TokenizerConfig

NET = {"channels": 8, "multipliers": [1, 1, 2], "blocks": 1, "attention": False}


class Graph:
    """Three adjectives, four nouns and vectors of width 6."""

    adjectives, nouns = ("red", "small", "old"), ("car", "dog", "house", "red")
    edges, edge_counts = np.array([[0, 0], [0, 1], [1, 1], [1, 2]]), np.array([5, 1, 2, 7])
    vectors = np.random.default_rng(0).standard_normal((7, 6), np.float32)


def resolved(**settings: Any) -> Any:
    config = TransferredCodebook.Config.model_validate({"width": 4, **settings})
    return TransferredCodebook.resolve_config(config, WordGraphSource(Graph()))


def made(**settings: Any) -> TransferredCodebook:
    torch.manual_seed(0)
    codebook = TransferredCodebook(resolved(**settings))
    codebook.load_vocabulary(WordGraphSource(Graph()))
    return codebook


def test_the_settings_get_their_words_from_the_store() -> None:
    config = resolved()
    assert (config.adjectives, config.nouns) == (Graph.adjectives, Graph.nouns)
    assert (config.edges, config.word_width, config.parts) == (4, 6, 2)
    assert TransferredCodebook.resolve_config(config, WordGraphSource(Graph())) == config


def test_words_of_another_store_are_refused() -> None:
    with pytest.raises(UsageError, match=r"model\.codebook\.nouns differs from the word graph of the text store"):
        resolved(nouns=["car", "cat"])


@pytest.mark.parametrize("source", [None, NoText(6)])
def test_without_a_word_graph_it_says_how_to_make_one(source: Any) -> None:
    with pytest.raises(UsageError, match="make one with: tavq text DIR --word-graph"):
        TransferredCodebook.resolve_config(TransferredCodebook.Config(), source)
    with pytest.raises(UsageError, match="its settings have none"):
        TransferredCodebook(TransferredCodebook.Config())


def test_every_entry_has_its_word_and_every_part_its_kind() -> None:
    codebook = made()
    assert codebook.words == (*Graph.adjectives, *Graph.nouns)
    assert codebook.sizes == (3, 4)
    parts = split_parts(codebook)
    assert torch.equal(torch.cat([part() for part in parts]), codebook())
    whole = made(split=False)
    assert (whole.sizes, whole.config.parts) == ((7,), 1)
    assert torch.equal(whole(), codebook())


def test_a_gradient_at_one_entry_moves_all_entries() -> None:
    """The point of the paper (section 3.4): an entry's gradient reaches the weights that make all others."""
    codebook = made(last_relu=False)
    before = codebook().detach()
    codebook()[0].square().sum().backward()
    with torch.no_grad():
        for parameter in codebook.parameters():
            parameter -= 0.1 * parameter.grad
    assert (codebook().detach() - before).abs().sum(1).gt(1e-4).all()
    assert torch.equal(codebook.vectors, torch.from_numpy(Graph.vectors))


def test_the_words_are_frozen_finetuned_or_random() -> None:
    assert "vectors" not in dict(made().named_parameters())
    assert torch.equal(made(words="finetuned").vectors, torch.from_numpy(Graph.vectors))
    assert "vectors" in dict(made(words="finetuned").named_parameters())
    random = made(words="random")
    assert "vectors" in dict(random.named_parameters())
    assert not torch.equal(random.vectors, torch.from_numpy(Graph.vectors))


def test_without_a_network_the_word_vectors_are_the_entries() -> None:
    codebook = made(network="none", width=6)
    assert torch.equal(codebook(), torch.from_numpy(Graph.vectors))
    assert not list(codebook.parameters())
    assert dict(made(network="none", width=6, words="finetuned").named_parameters()).keys() == {"vectors"}
    assert made(network="none", width=9, words="random")().shape == (7, 9)
    with pytest.raises(UsageError, match=r"up to 6 of their principal components; model\.codebook\.width is 9"):
        made(network="none", width=9)


def test_wider_word_vectors_are_reduced_by_pca() -> None:
    vectors = torch.from_numpy(Graph.vectors)
    whole = principal_components(vectors, 6)
    torch.testing.assert_close(torch.cdist(whole, whole), torch.cdist(vectors, vectors), atol=1e-4, rtol=1e-4)
    assert torch.equal(made(network="none", width=2)(), whole[:, :2])
    assert (whole.var(0).diff() <= 0).all()


def test_edges_have_weight_one_or_their_count() -> None:
    assert not torch.equal(made().values, made(edge_counts=True).values)
    edges = torch.from_numpy(Graph.edges) + torch.tensor([0, 3])
    for counts, weights in ((True, [5.0, 1.0, 2.0, 7.0]), (False, [1.0] * 4)):
        places, values = normalized_adjacency(edges, torch.tensor(weights), 7)
        codebook = made(edge_counts=counts)
        assert torch.equal(codebook.places, places)
        assert torch.equal(codebook.values, values)


def test_dropout_runs_in_training_only() -> None:
    codebook = made(dropout=0.5, width=64, last_relu=False)
    assert not torch.equal(codebook(), codebook())
    codebook.eval()
    assert torch.equal(codebook(), codebook())
    kept = [codebook.train()._drop(torch.ones(200, 50)) for _ in range(2)]
    assert kept[0].unique().tolist() == [0, 2]
    assert abs(float(kept[0].mean()) - 1) < 0.05


def test_entries_are_float32_under_autocast() -> None:
    codebook = made()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(codebook(), codebook().float())
        assert codebook().dtype == torch.float32


def test_more_edges_than_pairs_are_refused() -> None:
    config = resolved().model_copy(update={"edges": 13})
    with pytest.raises(UsageError, match="3 adjectives and 4 nouns cannot have 13 different edges"):
        TransferredCodebook(config)
    full = TransferredCodebook(config.model_copy(update={"edges": 12}))
    assert full().isfinite().all()


def test_an_index_outside_of_the_graph_is_an_error() -> None:
    codebook = made()
    codebook.places[1, 0] = 7
    with pytest.raises(RuntimeError, match="size is inconsistent with indices"):
        codebook()


def test_a_tokenizer_with_its_words_survives_a_model_folder(tmp_path: Any) -> None:
    values = {"net": NET, "codebook": {"name": "transferred", "width": 4}, "quantizer": "product"}
    config = build(TokenizerConfig, values, "test")
    assert config.reads_text
    tokenizer = Tokenizer(config.resolve_config(WordGraphSource(Graph())))
    tokenizer.load_vocabulary(WordGraphSource(Graph()))
    tokenizer.save_pretrained(tmp_path / "model")
    loaded = Tokenizer.from_pretrained(tmp_path / "model")
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(loaded.encode(images), tokenizer.eval().encode(images))
    torch.testing.assert_close(loaded.codebook(), tokenizer.codebook())  # numbers that lie elsewhere add up otherwise
    assert loaded.codebook.words == tokenizer.codebook.words


def test_settings_hold_as_many_words_as_the_paper_has() -> None:
    names = {"adjectives": [f"a{i}" for i in range(3000)], "nouns": [f"n{i}" for i in range(6000)]}
    table = {"name": "transferred", "width": 4, "edges": 1, "word_width": 6, **names}
    plain = {"net": NET, "codebook": table, "quantizer": "product"}
    assert build(TokenizerConfig, plain, "test").codebook.parts == 2


@given(st.integers(1, 12), st.data())
def test_the_sparse_product_is_the_dense_one(nodes: int, data: st.DataObject) -> None:
    pairs = [(i, j) for i in range(nodes) for j in range(i + 1, nodes)]
    chosen = data.draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    edges = torch.tensor(chosen, dtype=torch.int64).reshape(-1, 2)
    weights = torch.tensor(data.draw(st.lists(st.floats(0.1, 50), min_size=len(edges), max_size=len(edges))))
    places, values = normalized_adjacency(edges, weights.float().reshape(-1), nodes)
    dense = torch.eye(nodes).index_put((edges[:, 0], edges[:, 1]), weights.float().reshape(-1))
    dense = dense + dense.T - torch.eye(nodes)
    scale = dense.sum(1).rsqrt()
    rows = torch.randn(nodes, 3)
    torch.testing.assert_close(sparse_matmul(places, values, rows), scale[:, None] * dense * scale @ rows)
