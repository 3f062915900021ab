"""HTML, charts and images for any page."""
