"""Render stored runs as tables, pages and pictures. Imports no torch."""
