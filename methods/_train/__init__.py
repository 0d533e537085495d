"""The engine of the trainers."""
