"""Network definitions only: no files, no training, no image processing."""
