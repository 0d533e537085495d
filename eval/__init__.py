"""Applied model in, scores out. Does not know who made the edit."""
