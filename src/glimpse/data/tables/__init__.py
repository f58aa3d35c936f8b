"""Tables of images: their columns, the files they name, labels, splits and pixels."""
