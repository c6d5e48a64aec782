"""`python -m fractionate`."""

import sys

from fractionate.cli import main

sys.exit(main())
