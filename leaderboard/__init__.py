"""Records in, tables out. No torch."""
