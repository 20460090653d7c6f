"""``python -m lightning_gradcam.cli``, equivalent to ``lightning-gradcam``."""

from __future__ import annotations

import sys

from lightning_gradcam.cli.main import main

sys.exit(main())
