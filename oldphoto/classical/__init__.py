"""Classical restoration: blur and noise are estimated from the photo, then inverted."""
