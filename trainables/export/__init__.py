"""A finished trial as files that run elsewhere: written, described, and proven to give the recorded accuracy."""
