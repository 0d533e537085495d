"""Fast paths of the editors: private calls of torch and transformers, with plain fallbacks."""
