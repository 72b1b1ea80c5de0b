"""Write for others: one file per format."""
