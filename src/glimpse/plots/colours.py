"""The colours of lines. Colour-blind people can distinguish them.

Source: Okabe & Ito 2008, Color Universal Design. The first two colours are for training and
validation, or for a first and a second run.
"""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
