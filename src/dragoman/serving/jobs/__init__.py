"""Jobs (people's own programs): what is kept of them, and what keeps them running. Called by dialects/floydhub and the command line."""
