"""Networks: one architecture a file, plain nn.Module, sized by ImageSpec, logits out."""
