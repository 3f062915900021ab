"""The feature networks by name."""

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
"""What a user gives to each network that does not ship its weights."""


def feature_network(name: str, weights: Path | None = None, classifier: bool = False) -> FeatureNetwork:
    """The feature network `name`: `scenes` ships its weights, the others read them from the file `weights`.

    With `classifier` it can be asked for `logits`, which only some can.
    """
    if name not in NETWORKS:
        raise UsageError(unknown_name("feature network", name, NETWORKS))
    if classifier and not NETWORKS[name].classifies:
        raise UsageError(no_classifier(name))
    if name == ScenesNetwork.name:
        return ScenesNetwork(weights)
    if weights is None:
        raise UsageError(f"The feature network {name!r} needs the path of {WEIGHTS[name]}; write {name}=FILE.")
    if name == SqueezeNet.name:
        return SqueezeNet(weights, classifier)
    return InceptionNetwork(weights) if name == InceptionNetwork.name else LpipsNetwork(weights)


def no_classifier(name: str) -> str:
    """What a user is told who asks a network without a classifier for its logits."""
    known = [other for other in sorted(NETWORKS) if NETWORKS[other].classifies]
    return f"The feature network {name!r} has no classifier and so no logits; networks with one: {', '.join(known)}."
