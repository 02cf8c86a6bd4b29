"""What we remember: summaries that merge exactly, the windows they belong to, and references to compare them with."""
