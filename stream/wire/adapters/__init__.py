"""One page per input format."""
