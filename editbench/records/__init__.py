"""Write the records of a run to disk, and read them back."""
