"""What a run leaves on disk: writing it and reading it back."""
