"""Answers of the explorer's API, version 1; `docs/explore-api.md` lists the endpoints that give them."""
