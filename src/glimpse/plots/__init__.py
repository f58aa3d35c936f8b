"""Every picture that is drawn; the only package that uses matplotlib."""
