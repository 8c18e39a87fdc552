"""`python -m dasp`: the `dasp` command."""

import sys

from dasp.cli import main

sys.exit(main())
