"""What a run can be logged to: each in one file."""
