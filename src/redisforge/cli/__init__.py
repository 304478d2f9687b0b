"""The doors: one file per noun. Parse, call a runbook, show. Only this room prints."""
