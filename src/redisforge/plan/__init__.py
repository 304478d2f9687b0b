"""PURE. What is and what should be become a Plan of Steps."""
