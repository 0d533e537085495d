"""The roof: a run's configuration, its cells, tuning, verification, and the Python API."""
