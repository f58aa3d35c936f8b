"""All drawing of pictures. This is the only package that uses matplotlib."""
