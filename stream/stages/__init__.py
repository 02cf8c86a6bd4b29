"""The product: pure functions `step(state, batch) -> (state, outputs)` that meet on topics, never in code."""

from stream.profiles.reference import References

__all__ = ["References"]
