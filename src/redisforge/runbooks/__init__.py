"""One file per verb; each reads top to bottom like the runbook an operator would follow."""
