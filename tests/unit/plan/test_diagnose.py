"""Problems in words: nothing in a cluster that is in order, one line with a next step for each thing that is wrong."""
