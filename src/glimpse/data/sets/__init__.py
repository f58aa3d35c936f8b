"""The datasets: each states its facts and reads its own format."""
