"""The engine of the locate-then-edit methods."""
