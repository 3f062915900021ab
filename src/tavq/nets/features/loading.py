"""Feature networks by name."""

from pathlib import Path

from tavq.core.errors import UsageError, unknown_name
from tavq.nets.features.extractors import FeatureNetwork, ScenesNetwork, SqueezeNet
from tavq.nets.features.inception import InceptionNetwork
from tavq.nets.features.lpips import LpipsNetwork

NETWORKS: dict[str, type[FeatureNetwork]] = {
    network.name: network for network in (ScenesNetwork, SqueezeNet, InceptionNetwork, LpipsNetwork)
}
WEIGHTS = {
    "squeezenet": "its .npz file of Caffe weights",
    "inception": "the file that `tavq metrics convert inception` writes",
    "lpips": "the file that `tavq metrics convert lpips-vgg` writes",
}
"""The file of weights of each network that does not ship with the package."""


def load_feature_network(name: str, weights: Path | None = None, classifier: bool = False) -> FeatureNetwork:
    """Loads the feature network `name`.

    Args:
        name: a key of NETWORKS.
        weights: its file of weights; `scenes` ships with the package.
        classifier: load the classifier too, so that `logits` works; only some networks have one.
    """
    if name not in NETWORKS:
        raise UsageError(unknown_name("feature network", name, NETWORKS))
    if classifier and not NETWORKS[name].has_classifier:
        raise UsageError(missing_classifier(name))
    if name == ScenesNetwork.name:
        return ScenesNetwork(weights)
    if weights is None:
        raise UsageError(f"The feature network {name!r} needs the path of {WEIGHTS[name]}; write {name}=FILE.")
    if name == SqueezeNet.name:
        return SqueezeNet(weights, classifier)
    return InceptionNetwork(weights) if name == InceptionNetwork.name else LpipsNetwork(weights)


def missing_classifier(name: str) -> str:
    """The error message for a network without a classifier whose logits are needed."""
    known = [other for other in sorted(NETWORKS) if NETWORKS[other].has_classifier]
    return f"The feature network {name!r} has no classifier and so no logits; networks with one: {', '.join(known)}."
