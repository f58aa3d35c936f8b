"""`python -m glimpse` is the `glimpse` command."""

import sys

from glimpse.cli.entry import main

sys.exit(main())
