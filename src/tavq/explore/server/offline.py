"""The bundle of an offline page, with answers as the server gives them."""

from tavq.explore.answers.edits import Bundle
from tavq.explore.bundle import Choice, make_bundle
from tavq.explore.explorer import Explorer
from tavq.explore.server.app import make_api
from tavq.explore.server.inside import fetch_inside


def bundle_of(explorer: Explorer, choice: Choice) -> Bundle:
    """Answers and images of the chosen pages."""
    app = make_api(explorer)
    return make_bundle(choice, lambda address: fetch_inside(app, address))
