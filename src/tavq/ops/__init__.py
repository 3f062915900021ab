"""Functions on tensors that know no settings and no parts: search, transport, sampling, gradients, collectives."""
