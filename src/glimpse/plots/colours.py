"""The colours of lines in pictures: the colour-blind can tell them apart (Okabe & Ito 2008, Color
Universal Design). The first two are training and validation, or a first and a second run."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
