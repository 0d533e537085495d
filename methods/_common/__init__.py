"""Helpers that editors and trainers share."""
