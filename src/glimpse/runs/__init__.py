"""Reading run folders: what the `glimpse` command shows of them."""
