"""``python -m lightning_gradcam.command``: the same as ``lightning-gradcam``."""

import sys

from lightning_gradcam.command.entry import main

sys.exit(main())
