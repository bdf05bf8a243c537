"""Models that others have published, from the files in which they publish them."""
