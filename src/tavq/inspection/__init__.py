"""What pages and servers show of a model: entries decoded alone, their nearest units of text, and images as bytes."""
