"""Which rows make a batch: sources, mixture, length buckets, tokenised rows."""
