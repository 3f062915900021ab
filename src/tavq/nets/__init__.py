"""Networks that know nothing of codes or text: convolutions, hierarchy, discriminator, feature networks."""
