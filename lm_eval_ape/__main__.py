"""`python -m lm_eval_ape`, the same as the command `lm-eval-ape`."""

import sys

from lm_eval_ape.cli import main

if __name__ == "__main__":
    sys.exit(main())
