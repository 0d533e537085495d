"""Configure runs, compute their cells, search options, verify records, and offer the Python API."""
