"""The explorer's server: an ASGI application that answers its own page only."""
