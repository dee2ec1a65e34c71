"""Open the app: `python app.py [--workspace DIR] [--host H] [--port P] [--auth USER:PASS]`, the
flags of `workbench app`.
"""

import sys

from workbench.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["app"]
    main()
