"""How well a task does on pictures that it was not trained on, beside what trivial answers give."""
