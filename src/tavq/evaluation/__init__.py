"""How well a task does on images that it was not trained on, beside what trivial answers give."""
