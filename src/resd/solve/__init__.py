"""Work at test time: one problem, many attempts, until the first full reward."""
