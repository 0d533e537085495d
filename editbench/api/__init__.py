"""What a Python session calls: runs and evaluations as ``Results``, with tables of pandas."""
