"""`python3 -m agent`, and `python3 -I -S /…/agent/__main__.py run`, the leanest way to run the daemon.

-I leaves the script's directory out of the search path, so that form puts its parent there itself.
"""

import sys

if not __package__:
    sys.path.insert(0, __file__.rpartition("/")[0].rpartition("/")[0] or ".")

from agent.cli import main  # the path must be set first

sys.exit(main())
