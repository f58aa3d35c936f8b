"""Networks. Each file defines one architecture as an nn.Module, built from an ImageSpec.

All networks return logits.
"""
