"""`python -m foreworld.cli`."""

import sys

from foreworld.cli.main import main

sys.exit(main())
