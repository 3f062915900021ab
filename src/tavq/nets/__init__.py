"""Networks that know no codebook, text store or task: convolutions, transformers, discriminators, features."""
