"""A folder of token shards: the bit-packed token indices of a collection, written by many and read in place."""
