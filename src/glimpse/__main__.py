"""`python -m glimpse` is the `glimpse` command."""

import sys

from glimpse.cli.main import main

sys.exit(main())
