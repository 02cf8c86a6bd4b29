"""What we measure: events in, numbers out. Nothing is remembered."""
