"""What editors and trainers share."""
