"""The choice of the rows of a batch: sources, mixture, length buckets, tokenised rows."""
