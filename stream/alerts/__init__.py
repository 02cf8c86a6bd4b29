"""What people are told: verdicts in, alerts out. Policy and words, no mathematics."""
