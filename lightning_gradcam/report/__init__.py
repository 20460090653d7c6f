"""What a comparison found, and how it is shown."""

from lightning_gradcam.report.findings import EXIT_CODES, Finding, Report, Status, Worst

__all__ = ["EXIT_CODES", "Finding", "Report", "Status", "Worst"]
