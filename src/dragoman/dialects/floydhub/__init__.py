"""FloydHub's API, as its command line floyd-cli 0.11.17 speaks it, and the endpoints of jobs in serve mode."""
