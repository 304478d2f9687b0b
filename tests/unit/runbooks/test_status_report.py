"""The report of `status`, from facts alone."""
