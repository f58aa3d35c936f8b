"""Random augmentations of training images, one family per file."""
