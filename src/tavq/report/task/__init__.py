"""The parts of a task's page."""
